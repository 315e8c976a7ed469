# SPDX-License-Identifier: Apache-2.0
"""The largest integer that a tensor may hold so that every sum of its readers stays in int32.

Dense layers of thousands of int16 inputs would overflow otherwise; the tensor then uses fewer of its 32767 steps
(docs/numerics.md, "Scale"). Lowering proves the same from the graph that comes out.
"""

from __future__ import annotations

from collections.abc import Collection
from math import lcm

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.passes.weights import WEIGHT_MAX, quantize, quantize_jointly

Array = np.ndarray
ROOM = 2**31 - 2  # one less than int32 holds: "always" is the level above the largest accumulator
S16_LO, S16_HI = ir.TYPE_RANGE[ir.S16]
LEAST_STEPS = {8: 128, 16: 2000}  # at 8 bits all; at 16 a tensor with fewer is no better than one of 8 or 12 bits


def largest_integers(graph: ir.Graph, reach: dict[str, float]) -> dict[str, int]:
    """Return the limit of each int16 tensor with a reader that needs one. reach: the real value at the limit."""
    limits: dict[str, int] = {}
    positive = _not_negative(graph)
    for node in graph.nodes:
        core = node.links[0] if isinstance(node, ir.Chain) else node
        name = node.inputs[0]
        if name not in reach:
            continue
        limit = S16_HI
        if isinstance(core, ir.Conv2D | ir.Dense):
            limit = _of_layer(core, node.output == graph.output, name in positive, reach[name])
        elif isinstance(core, ir.AveragePool | ir.GlobalAveragePool):
            limit = ROOM // pool_factor(core, graph.tensors[name].shape)
        if limit < S16_HI:
            limits[name] = min(limit, limits.get(name, limit))
    return limits


def check_pools(graph: ir.Graph, names: Collection[str], bits: int) -> None:
    """Raise ModelError for a pool that would leave its input too few steps. names: tensors whose scale is chosen."""
    for node in graph.nodes:
        pool, name = node.links[0] if isinstance(node, ir.Chain) else node, node.inputs[0]
        if not isinstance(pool, ir.AveragePool | ir.GlobalAveragePool) or name not in names:
            continue
        factor = pool_factor(pool, graph.tensors[name].shape)
        if ROOM // factor < LEAST_STEPS[bits]:
            padded = "the least common multiple of its windows' sizes" if any(_pads(pool)) else "the size of its window"
            narrow = bits == 16 and ROOM // factor >= LEAST_STEPS[8]
            raise ModelError(
                f"this average pool leaves its input {ROOM // factor} steps of {2 ** (bits - 1) - 1}",
                where=f"layer {pool.name}",
                why=f"its sums are int32 and reach its input times {factor}, {padded} (docs/numerics.md, section 3)",
                fix="use a smaller window, or one that stays inside the image (padding='valid')"
                + (", or build with --activation-bits 8" if narrow else ""),
            )


def _pads(pool: ir.AveragePool | ir.GlobalAveragePool) -> tuple[int, ...]:
    return pool.window.pads if isinstance(pool, ir.AveragePool) else ()


def pool_factor(pool: ir.AveragePool | ir.GlobalAveragePool, shape: tuple[int, ...]) -> int:
    """Return by how much the accumulator of an average can exceed its inputs: the count, or the denominator."""
    if isinstance(pool, ir.GlobalAveragePool):
        return int(np.prod(shape[:2]))
    return denominator(pool, shape) or int(np.prod(pool.window.kernel))


def denominator(pool: ir.AveragePool, shape: tuple[int, ...]) -> int:
    """Return the least common multiple of the counts of positions inside; 0 for a window without pads."""
    window = pool.window
    if not any(window.pads):
        return 0
    sizes = window.output_size(*shape[:2])
    inside = [_counts(window, axis, size, out) for axis, (size, out) in enumerate(zip(shape[:2], sizes, strict=True))]
    counts = {a * b for a in inside[0] for b in inside[1]}
    if 0 in counts:
        raise ModelError(
            "a pooling window lies wholly in the padding",
            where=f"layer {pool.name}",
            why="the mean of no values is not defined",
            fix="pad by less than the window's size",
        )
    return lcm(*counts)


def _counts(window: ir.Window, axis: int, size: int, out: int) -> set[int]:
    taps = np.arange(window.kernel[axis]) * window.dilation[axis] - window.pads[axis]
    places = taps + np.arange(out)[:, None] * window.stride[axis]
    return set(((places >= 0) & (places < size)).sum(axis=1).tolist())


def _of_layer(layer: ir.Conv2D | ir.Dense, scores: bool, positive: bool, reach: float) -> int:
    taps = layer.weights[..., 0].size
    if taps * WEIGHT_MAX * -S16_LO <= ROOM and not scores:
        return S16_HI
    extra = 0.0
    if scores:
        integers, unit = quantize_jointly(layer.weights, np.ones(taps))
        if layer.bias is not None and reach > 0:
            extra = float(np.abs(layer.bias).max()) / (unit * reach)  # of one step of the input
    else:
        weights = layer.weights[None, None] if isinstance(layer, ir.Dense) else layer.weights
        groups = getattr(layer, "groups", 1)
        integers = quantize(weights, groups, np.ones(weights.shape[2] * groups)).integers
    flat = integers.reshape(-1, integers.shape[-1])
    up = np.maximum(flat, 0).sum(axis=0, dtype=np.int64)
    down = -np.minimum(flat, 0).sum(axis=0, dtype=np.int64)
    if positive:
        worst, full = np.maximum(up, down), np.maximum(up, down) * S16_HI
    else:
        worst, full = up + down, np.maximum(up * S16_HI - down * S16_LO, down * S16_HI - up * S16_LO)
    if (full + np.ceil(extra * S16_HI) <= ROOM).all():
        return S16_HI
    return int(np.floor(ROOM / (worst.max() + extra))) - 1


def _not_negative(graph: ir.Graph) -> set[str]:
    found: set[str] = set()
    for node in graph.nodes:
        clip = node.links[-1] if isinstance(node, ir.Chain) else None
        moved = isinstance(node, ir.MaxPool | ir.Flatten | ir.Concat | ir.Channels)
        if isinstance(clip, ir.Clip) and clip.lo >= 0 or moved and all(name in found for name in node.inputs):
            found.add(node.output)
    return found
