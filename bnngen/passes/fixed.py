# SPDX-License-Identifier: Apache-2.0
"""Tensors whose integers are given, not chosen: the image, unpacked bits, codes of a quantizer, exact accumulators.

An accumulator is exact when the input is such a tensor and the weights are few-valued: it then means precisely what the
float layer computes. Where nothing real-valued reads it, and it fits, it is stored as it is (s16), so that signs and
quantizers behind it, also those behind a pool, are decided exactly (docs/numerics.md, "Exact accumulators").
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.passes.forms import ENDS, KERNELS, acc_limits
from bnngen.passes.naming import kept
from bnngen.passes.weights import quantize

Array = np.ndarray
SAME_INTEGERS = (ir.MaxPool, ir.Flatten)


@dataclass(frozen=True)
class Fixed:
    """Integer type, scale of every channel (float64 [C]), and the smallest and largest integer."""

    dtype: str
    scales: Array
    lo: int
    hi: int


def smallest_type(lo: int, hi: int) -> str | None:
    """Return the stream type that holds lo .. hi; None where none does."""
    fits = (t for t in ir.STREAM_TYPES if ir.TYPE_RANGE[t][0] <= lo and hi <= ir.TYPE_RANGE[t][1])
    return next(fits, None)


def codes_of(levels: ir.Levels, channels: int) -> Fixed:
    """Return what a quantizer writes. Raises ModelError where its codes are too many for int16."""
    lo, hi = int(levels.start), int(levels.start) + len(levels.cuts)
    dtype = smallest_type(min(lo, 0), hi)
    step = float(np.float32(levels.step))  # as the float stage has it; with float32 weights products stay exact
    if dtype is None:
        raise ModelError(
            f"a quantizer has codes {lo} .. {hi}, more than int16 holds",
            where=f"layer {levels.name}",
            fix="quantize to at most 15 bits, or not at all: the stream is int16",
        )
    return Fixed(dtype, np.full(channels, step), lo, hi)


def fixed_tensors(graph: ir.Graph, image: Fixed) -> dict[str, Fixed]:
    """Return every tensor of fixed integers, of a graph with or without chains; bits are none of them."""
    found = {graph.input: image}
    for node in graph.nodes:
        last = node.links[-1] if isinstance(node, ir.Chain) else node
        source = found.get(node.inputs[0])
        value = None
        if isinstance(node, ir.Unpack):
            value = Fixed(ir.S8, np.ones(graph.tensors[node.output].channels), -1, 1)
        elif isinstance(last, ir.Levels):
            value = codes_of(last, graph.tensors[node.output].channels)
        elif isinstance(node, SAME_INTEGERS) and source:
            copies = graph.tensors[node.output].channels // len(source.scales)
            value = Fixed(source.dtype, np.tile(source.scales, copies), source.lo, source.hi)
        elif isinstance(node, ir.Channels) and source:
            picked = source.scales[np.maximum(node.index, 0)]
            real = picked[node.index >= 0]
            scales = np.where(node.index < 0, real.min() if real.size else 1.0, picked)
            value = Fixed(source.dtype, scales, min(source.lo, 0), max(source.hi, 0))
        elif isinstance(node, ir.Concat):
            value = _joined([found.get(name) for name in node.inputs])
        elif isinstance(node, ir.Chain) and _read_exactly(graph, node.output):
            value = _stored(node.links, source)
        if value:
            found[node.output] = value
    return found


def _stored(links: tuple[ir.Node, ...], source: Fixed | None) -> Fixed | None:
    """Return the accumulator of a chain that is a layer alone, or a layer and a clip that its integers can follow."""
    value = accumulator(links[0], source)
    if value is None or len(links) == 1:
        return value
    limits = acc_limits(links[0], links[1]) if len(links) == 2 and isinstance(links[1], ir.Clip) else None
    if limits is None or limits[0] > value.hi or limits[1] < value.lo:
        return None
    return replace(value, lo=max(value.lo, limits[0]), hi=min(value.hi, limits[1]))


def accumulator(layer: ir.Node, source: Fixed | None) -> Fixed | None:
    """Return the exact accumulator of a layer as a tensor; None where it is not exact or does not fit int16."""
    if isinstance(layer, ir.BinaryConv2D):
        taps = int(np.prod(layer.weights.shape[:3]))
        unit = np.ones(layer.weights.shape[-1]) if layer.kernel_scale is None else layer.kernel_scale.astype(np.float64)
        return _as_s16(unit, -taps, taps)
    if not isinstance(layer, ir.Conv2D | ir.Dense) or source is None or not has_no_bias(layer):
        return None
    weights = layer.weights[None, None] if isinstance(layer, ir.Dense) else layer.weights
    quantized = quantize(weights, getattr(layer, "groups", 1), source.scales)
    if not quantized.exact.all():
        return None
    taps = quantized.integers.reshape(-1, weights.shape[-1])
    positive = np.maximum(taps, 0).sum(axis=0, dtype=np.int64)
    negative = np.minimum(taps, 0).sum(axis=0, dtype=np.int64)
    lo, hi = min(source.lo, 0), max(source.hi, 0)  # 0 stands outside the image
    smallest, largest = (positive * lo + negative * hi).min(), (positive * hi + negative * lo).max()
    return _as_s16(quantized.unit, int(smallest), int(largest))


def has_no_bias(layer: ir.Node) -> bool:
    """True when the accumulator's 0 is the real 0."""
    bias = getattr(layer, "bias", None)
    return bias is None or not np.any(bias)


def _as_s16(unit: Array, lo: int, hi: int) -> Fixed | None:
    low, high = ir.TYPE_RANGE[ir.S16]
    return Fixed(ir.S16, unit, lo, hi) if low <= lo and hi <= high else None


def _joined(parts: list[Fixed | None]) -> Fixed | None:
    if any(part is None for part in parts) or len({part.dtype for part in parts if part}) != 1:
        return None
    known = [part for part in parts if part]
    scales = np.concatenate([part.scales for part in known])
    return Fixed(known[0].dtype, scales, min(p.lo for p in known), max(p.hi for p in known))


def _read_exactly(graph: ir.Graph, name: str) -> bool:
    """True when every reader decides a sign or a code on the tensor, or makes scores of it, perhaps behind a pool."""
    if name in kept(graph):
        return False
    readers = graph.consumers(name)
    return bool(readers) and all(
        _read_exactly(graph, node.output)
        if isinstance(node, SAME_INTEGERS)
        else isinstance(node, ir.Chain) and isinstance(node.links[-1], ENDS) and not isinstance(node.links[0], KERNELS)
        for node in readers
    )
