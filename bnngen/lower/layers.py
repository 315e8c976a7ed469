# SPDX-License-Identifier: Apache-2.0
"""One function per op of the integer stage: ir node -> kernel call, with its constants packed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.lower import bounds
from bnngen.lower.calls import Call, Lowering, finish, map_dims, map_shape
from bnngen.lower.elements import lower_lookup, lower_mul, lower_piecewise, lower_scores, lower_steps
from bnngen.lower.moves import lower_channels, lower_concat, lower_encode, lower_flatten
from bnngen.lower.pack import pack_bits
from bnngen.lower.program import Arg, KernelCall
from bnngen.lower.shapes import KERNEL_PREFIX, TYPE_CODE, WIDE, ConvShape, DenseShape, PoolShape


def lower_conv(ctx: Lowering, node: ir.Conv2D | ir.BinaryConv2D) -> KernelCall:
    """Conv2D and BinaryConv2D, with an affine epilogue (stream out) or a threshold (bits out)."""
    binary = isinstance(node, ir.BinaryConv2D)
    weights, epilogue = np.asarray(node.weights), node.epilogue
    if binary and not (np.abs(weights) == 1).all():
        raise ModelError("a binary layer has weights other than +1 and -1", where=f"layer {node.name}")
    stem = "bconv2d" if binary else "conv2d"
    if isinstance(epilogue, ir.Threshold):
        weights, level = _without_flip(node, weights, epilogue)
    acc = bounds.dot_range(node, weights, ctx.ranges[node.inputs[0]])
    args = [ctx.arg(node.inputs[0])]
    if isinstance(epilogue, ir.Threshold):
        bounds.require_room_above(node, acc)
        # Beyond what the accumulator can reach every level means the same; clipping keeps it in int32.
        level = np.array([min(max(v, lo), hi + 1) for v, (lo, hi) in zip(level, acc, strict=True)], np.int32)
        args.append(ctx.const(node.name, "level", level))
        call = Call(node, f"{stem}_sign", conv_shape(ctx, node, WIDE), weights)
    elif isinstance(epilogue, ir.Affine):
        lowered = bounds.lower_affine(node, epilogue, weights.shape[-1], acc)
        args.append(ctx.affine(node.name, lowered))
        call = Call(node, stem, conv_shape(ctx, node, lowered.arithmetic), weights)
    else:
        raise ModelError("a convolution of the integer stage has no epilogue", where=f"layer {node.name}")
    return finish(ctx, call, [*args, ctx.arg(node.output)])


def _without_flip(node: ir.Node, weights: np.ndarray, threshold: ir.Threshold) -> tuple[np.ndarray, list[int]]:
    """Negate the filters of flipped channels: acc >= level is -acc < 1 - level."""
    flip = np.broadcast_to(threshold.flip, (weights.shape[-1],)).astype(bool)
    level = [int(v) for v in np.broadcast_to(threshold.level, flip.shape)]
    if weights.min() == -128 and flip.any():
        raise ModelError("an int8 weight of -128 cannot be negated", where=f"layer {node.name}")
    negated = np.where(flip, -weights.astype(np.int16), weights).astype(np.int8)
    return negated, [1 - v if f else v for v, f in zip(level, flip, strict=True)]


def conv_shape(ctx: Lowering, node: ir.Conv2D | ir.BinaryConv2D, arithmetic: int) -> ConvShape:
    """Return the geometry of a convolution."""
    source, out, window = ctx.tensors[node.inputs[0]], ctx.tensors[node.output], node.window
    return ConvShape(
        *map_dims(node, source),
        *map_dims(node, out),
        *window.kernel,
        *window.stride,
        *window.pads[:2],
        *window.dilation,
        node.groups,
        getattr(node, "pad_value", 0),
        ctx.type_code(source.name),
        ctx.type_code(out.name),
        arithmetic,
    )


def pool_shape(
    ctx: Lowering, node: ir.Node, window: ir.Window, arithmetic: int = WIDE, denominator: int = 0
) -> PoolShape:
    """Return the geometry of a pool; raise ModelError where a window lies wholly in the padding."""
    source, out = ctx.tensors[node.inputs[0]], ctx.tensors[node.output]
    if 0 in _inside(ctx, node, window):
        raise ModelError("a pooling window lies wholly in the padding", where=f"layer {node.name}")
    return PoolShape(
        *map_dims(node, source),
        *map_dims(node, out)[:2],
        *window.kernel,
        *window.stride,
        *window.pads[:2],
        *window.dilation,
        denominator,
        ctx.type_code(source.name),
        ctx.type_code(out.name),
        arithmetic,
    )


def _inside(ctx: Lowering, node: ir.Node, window: ir.Window) -> set[int]:
    """The numbers of positions inside the image that the windows of a pool have."""
    source, out = map_dims(node, ctx.tensors[node.inputs[0]]), map_dims(node, ctx.tensors[node.output])
    counts = []
    for axis in (0, 1):
        taps = [i * window.dilation[axis] - window.pads[axis] for i in range(window.kernel[axis])]
        starts = [step * window.stride[axis] for step in range(out[axis])]
        counts.append({sum(0 <= start + tap < source[axis] for tap in taps) for start in starts})
    return {rows * columns for rows in counts[0] for columns in counts[1]}


def lower_maxpool(ctx: Lowering, node: ir.MaxPool) -> KernelCall:
    """MaxPool, of a stream or of bits."""
    shape = pool_shape(ctx, node, node.window)
    kernel = f"{KERNEL_PREFIX.get(shape.in_type, '')}maxpool"
    return finish(ctx, Call(node, kernel, shape), [ctx.arg(node.inputs[0]), ctx.arg(node.output)])


def lower_avgpool(ctx: Lowering, node: ir.AveragePool | ir.GlobalAveragePool) -> KernelCall:
    """AveragePool, and GlobalAveragePool as a window of the whole map."""
    channels, window = ctx.tensors[node.inputs[0]].channels, average_window(ctx, node)
    denominator = _denominator(ctx, node, window)
    acc = bounds.sum_range(node, denominator or math.prod(window.kernel), channels, ctx.ranges[node.inputs[0]])
    lowered = bounds.lower_affine(node, node.epilogue, channels, acc)
    call = Call(node, "avgpool", pool_shape(ctx, node, window, lowered.arithmetic, denominator))
    return finish(ctx, call, [ctx.arg(node.inputs[0]), ctx.affine(node.name, lowered), ctx.arg(node.output)])


def average_window(ctx: Lowering, node: ir.AveragePool | ir.GlobalAveragePool) -> ir.Window:
    """Return the window of an average: of a global one, the whole map."""
    if isinstance(node, ir.AveragePool):
        return node.window
    return ir.Window(map_dims(node, ctx.tensors[node.inputs[0]])[:2])


def _denominator(ctx: Lowering, node: ir.Node, window: ir.Window) -> int:
    """The denominator of a pool with padding, 0 without; it has to be a multiple of every count."""
    if not any(window.pads):
        return 0
    counts = _inside(ctx, node, window) - {0}
    if node.denominator < 1 or any(node.denominator % count for count in counts):
        raise ModelError(
            f"the denominator {node.denominator} of an average pool is not a multiple of all window sizes",
            where=f"layer {node.name}, sizes {sorted(counts)}",
        )
    return node.denominator


def lower_requantize(ctx: Lowering, node: ir.QuantizeInput | ir.Requantize) -> KernelCall:
    """QuantizeInput (pixels in) and Requantize (stream in)."""
    if isinstance(node.epilogue, ir.Piecewise):
        return lower_piecewise(ctx, node)
    if isinstance(node.epilogue, ir.Steps):
        return lower_steps(ctx, node)
    channels = ctx.tensors[node.output].channels
    lowered = bounds.lower_affine(node, node.epilogue, channels, [ctx.ranges[node.inputs[0]]] * channels)
    pixels = isinstance(node, ir.QuantizeInput)
    in_type = TYPE_CODE[ir.S8] if pixels else ctx.type_code(node.inputs[0])
    shape = map_shape(ctx, node, in_type, lowered.arithmetic)
    call = Call(
        node,
        "quantize_input" if pixels else "requantize",
        shape,
        in_place=not pixels and shape.in_type == shape.out_type,
    )
    return finish(ctx, call, [ctx.arg(node.inputs[0]), ctx.affine(node.name, lowered), ctx.arg(node.output)])


def lower_binarize(ctx: Lowering, node: ir.Binarize) -> KernelCall:
    """Binarize: levels per channel, flips as one packed pixel."""
    channels = ctx.tensors[node.output].channels
    level = np.broadcast_to(node.epilogue.level, (channels,)).astype(np.int32)
    flip = np.broadcast_to(node.epilogue.flip, (channels,)).astype(bool)
    call = Call(node, "binarize", map_shape(ctx, node, ctx.type_code(node.inputs[0])))
    consts = [
        ctx.const(node.name, "level", level),
        ctx.const(node.name, "flip", pack_bits(np.where(flip, -1, 1))),
    ]
    return finish(ctx, call, [ctx.arg(node.inputs[0]), *consts, ctx.arg(node.output)])


def lower_unpack(ctx: Lowering, node: ir.Unpack) -> KernelCall:
    """Unpack: the two values of a channel, as int16."""
    out = ctx.tensors[node.output]
    channels, (lo, hi) = out.channels, ir.TYPE_RANGE[out.dtype]
    for values in (node.low, node.high):
        if np.min(values) < lo or np.max(values) > hi:
            raise ModelError(f"a value that a bit stands for does not fit {out.dtype}", where=f"layer {node.name}")
    call = Call(node, "unpack", map_shape(ctx, node, TYPE_CODE[ir.BITS]))
    values = [
        ctx.const(node.name, kind, np.broadcast_to(array, (channels,)).astype(np.int16))
        for kind, array in (("low", node.low), ("high", node.high))
    ]
    return finish(ctx, call, [ctx.arg(node.inputs[0]), *values, ctx.arg(node.output)])


def lower_add(ctx: Lowering, node: ir.Add) -> KernelCall:
    """Add: saturates at lo and hi, both inside the output's type."""
    types = {ctx.tensors[name].dtype for name in (*node.inputs, node.output)}
    if len(types) > 1:
        raise ModelError(f"an addition joins tensors of types {', '.join(sorted(types))}", where=f"layer {node.name}")
    lo_type, hi_type = ir.TYPE_RANGE[ctx.tensors[node.output].dtype]
    limits = [Arg("int", value=max(node.lo, lo_type)), Arg("int", value=min(node.hi, hi_type))]
    call = Call(node, "add", map_shape(ctx, node, ctx.type_code(node.inputs[0])), in_place=True)
    return finish(ctx, call, [*(ctx.arg(name) for name in node.inputs), *limits, ctx.arg(node.output)])


