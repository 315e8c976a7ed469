# SPDX-License-Identifier: Apache-2.0
"""Choose the integer type and scale of every real-valued tensor from its calibrated range.

Tensors that an addition, a maximum or a flatten joins must share one scale, since those ops do not
multiply: they form groups, and the widest member decides (docs/numerics.md, "Scale").
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError

SHARES_SCALE = (ir.Add, ir.MaxPool, ir.Flatten)


def stream_tensors(graph: ir.Graph, bits: int) -> dict[str, ir.Tensor]:
    """Return the typed tensor for every float tensor that is kept, the input and the scores apart."""
    dtype = ir.S8 if bits == 8 else ir.S16
    leader = _groups(graph)
    reach: dict[str, float] = {}
    for name, root in leader.items():
        reach[root] = max(reach.get(root, 0.0), _reach(graph, name))
    limit = 2 ** (bits - 1) - 1
    return {
        name: ir.Tensor(name, graph.tensors[name].shape, dtype, (reach[root] / limit) or 1.0)
        for name, root in leader.items()
    }


def input_rule(meta: ir.ModelMeta, shape: tuple[int, ...], name: str) -> tuple[ir.Tensor, ir.Affine]:
    """Return the integer input tensor and the rule pixel -> integer (docs/numerics.md, "Input")."""
    scale, offset = Fraction(meta.input_scale), Fraction(meta.input_offset)
    for factor, dtype in ((1, ir.S8), (1, ir.S16), (2, ir.S16)):
        ratio = offset / scale * factor
        lo, hi = ir.TYPE_RANGE[dtype]
        if ratio.denominator == 1 and lo <= ratio and 255 * factor + ratio <= hi:
            tensor = ir.Tensor(name, shape, dtype, float(scale / factor))
            return tensor, _pixel_rule(tensor, factor, int(ratio), 0)
    reach = max(abs(float(offset)), abs(float(255 * scale + offset))) or 1.0
    tensor = ir.Tensor(name, shape, ir.S16, reach / 32767)
    grid, shift = Fraction(tensor.scale or 1.0), 16
    return tensor, _pixel_rule(tensor, round(scale / grid * 2**shift), round(offset / grid * 2**shift), shift)


def _pixel_rule(tensor: ir.Tensor, mult: int, bias: int, shift: int) -> ir.Affine:
    half = 1 << (shift - 1) if shift else 0
    channels, (lo, hi) = tensor.channels, ir.TYPE_RANGE[tensor.dtype]
    mults, biases = np.full(channels, mult, np.int32), np.full(channels, bias + half, np.int64)
    return ir.Affine(mults, biases, shift, lo, hi, 0, 255)


def _groups(graph: ir.Graph) -> dict[str, str]:
    """Map each kept float tensor to the leader of its group."""
    names = [
        name
        for name, tensor in graph.tensors.items()
        if tensor.dtype == ir.FLOAT and name not in (graph.input, graph.output)
    ]
    leader = {name: name for name in names}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for node in graph.nodes:
        core = node.links[0] if isinstance(node, ir.Chain) else node
        if not isinstance(core, SHARES_SCALE):
            continue
        for name in node.inputs:
            if name in leader and node.output in leader:
                leader[find(name)] = find(node.output)
    return {name: find(name) for name in names}


def _reach(graph: ir.Graph, name: str) -> float:
    if name not in graph.meta.ranges:
        raise ModelError(
            f"tensor {name} has no calibrated range",
            where=f"layer {getattr(graph.producer(name), 'name', '?')}",
            why="the integer scale of a real-valued tensor comes from the range seen in calibration",
            fix="export the model again with --calibrate DATA",
        )
    lo, hi = graph.meta.ranges[name]
    if not (math.isfinite(lo) and math.isfinite(hi)):
        raise ModelError(
            f"the calibrated range of tensor {name} is not finite: [{lo}, {hi}]",
            fix="look for NaN or infinite weights, and export again with other calibration images",
        )
    return max(abs(lo), abs(hi))
