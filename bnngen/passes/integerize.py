# SPDX-License-Identifier: Apache-2.0
"""Turn every chain into one integer op: typed tensors, int8 weights, thresholds and multipliers.

Nothing here rounds a threshold: a chain that ends in a sign is compared exactly. A chain that stays real
is quantized once, on the scale of its output tensor (docs/numerics.md, section 3).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.passes.epilogues import Accumulator, Tail, affine_rule, int32_levels, threshold_rule
from bnngen.passes.scales import input_rule, stream_tensors

Array = np.ndarray
WEIGHT_MAX = 127


class HasBits(Protocol):
    """The one option this pass reads."""

    activation_bits: int


def integerize(graph: ir.Graph, options: HasBits) -> ir.Graph:
    """Return the integer graph of a fused float graph."""
    pixels = ir.Tensor(graph.input, graph.tensors[graph.input].shape, ir.U8)
    image, rule = input_rule(graph.meta, pixels.shape, f"{graph.input}.q")
    table = {tensor.name: tensor for tensor in (pixels, image)}
    table |= stream_tensors(graph, options.activation_bits)
    table |= {name: t for name, t in graph.tensors.items() if t.dtype == ir.BITS}
    nodes: list[ir.Node] = [ir.QuantizeInput("input", (graph.input,), image.name, rule)]
    for node in graph.nodes:
        renamed = tuple(image.name if name == graph.input else name for name in node.inputs)
        new, tensor = _convert(replace(node, inputs=renamed), graph, table)
        table[tensor.name] = tensor
        nodes.append(new)
    return replace(graph, nodes=tuple(nodes), tensors=table)


def _convert(node: ir.Node, graph: ir.Graph, table: dict[str, ir.Tensor]) -> tuple[ir.Node, ir.Tensor]:
    """Return the integer node and its output tensor."""
    source = table[node.inputs[0]]
    if isinstance(node, ir.Dense) and node.output == graph.output:
        return _scores(node, source, graph.tensors[node.output].shape)
    if node.output == graph.output:
        raise ModelError(
            "the last layer must be a Dense layer that gives the class scores",
            where=f"layer {node.name}",
            fix="end the network with Dense(classes)",
        )
    out = table[node.output]
    if isinstance(node, ir.Chain):
        return _chain(node, source, out), out
    if isinstance(node, (ir.MaxPool, ir.Flatten)):
        return node, replace(out, dtype=source.dtype, scale=source.scale)
    raise ModelError(f"{type(node).__name__} has no integer form", where=f"layer {node.name}")


def _chain(chain: ir.Chain, source: ir.Tensor, out: ir.Tensor) -> ir.Node:
    first, place = chain.links[0], (chain.name, chain.inputs, chain.output)
    if isinstance(first, ir.Add):
        lo, hi = ir.TYPE_RANGE[out.dtype]
        return ir.Add(*place, 0 if len(chain.links) > 1 else lo, hi)
    if isinstance(first, ir.BinaryConv2D):
        return _binary_conv(first, chain, out)
    if isinstance(first, (ir.Conv2D, ir.Dense)):
        return _conv(first, chain, source, out)
    if isinstance(first, (ir.AveragePool, ir.GlobalAveragePool)):
        rule = _epilogue(_sum_of(first, source), chain.links[1:], out)
        window = (first.window,) if isinstance(first, ir.AveragePool) else ()
        return type(first)(*place, *window, rule)
    acc = _stream(source, source.channels, 1)
    rule = _epilogue(acc, chain.links, out)
    if isinstance(rule, ir.Threshold):
        return ir.Binarize(*place, int32_levels(rule))
    return ir.Requantize(*place, rule)


def _epilogue(acc: Accumulator, links: tuple[ir.Node, ...], out: ir.Tensor) -> ir.Epilogue:
    tail = Tail.of(links)
    return threshold_rule(acc, tail) if out.dtype == ir.BITS else affine_rule(acc, tail, out)


def _stream(source: ir.Tensor, channels: int, count: int) -> Accumulator:
    """The sum of `count` stream values, which means their mean."""
    lo, hi = (limit * count for limit in ir.TYPE_RANGE[source.dtype])
    unit = np.full(channels, (source.scale or 1.0) / count)
    return Accumulator(unit, np.zeros(channels), np.full(channels, lo), np.full(channels, hi))


def _sum_of(pool: ir.Node, source: ir.Tensor) -> Accumulator:
    kernel = pool.window.kernel if isinstance(pool, ir.AveragePool) else source.shape[:2]
    return _stream(source, source.channels, int(np.prod(kernel)))


# ----------------------------------------------------------------------------------------- weights


def _binary_conv(conv: ir.BinaryConv2D, chain: ir.Chain, out: ir.Tensor) -> ir.BinaryConv2D:
    """Fold kernel scale, batch norm and sign; channels with a falling threshold get negated filters."""
    channels = conv.weights.shape[-1]
    taps = np.full(channels, int(np.prod(conv.weights.shape[:3])), np.int64)
    unit = np.ones(channels) if conv.kernel_scale is None else conv.kernel_scale.astype(np.float64)
    acc = Accumulator(unit, np.zeros(channels), -taps, taps)
    rule = _epilogue(acc, chain.links[1:], out)
    weights = conv.weights
    if isinstance(rule, ir.Threshold):
        weights, rule = _unflip(weights, rule)
    return replace(
        conv, inputs=chain.inputs, output=chain.output, weights=weights, kernel_scale=None, epilogue=rule
    )


def _unflip(weights: Array, rule: ir.Threshold) -> tuple[Array, ir.Threshold]:
    """Negate the filters of flipped channels: not (acc < L) is (-acc < 1 - L)."""
    flip = rule.flip != 0
    unflipped = ir.Threshold(np.where(flip, 1 - rule.level, rule.level), np.zeros_like(rule.flip))
    return np.where(flip, -weights, weights).astype(np.int8), int32_levels(unflipped)


def _conv(layer: ir.Conv2D | ir.Dense, chain: ir.Chain, source: ir.Tensor, out: ir.Tensor) -> ir.Conv2D:
    """Quantize the weights to int8 per output channel; a hidden Dense layer is a 1x1 convolution."""
    dense = isinstance(layer, ir.Dense)
    weights = layer.weights[None, None] if dense else layer.weights
    reach = np.abs(weights).max(axis=(0, 1, 2)).astype(np.float64)
    step = np.where(reach > 0, reach, 1.0) / WEIGHT_MAX
    integers = np.rint(weights / step).astype(np.int8)
    bias = np.zeros(len(step)) if layer.bias is None else layer.bias.astype(np.float64)
    bound = np.abs(integers.astype(np.int64)).sum(axis=(0, 1, 2)) * -ir.TYPE_RANGE[source.dtype][0]
    acc = Accumulator(step * (source.scale or 1.0), bias, -bound, bound)
    rule = _epilogue(acc, chain.links[1:], out)
    if isinstance(rule, ir.Threshold):
        integers, rule = _unflip(integers, rule)
    window = ir.Window((1, 1)) if dense else layer.window
    groups = 1 if dense else layer.groups
    return ir.Conv2D(chain.name, chain.inputs, chain.output, integers, window, groups, None, rule)


def _scores(layer: ir.Dense, source: ir.Tensor, shape: tuple[int, ...]) -> tuple[ir.Dense, ir.Tensor]:
    """The classifier: one weight scale for all classes, so that the int32 scores compare."""
    step = (float(np.abs(layer.weights).max()) or 1.0) / WEIGHT_MAX
    unit = step * (source.scale or 1.0)
    weights = np.rint(layer.weights.astype(np.float64) / step).astype(np.int8)
    bias = np.zeros(shape[-1]) if layer.bias is None else layer.bias.astype(np.float64)
    integers = np.rint(bias / unit).astype(np.int64)
    if np.abs(integers).max(initial=0) > 2**30:
        raise ModelError(
            "a class bias is too large for the scale of its scores",
            where=f"layer {layer.name}",
            why=f"it is {np.abs(bias).max():.3g}, the step of a score {unit:.3g}",
            fix="calibrate with images that excite the features, or train without a bias",
        )
    node = replace(layer, weights=weights, bias=integers.astype(np.int32))
    return node, ir.Tensor(layer.output, shape, ir.S32, unit)