def lower_dense(ctx: Lowering, node: ir.Dense) -> KernelCall:
    """The classifier: int32 scores."""
    if node.output != ctx.graph.output:
        raise ModelError(
            "a dense layer that does not give the scores is not supported",
            where=f"layer {node.name}",
            fix="replace it by a 1x1 convolution",
        )
    bias = np.zeros(node.weights.shape[-1], np.int32) if node.bias is None else np.asarray(node.bias, np.int32)
    bounds.dot_range(node, node.weights, ctx.ranges[node.inputs[0]], bias)
    shape = DenseShape(*node.weights.shape, ctx.type_code(node.inputs[0]))
    args = [ctx.arg(node.inputs[0]), ctx.const(node.name, "b", bias), ctx.arg(node.output)]
    return finish(ctx, Call(node, "dense", shape, np.asarray(node.weights)), args)


LOWERINGS: dict[type[ir.Node], Callable[..., KernelCall | None]] = {
    ir.Conv2D: lower_conv,
    ir.BinaryConv2D: lower_conv,
    ir.MaxPool: lower_maxpool,
    ir.AveragePool: lower_avgpool,
    ir.GlobalAveragePool: lower_avgpool,
    ir.QuantizeInput: lower_requantize,
    ir.Requantize: lower_requantize,
    ir.Binarize: lower_binarize,
    ir.Unpack: lower_unpack,
    ir.Add: lower_add,
    ir.Dense: lower_dense,
    ir.Scores: lower_scores,
    ir.Mul: lower_mul,
    ir.Unary: lower_lookup,
    ir.Concat: lower_concat,
    ir.Channels: lower_channels,
    ir.Encode: lower_encode,
    ir.Flatten: lower_flatten,
}
