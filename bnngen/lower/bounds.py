# SPDX-License-Identifier: Apache-2.0
"""Which values every tensor and accumulator can take, and the proofs that rest on it.

Interval arithmetic with the actual weights. A convolution may skip taps outside the image and may add
them in any order, so the bound holds for every partial sum:

    largest  = sum of w > 0 of w * hi  +  sum of w < 0 of |w| * |lo|        with lo <= 0 <= hi

and likewise for the smallest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.lower.shapes import HIGH, NARROW, WIDE

Range = tuple[int, int]
INT32: Range = ir.TYPE_RANGE[ir.S32]
INT64: Range = (-(2**63), 2**63 - 1)
FEWER_INPUTS = "sum fewer inputs: a smaller kernel, groups, or a layer in front that narrows the tensor"
FEWER_BITS = f"build with --activation-bits 8 where this is a build with 16, or {FEWER_INPUTS}"
SMALLER_WINDOW = "use a smaller pooling window, or one that stays inside the image (padding='valid')"


def tensor_ranges(graph: ir.Graph, unpack: ir.Unpack | None = None) -> dict[str, Range]:
    """Return the smallest and largest integer that each tensor can hold.

    unpack: what rebuilds the tensor at the cut during learning; its values count there too.
    """
    ranges = {graph.input: ir.TYPE_RANGE[ir.U8]}
    for node in graph.nodes:
        ranges[node.output] = _output_range(graph, node, ranges)
        if unpack is not None and node.output == unpack.output:
            ranges[node.output] = _extremes(ranges[node.output], unpack.low, unpack.high)
    return ranges


def _extremes(*arrays: np.ndarray | Range) -> Range:
    """The smallest and the largest of all values."""
    return min(int(np.min(v)) for v in arrays), max(int(np.max(v)) for v in arrays)


def _output_range(graph: ir.Graph, node: ir.Node, ranges: dict[str, Range]) -> Range:
    epilogue = getattr(node, "epilogue", None)
    if isinstance(epilogue, ir.Affine):
        return epilogue.lo, epilogue.hi
    if isinstance(epilogue, ir.Piecewise):
        return epilogue.below.lo, epilogue.below.hi
    if isinstance(epilogue, ir.Steps):
        return epilogue.first, epilogue.first + epilogue.level.shape[-1]
    sources = [ranges[name] for name in node.inputs]
    if isinstance(node, ir.Add):
        (a_lo, a_hi), (b_lo, b_hi) = sources
        return max(a_lo + b_lo, node.lo), min(a_hi + b_hi, node.hi)
    if isinstance(node, ir.MaxPool | ir.Flatten | ir.Concat):
        return min(lo for lo, _ in sources), max(hi for _, hi in sources)
    if isinstance(node, ir.Channels):
        zero = [(0, 0)] if (node.index < 0).any() else []
        return min(lo for lo, _ in sources + zero), max(hi for _, hi in sources + zero)
    if isinstance(node, ir.Unpack):
        return _extremes(node.low, node.high)
    if isinstance(node, ir.Unary) and node.table is not None:
        return _extremes(node.table)
    dtype = graph.tensors[node.output].dtype
    return (-1, 1) if dtype == ir.BITS else ir.TYPE_RANGE[dtype]


def dot_range(node: ir.Node, weights: np.ndarray, source: Range, bias: np.ndarray | None = None) -> list[Range]:
    """Return, per output channel, the range of every partial sum of weights * inputs (+ bias).

    weights: integers, output channel last. Raises ModelError when int32 is not enough.
    """
    lo, hi = min(source[0], 0), max(source[1], 0)
    flat = weights.reshape(-1, weights.shape[-1])
    positive = [int(v) for v in np.maximum(flat, 0).sum(axis=0, dtype=np.int64)]  # int8 weights: far below 2^63
    negative = [int(v) for v in np.minimum(flat, 0).sum(axis=0, dtype=np.int64)]
    offsets = [0] * flat.shape[1] if bias is None else [int(b) for b in bias]
    bounds = []
    for p, n, b in zip(positive, negative, offsets, strict=True):
        smallest, largest = p * lo + n * hi, p * hi + n * lo
        bounds.append((smallest + min(b, 0), largest + max(b, 0)))
    s8_lo, s8_hi = ir.TYPE_RANGE[ir.S8]
    _require_int32(node, bounds, FEWER_INPUTS if s8_lo <= lo and hi <= s8_hi else FEWER_BITS)
    return bounds


def sum_range(node: ir.Node, count: int, channels: int, source: Range) -> list[Range]:
    """Return the range of every partial sum of `count` inputs, per channel."""
    bounds = [(count * min(source[0], 0), count * max(source[1], 0))] * channels
    _require_int32(node, bounds, SMALLER_WINDOW)
    return bounds


def product_range(a: Range, b: Range) -> Range:
    """Return the range of a product; that of two int16 is at most 2^30."""
    corners = [x * y for x in a for y in b]
    return min(corners), max(corners)


def _require_int32(node: ir.Node, bounds: list[Range], fix: str) -> None:
    for channel, (lo, hi) in enumerate(bounds):
        if lo < INT32[0] or hi > INT32[1]:
            raise ModelError(
                f"the accumulator of this layer can reach {max(-lo, hi)}, beyond 32 bits",
                where=f"layer {node.name}, output channel {channel}",
                why="sums are int32 and may never overflow (docs/numerics.md)",
                fix=fix,
            )


def require_room_above(node: ir.Node, bounds: list[Range]) -> None:
    """Raise ModelError unless "always", the level above the largest accumulator, is an int32."""
    _require_int32(node, [(lo, hi + 1) for lo, hi in bounds], FEWER_BITS)


@dataclass(frozen=True, eq=False)
class LoweredAffine:
    """An affine in the form in which kernels compute it: WIDE, NARROW or HIGH (bnn/kernel.h), each proved exact.

    With HIGH, affine.shift is by how much the accumulator is shifted to the left.
    """

    affine: ir.Affine
    arithmetic: int


def lower_affine(node: ir.Node, affine: ir.Affine, channels: int, acc: list[Range]) -> LoweredAffine:
    """Broadcast to `channels`, drop common factors of two, and choose the cheapest arithmetic that is exact.

    If every mult is m * 2^g with g <= shift, then
        floor((acc * m * 2^g + b) / 2^s) = floor((acc * m + floor(b / 2^g)) / 2^(s - g))
    so a scale that is a power of two, as in the input and in pools, needs few bits.
    """
    mult = [int(v) for v in np.broadcast_to(affine.mult, (channels,))]
    bias = [int(v) for v in np.broadcast_to(affine.bias, (channels,))]
    g = min([affine.shift, *((m & -m).bit_length() - 1 for m in mult if m)])
    mult, bias, shift = [m >> g for m in mult], [b >> g for b in bias], affine.shift - g
    ranges = [(_clamp(lo, affine), _clamp(hi, affine)) for lo, hi in acc]
    if shift <= 31 and _fits(INT32, mult, bias, ranges):
        return _lowered(affine, mult, bias, shift, NARROW)
    high = _high(mult, bias, shift, ranges)
    if high is not None:
        return _lowered(affine, *high, HIGH)
    if not _fits(INT64, mult, bias, ranges):
        raise ModelError("the scale of this layer does not fit 64-bit arithmetic", where=f"layer {node.name}")
    return _lowered(affine, mult, bias, shift, WIDE)


def _clamp(acc: int, affine: ir.Affine) -> int:
    return min(max(acc, affine.acc_lo), affine.acc_hi)


def _high(mult: list[int], bias: list[int], shift: int, acc: list[Range]) -> tuple[list[int], list[int], int] | None:
    """Scale by 2^(32 - shift), so that the result is the high word of the sum: mult as far as int32 has room,
    the accumulator by the rest. Returns mult, bias and the accumulator's shift; None where that does not fit."""
    room = min((31 - m.bit_length() for m in mult), default=0)
    left = 32 - shift
    if left < 0:
        return None
    by_mult = max(0, min(left, room))
    by_acc = left - by_mult
    mult, bias = [m << by_mult for m in mult], [b << left for b in bias]
    scaled = [(lo << by_acc, hi << by_acc) for lo, hi in acc]
    inside = all(INT32[0] <= lo and hi <= INT32[1] for lo, hi in scaled)
    return (mult, bias, by_acc) if by_acc < 32 and inside and _fits(INT64, mult, bias, scaled) else None


def _lowered(affine: ir.Affine, mult: list[int], bias: list[int], shift: int, arithmetic: int) -> LoweredAffine:
    bias_type = np.int32 if arithmetic == NARROW else np.int64
    lowered = replace(affine, mult=np.array(mult, np.int32), bias=np.array(bias, bias_type), shift=shift)
    return LoweredAffine(lowered, arithmetic)


def _fits(limits: Range, mult: list[int], bias: list[int], acc: list[Range]) -> bool:
    for m, b, (lo, hi) in zip(mult, bias, acc, strict=True):
        products = (m * lo, m * hi)
        values = (b, *products, *(p + b for p in products))
        if min(values) < limits[0] or max(values) > limits[1]:
            return False
    return True
