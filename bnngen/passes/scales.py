# SPDX-License-Identifier: Apache-2.0
"""Choose the integer type and scale of every real-valued tensor from its calibrated range.

16 bits: one scale a tensor. 8 bits: one scale a channel, since every reader multiplies by constants of its own into
which scales fold. Tensors that an addition, a maximum or a move of channels joins share scales, and the widest member
decides (docs/numerics.md, "Scale").
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.passes.bounds import check_pools, largest_integers
from bnngen.passes.epilogues import Output
from bnngen.passes.fixed import Fixed
from bnngen.passes.groups import Groups, find_groups
from bnngen.passes.naming import kept
from bnngen.passes.tables import FUNCTIONS, TABLE_ENTRIES, needed_reach

Array = np.ndarray
MOVES = (ir.MaxPool, ir.Flatten, ir.Concat, ir.Channels)  # values of their inputs: no range of their own
QUIET = 16  # a channel's range is taken to be at least this part of the tensor's largest


@dataclass(frozen=True)
class Types:
    """tensors: integer type and scale by name. limits: the smallest and largest integer that may be written."""

    tensors: dict[str, ir.Tensor]
    limits: dict[str, tuple[int, int]]

    def output(self, name: str) -> Output:
        """Return where an epilogue writes the tensor."""
        return Output(self.tensors[name].scales, *self.limits[name], self.tensors[name].offsets)


def plain_scale(scales: Array) -> float | tuple[float, ...]:
    """Return a scale as tensors carry it: one number where all channels agree."""
    return float(scales[0]) if (scales == scales[0]).all() else tuple(scales.tolist())


def stream_types(graph: ir.Graph, bits: int, fixed: dict[str, Fixed]) -> Types:
    """Type every float tensor of a fused graph, those of fixed integers and the scores apart."""
    apart = {graph.output, *fixed}
    names = [n for n, tensor in graph.tensors.items() if tensor.dtype == ir.FLOAT and n not in apart]
    check_pools(graph, names, bits)
    uniform = set(names) if bits == 16 else _need_one_scale(graph, names)
    while True:
        types = _types(graph, bits, find_groups(graph, names, sorted(uniform)))
        clipped = _unequal_clips(graph, types) - uniform
        if not clipped:
            return types
        uniform |= clipped


def _types(graph: ir.Graph, bits: int, groups: Groups) -> Types:
    computed = {node.output for node in graph.nodes if not isinstance(node, MOVES)}
    reach = np.zeros(len(groups.label))
    for name in groups.slots:
        if name in computed:
            np.maximum.at(reach, groups.label[groups.slots[name]], channel_reach(graph, name, bits))
    if bits == 8:
        reach = _with_silent(reach, groups)
    else:
        _hold_entries(graph, reach, groups)
    reach = reach[groups.label]
    limit = np.full(len(reach), 2 ** (bits - 1) - 1)
    if bits == 16:
        bounds = largest_integers(graph, {name: float(reach[slots].max()) for name, slots in groups.slots.items()})
        for name, bound in bounds.items():
            np.minimum.at(limit, groups.label[groups.slots[name]], bound)
    wide = _only_scores(graph) if bits == 8 else set()
    for name in wide & set(groups.slots):
        limit[groups.label[groups.slots[name]]] = ir.TYPE_RANGE[ir.S16][1]
    limit = limit[groups.label]
    tensors, limits = {}, {}
    for name, slots in groups.slots.items():
        dtype = ir.S16 if bits == 16 or name in wide else ir.S8
        scales = reach[slots] / limit[slots]
        scales = np.where(scales > 0, scales, 1.0)
        top, (lo, hi) = int(limit[slots].min()), ir.TYPE_RANGE[dtype]
        tensors[name] = ir.Tensor(name, graph.tensors[name].shape, dtype, plain_scale(scales))
        limits[name] = (lo, hi) if top == hi else (-top, top)
    return Types(tensors, limits)


def _with_silent(reach: Array, groups: Groups) -> Array:
    """Give channels that stay 0 a part of their tensor's largest reach: their scale folds into weights too."""
    while True:
        part = np.zeros(len(reach))
        for slots in groups.slots.values():
            labels = groups.label[slots]
            np.maximum.at(part, labels, reach[labels].max() / QUIET)
        new = np.where(reach == 0, part, reach)
        if (new == reach).all():  # what one tensor gave, another may share
            return reach
        reach = new


