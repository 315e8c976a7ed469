# SPDX-License-Identifier: Apache-2.0
"""Turn every chain into one integer op: typed tensors, int8 weights, thresholds and multipliers.

Nothing here rounds a threshold: a chain that ends in a sign or a quantizer is compared exactly. A chain that stays real
is quantized once, on the scale of its output tensor (docs/numerics.md, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.passes.bounds import denominator, pool_factor
from bnngen.passes.curves import Accumulator, int32_levels, steps_rule, threshold_rule
from bnngen.passes.epilogues import MAX_SHIFT_UNWEIGHTED, affine_rule, piecewise_rule, score_rule
from bnngen.passes.fixed import Fixed, fixed_tensors
from bnngen.passes.forms import KERNELS, LAYERS, Form, acc_limits, read
from bnngen.passes.offsets import with_offsets
from bnngen.passes.scales import Types, image_of, input_rule, plain_scale, stream_types
from bnngen.passes.tables import table
from bnngen.passes.weights import quantize, quantize_jointly

Array = np.ndarray
MOVES = (ir.MaxPool, ir.Flatten, ir.Concat, ir.Channels, ir.Encode, ir.Unpack)


class HasBits(Protocol):
    """The one option this pass reads."""

    activation_bits: int


@dataclass(frozen=True)
class Context:
    """The fused float graph, its integer tensors, and which of them are stored accumulators."""

    graph: ir.Graph
    types: Types
    fixed: dict[str, Fixed]

    def tensor(self, name: str) -> ir.Tensor:
        return self.types.tensors[name]


def integerize(graph: ir.Graph, options: HasBits) -> ir.Graph:
    """Return the integer graph of a fused float graph."""
    fixed = fixed_tensors(graph, image_of(graph))
    types = stream_types(graph, options.activation_bits, fixed)
    shapes = {name: graph.tensors[name].shape for name in graph.tensors}
    if options.activation_bits == 8:
        types = replace(types, tensors=with_offsets(graph, types.tensors))
    known = types.tensors | {n: ir.Tensor(n, shapes[n], v.dtype, plain_scale(v.scales)) for n, v in fixed.items()}
    known |= {name: tensor for name, tensor in graph.tensors.items() if tensor.dtype == ir.BITS}
    pixels = ir.Tensor(graph.input, shapes[graph.input], ir.U8)
    image, rule = input_rule(graph.meta, pixels.shape, f"{graph.input}.q")
    nodes: list[ir.Node] = [ir.QuantizeInput("input", (graph.input,), image.name, rule)]
    tensors = {pixels.name: pixels, image.name: image}
    ctx = Context(graph, replace(types, tensors=known | {image.name: image}), fixed)
    for node in graph.nodes:
        if not isinstance(node, ir.Encode):
            node = replace(node, inputs=tuple(image.name if name == graph.input else name for name in node.inputs))
        new, tensor = _named(node, ctx)
        tensors[tensor.name] = tensor
        nodes.append(new)
    if not any(image.name in node.inputs for node in nodes):
        nodes, tensors = nodes[1:], {name: t for name, t in tensors.items() if name != image.name}
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def _named(node: ir.Node, ctx: Context) -> tuple[ir.Node, ir.Tensor]:
    """Convert, and let a refusal name the layer."""
    try:
        return _convert(node, ctx)
    except ModelError as error:
        error.where = error.where or f"layer {node.name}"
        raise


def _convert(node: ir.Node, ctx: Context) -> tuple[ir.Node, ir.Tensor]:
    """Return the integer node and its output tensor."""
    if isinstance(node, ir.Dense):
        return _dense_scores(node, ctx)
    if isinstance(node, ir.Chain) and isinstance(node.links[-1], ir.Scores):
        return _scores(node, ctx)
    out = ctx.tensor(node.output)
    if isinstance(node, ir.Chain):
        return _chain(node, out, ctx), out
    if isinstance(node, ir.Unary):
        return replace(node, table=table(node.kind, ctx.tensor(node.inputs[0]), out)), out
    if isinstance(node, MOVES):
        return node, out
    raise ModelError(f"{type(node).__name__} has no integer form", where=f"layer {node.name}")


def _chain(chain: ir.Chain, out: ir.Tensor, ctx: Context) -> ir.Node:
    first, place = chain.links[0], (chain.name, chain.inputs, chain.output)
    if isinstance(first, ir.Add):
        target = ctx.types.output(out.name).clipped(chain.links[1] if len(chain.links) > 1 else None)
        return ir.Add(*place, target.lo, target.hi)
    if isinstance(first, ir.BinaryConv2D):
        return _binary_conv(first, chain, out, ctx)
    if isinstance(first, LAYERS):
        return _conv(first, chain, out, ctx)
    acc = _accumulator(chain, ctx)
    if not isinstance(first, KERNELS):
        return _element(chain, acc, out, ctx)
    rule = affine_rule(acc, _form(chain.links[1:]), ctx.types.output(out.name), most=MAX_SHIFT_UNWEIGHTED)
    if isinstance(first, ir.AveragePool):
        return ir.AveragePool(*place, first.window, rule, denominator(first, ctx.tensor(chain.inputs[0]).shape))
    return type(first)(*place, rule)


def _element(chain: ir.Chain, acc: Accumulator, out: ir.Tensor, ctx: Context) -> ir.Node:
    place, last = (chain.name, chain.inputs, chain.output), chain.links[-1]
    if isinstance(last, ir.Sign):
        return ir.Binarize(*place, int32_levels(threshold_rule(acc, chain.links[:-1])))
    if isinstance(last, ir.Levels):
        return ir.Requantize(*place, steps_rule(acc, chain.links[:-1], last))
    form, target = _form(chain.links), ctx.types.output(out.name)
    if form.bend:
        return ir.Requantize(*place, piecewise_rule(acc, form, target))
    return ir.Requantize(*place, affine_rule(acc, form, target, _stream_limits(form)))


def _form(links: tuple[ir.Node, ...]) -> Form:
    form = read(links)
    assert form is not None, "a chain that no epilogue expresses was cut"
    return form


def _stream_limits(form: Form) -> tuple[int, int] | None:
    return (0, 2**31 - 1) if form.before else None  # `forms` lets only a ReLU through


def _accumulator(chain: ir.Chain, ctx: Context) -> Accumulator:
    """Return the accumulator of a chain that has no weights."""
    first, sources = chain.links[0], [ctx.tensor(name) for name in chain.inputs]
    channels, ends = ctx.graph.tensors[chain.output].channels, ir.TYPE_RANGE[sources[0].dtype]
    unit = np.array(sources[0].scales)
    if isinstance(first, ir.Mul):
        other = ir.TYPE_RANGE[sources[1].dtype]
        corners = [a * b for a in ends for b in other]
        unit, ends = unit * sources[1].scales, (min(corners), max(corners))
    elif isinstance(first, ir.AveragePool | ir.GlobalAveragePool):
        factor = pool_factor(first, sources[0].shape)
        unit, ends = unit / factor, (ends[0] * factor, ends[1] * factor)
    lo, hi = (np.full(channels, end, np.int64) for end in ends)
    return Accumulator(unit, sources[0].scales * sources[0].offsets, lo, hi)


def _scores(chain: ir.Chain, ctx: Context) -> tuple[ir.Node, ir.Tensor]:
    """The scores of a network whose last layer is not a Dense, all of one scale."""
    form = _form(chain.links[:-1])
    rule, scale = score_rule(_accumulator(chain, ctx), form, _stream_limits(form))
    tensor = ir.Tensor(chain.output, ctx.graph.tensors[chain.output].shape, ir.S32, scale)
    return ir.Scores(chain.links[-1].name, chain.inputs, chain.output, rule), tensor


# ----------------------------------------------------------------------------------------- weights


def _binary_conv(conv: ir.BinaryConv2D, chain: ir.Chain, out: ir.Tensor, ctx: Context) -> ir.BinaryConv2D:
    """Fold kernel scale, batch norm and sign; channels with a falling threshold get negated filters."""
    channels = conv.weights.shape[-1]
    taps = np.full(channels, int(np.prod(conv.weights.shape[:3])), np.int64)
    unit = np.ones(channels) if conv.kernel_scale is None else conv.kernel_scale.astype(np.float64)
    acc = Accumulator(unit, np.zeros(channels), -taps, taps)
    rule = _layer_rule(acc, chain, out, ctx)
    weights = conv.weights
    if isinstance(rule, ir.Threshold):
        weights, rule = _unflip(weights, rule)
    return replace(
        conv, inputs=chain.inputs, output=chain.output, weights=weights, kernel_scale=None, epilogue=rule
    )


def _conv(layer: ir.Conv2D | ir.Dense, chain: ir.Chain, out: ir.Tensor, ctx: Context) -> ir.Conv2D:
    """Quantize the weights to int8 per output channel; a hidden Dense layer is a 1x1 convolution."""
    source, dense = ctx.tensor(chain.inputs[0]), isinstance(layer, ir.Dense)
    weights = layer.weights[None, None] if dense else layer.weights
    window, groups = (ir.Window((1, 1)), 1) if dense else (layer.window, layer.groups)
    quantized = quantize(weights, groups, np.array(source.scales))
    integers, unit = quantized.integers, quantized.unit
    bias = unit * _sum_of_offsets(integers, source.offsets)
    bias = bias if layer.bias is None else bias + layer.bias.astype(np.float64)
    bound = np.abs(integers).sum(axis=(0, 1, 2), dtype=np.int64) * -ir.TYPE_RANGE[source.dtype][0]
    rule = _layer_rule(Accumulator(unit, bias, -bound, bound), chain, out, ctx)
    if isinstance(rule, ir.Threshold):
        integers, rule = _unflip(integers, rule)
    return ir.Conv2D(chain.name, chain.inputs, chain.output, integers, window, groups, None, rule)


def _sum_of_offsets(integers: Array, offsets: Array) -> Array:
    """Return what the offsets of the input add to the accumulator of each output channel, float64 [c_out]."""
    c_in, c_out = integers.shape[-2:]
    if not offsets.any():
        return np.zeros(c_out)
    of_group = offsets.reshape(-1, c_in)
    taps = integers.sum(axis=(0, 1), dtype=np.float64)
    return (taps * np.repeat(of_group, c_out // len(of_group), axis=0).T).sum(axis=0)


def _layer_rule(acc: Accumulator, chain: ir.Chain, out: ir.Tensor, ctx: Context) -> ir.Affine | ir.Threshold:
    layer, links = chain.links[0], chain.links[1:]
    if out.dtype == ir.BITS:
        return threshold_rule(acc, links[:-1])
    if out.name in ctx.fixed:
        limits = acc_limits(layer, links[0]) if links else (-(2**31), 2**31 - 1)
        return _stored(len(acc.unit), out, limits)
    form = _form(links)
    limits = acc_limits(layer, form.before) if form.before else None
    return affine_rule(acc, form, ctx.types.output(out.name), limits)


def _stored(channels: int, out: ir.Tensor, limits: tuple[int, int]) -> ir.Affine:
    """The accumulator as it is."""
    lo, hi = ir.TYPE_RANGE[out.dtype]
    one, zero = np.ones(channels, np.int32), np.zeros(channels, np.int64)
    return ir.Affine(one, zero, 0, max(lo, limits[0]), min(hi, limits[1]))


def _unflip(weights: Array, rule: ir.Threshold) -> tuple[Array, ir.Threshold]:
    """Negate the filters of flipped channels: not (acc < L) is (-acc < 1 - L)."""
    flip = rule.flip != 0
    unflipped = ir.Threshold(np.where(flip, 1 - rule.level, rule.level), np.zeros_like(rule.flip))
    return np.where(flip, -weights, weights).astype(np.int8), int32_levels(unflipped)


def _dense_scores(layer: ir.Dense, ctx: Context) -> tuple[ir.Dense, ir.Tensor]:
    """The classifier: one weight scale for all classes, so that the int32 scores compare."""
    weights, unit = quantize_jointly(layer.weights, np.array(ctx.tensor(layer.inputs[0]).scales))
    bias = np.zeros(weights.shape[-1]) if layer.bias is None else layer.bias.astype(np.float64)
    integers = np.rint(bias / unit).astype(np.int64)
    if np.abs(integers).max(initial=0) > 2**30:
        raise ModelError(
            "a class bias is too large for the scale of its scores",
            where=f"layer {layer.name}",
            why=f"it is {np.abs(bias).max():.3g}, the step of a score {unit:.3g}",
            fix="calibrate with images that excite the features, or train without a bias",
        )
    node = replace(layer, weights=weights, bias=integers.astype(np.int32))
    return node, ir.Tensor(layer.output, ctx.graph.tensors[layer.output].shape, ir.S32, unit)