def _hold_entries(graph: ir.Graph, reach: Array, groups: Groups) -> None:
    """Let a table's output hold the entries on both sides of all values seen: these lie on lines between them."""
    for node in graph.of_type(ir.Unary):
        (name,) = node.inputs
        if name in groups.slots and node.output in groups.slots:
            seen, top = range_of(graph, name), reach[groups.label[groups.slots[name]]].max()
            between = top / (TABLE_ENTRIES // 2)
            ends = np.clip([min(seen.lo) - between, max(seen.hi) + between], -top, top)
            np.maximum.at(reach, groups.label[groups.slots[node.output]], np.abs(FUNCTIONS[node.kind](ends)).max())


def _need_one_scale(graph: ir.Graph, names: list[str]) -> set[str]:
    """Return the tensors that a table reads or writes, and the features of the learned head."""
    found = {name for node in graph.of_type(ir.Unary) for name in (*node.inputs, node.output)}
    if graph.meta.head is not None:
        found.add(graph.meta.head.tensor)
    return found & set(names)


def _unequal_clips(graph: ir.Graph, types: Types) -> set[str]:
    """Return outputs of chains that end in a clip whose limits would be another integer in every channel."""
    found = set()
    for chain in graph.of_type(ir.Chain):
        last = chain.links[-1]
        if isinstance(last, ir.Clip) and chain.output in types.tensors:
            out = types.output(chain.output)
            if any(len(set(out.limits(value).tolist())) > 1 for value in (last.lo, last.hi)):
                found.add(chain.output)
    return found


def _only_scores(graph: ir.Graph) -> set[str]:
    """Return the tensors that only the scores read: they are int16 in 8-bit builds too, a few values long."""
    found = set()
    for chain in graph.of_type(ir.Chain):
        if isinstance(chain.links[-1], ir.Scores):
            (name,) = chain.inputs
            writer = graph.producer(name)
            own = isinstance(writer, ir.Chain) and not isinstance(writer.links[0], ir.Add)
            if own and graph.consumers(name) == [chain]:
                found.add(name)
    return found


def channel_reach(graph: ir.Graph, name: str, bits: int) -> Array:
    """Return the largest absolute value that each channel of the tensor must hold, float64 [C]."""
    seen = range_of(graph, name)
    channels = graph.tensors[name].channels
    for values in (seen.lo, seen.hi, seen.clip):
        if len(values) not in (1, channels) and not (values == () and values is seen.clip):
            raise ModelError(
                f"the range of tensor {name} has {len(values)} entries, the tensor {channels} channels",
                fix="export the model again with --calibrate DATA",
            )
    reach = np.broadcast_to(seen.reach, (channels,))
    if bits == 16:
        return np.minimum(reach, _table_reach(graph, name, seen))
    if seen.clip:
        reach = np.minimum(reach, np.float64(seen.clip))
    return np.maximum(reach, reach.max() / QUIET)


def _table_reach(graph: ir.Graph, name: str, seen: ir.ChannelRange) -> float:
    """Return where the functions that alone read a tensor become flat: a table has 257 entries, whatever the reach."""
    readers = graph.consumers(name)
    if name in kept(graph) or not readers or not all(isinstance(node, ir.Unary) for node in readers):
        return np.inf
    return max(needed_reach(node.kind, min(seen.lo), max(seen.hi)) for node in readers)


def range_of(graph: ir.Graph, name: str) -> ir.ChannelRange:
    """Return what calibration saw of a tensor. Raises ModelError where it saw nothing, or nothing finite."""
    if name not in graph.meta.ranges:
        raise ModelError(
            f"tensor {name} has no calibrated range",
            where=f"layer {getattr(graph.producer(name), 'name', '?')}",
            why="the integer scale of a real-valued tensor comes from the range seen in calibration",
            fix="export the model again with --calibrate DATA",
        )
    seen = graph.meta.ranges[name]
    if not np.isfinite(np.concatenate([np.atleast_1d(part) for part in (seen.lo, seen.hi, seen.clip)])).all():
        raise ModelError(
            f"the calibrated range of tensor {name} is not finite",
            fix="look for NaN or infinite weights, and export again with other calibration images",
        )
    return seen


# ------------------------------------------------------------------------------------------- image


def image_of(graph: ir.Graph) -> Fixed:
    """Return the integers of the image."""
    tensor, rule = input_rule(graph.meta, graph.tensors[graph.input].shape, graph.input)
    ends = [int((pixel * int(rule.mult[0]) + int(rule.bias[0])) >> rule.shift) for pixel in (0, 255)]
    return Fixed(tensor.dtype, np.array(tensor.scales), *ends)


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
    grid, shift = Fraction(tensor.uniform_scale), 16
    return tensor, _pixel_rule(tensor, round(scale / grid * 2**shift), round(offset / grid * 2**shift), shift)


def _pixel_rule(tensor: ir.Tensor, mult: int, bias: int, shift: int) -> ir.Affine:
    half = 1 << (shift - 1) if shift else 0
    channels, (lo, hi) = tensor.channels, ir.TYPE_RANGE[tensor.dtype]
    mults, biases = np.full(channels, mult, np.int32), np.full(channels, bias + half, np.int64)
    return ir.Affine(mults, biases, shift, lo, hi, 0, 255)
