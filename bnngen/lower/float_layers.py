# SPDX-License-Identifier: Apache-2.0
"""One function per op of the float stage: ir node -> call of a float32 kernel, one op after the other, none fused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.lower.calls import Call, Lowering, finish, map_dims, map_shape
from bnngen.lower.layers import average_window, conv_shape, lower_maxpool, pool_shape
from bnngen.lower.moves import lower_channels, lower_concat, lower_encode, lower_flatten
from bnngen.lower.program import Arg, KernelCall
from bnngen.lower.shapes import TYPE_CODE, WIDE, DenseShape, MapShape, MulShape

F32 = TYPE_CODE[ir.FLOAT]
PIXELS = np.arange(256, dtype=np.float64)
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class RealImage(ir.Node):
    """u8 pixels -> f32: scale * pixel + offset, rounded once. Only float32 programs have it."""

    scale: float
    offset: float


@dataclass(frozen=True, eq=False)
class RealScores(ir.Node):
    """f32 vector -> s32 scores in steps of 2^-16, rounded to nearest. Only float32 programs have it."""


def real_const(ctx: Lowering, node: ir.Node, kind: str, values: np.ndarray, count: int | None = None) -> Arg:
    """Keep real numbers as float32 [count]; an infinite one, such as a clip's limit, becomes the largest number."""
    array = np.asarray(values) if count is None else np.broadcast_to(values, (count,))
    return ctx.const(node.name, kind, np.clip(array, -LARGEST, LARGEST).astype(np.float32))


def _optional(ctx: Lowering, node: ir.Node, kind: str, values: np.ndarray | None, count: int) -> Arg:
    return Arg("null") if values is None else real_const(ctx, node, kind, values, count)


def _each(ctx: Lowering, node: ir.Node, kernel: str, *middle: Arg) -> KernelCall:
    """An operation that keeps the place of every element, of one input."""
    shape = map_shape(ctx, node, ctx.type_code(node.inputs[0]))
    call = Call(node, kernel, shape, in_place=shape.in_type == shape.out_type)
    return finish(ctx, call, [ctx.arg(node.inputs[0]), *middle, ctx.arg(node.output)])


def lower_image(ctx: Lowering, node: RealImage) -> KernelCall:
    """The image by a table of all pixel values: rounded once, without double precision at run time."""
    rows, width, channels = map_dims(node, ctx.tensors[node.output])
    table = real_const(ctx, node, "real", PIXELS * node.scale + node.offset)
    call = Call(node, "float_image", MapShape(rows, width, channels, F32, F32))
    return finish(ctx, call, [ctx.arg(node.inputs[0]), table, ctx.arg(node.output)])


def lower_conv(ctx: Lowering, node: ir.Conv2D) -> KernelCall:
    """Conv2D with real weights, of a real or a binary tensor."""
    weights = np.asarray(node.weights, np.float32)
    bias = _optional(ctx, node, "bias", node.bias, weights.shape[-1])
    call = Call(node, "float_conv2d", conv_shape(ctx, node, WIDE), weights)
    return finish(ctx, call, [ctx.arg(node.inputs[0]), bias, ctx.arg(node.output)])


def lower_dense(ctx: Lowering, node: ir.Dense) -> KernelCall:
    """Dense: a convolution of one pixel."""
    return lower_conv(
        ctx, ir.Conv2D(node.name, node.inputs, node.output, node.weights[None, None], ir.Window((1, 1)), 1, node.bias)
    )


def lower_binary_conv(ctx: Lowering, node: ir.BinaryConv2D) -> KernelCall:
    """BinaryConv2D: bits and weights packed as in integer builds; the sum is exact, the scale rounds once."""
    if not (np.abs(node.weights) == 1).all():
        raise ModelError("a binary layer has weights other than +1 and -1", where=f"layer {node.name}")
    scale = _optional(ctx, node, "scale", node.kernel_scale, node.weights.shape[-1])
    call = Call(node, "float_bconv2d", conv_shape(ctx, node, WIDE), np.asarray(node.weights))
    return finish(ctx, call, [ctx.arg(node.inputs[0]), scale, ctx.arg(node.output)])


def lower_norm(ctx: Lowering, node: ir.BatchNorm) -> KernelCall:
    """BatchNorm: gamma / sqrt(variance + epsilon) is a constant, computed in float32 as the float graph does."""
    channels = ctx.tensors[node.output].channels
    inverse = node.gamma / np.sqrt(node.variance + np.float32(node.epsilon))
    values = (("mean", node.mean), ("inverse", inverse), ("beta", node.beta))
    return _each(ctx, node, "float_norm", *(real_const(ctx, node, kind, v, channels) for kind, v in values))


def lower_clip(ctx: Lowering, node: ir.Clip) -> KernelCall:
    """Clip: its two limits."""
    return _each(ctx, node, "float_clip", real_const(ctx, node, "limits", np.float64([node.lo, node.hi])))


def lower_p_relu(ctx: Lowering, node: ir.PRelu) -> KernelCall:
    """PRelu, with one slope a channel or two."""
    channels = ctx.tensors[node.output].channels
    negative = real_const(ctx, node, "negative", node.negative, channels)
    return _each(ctx, node, "float_prelu", negative, _optional(ctx, node, "positive", node.positive, channels))


def lower_levels(ctx: Lowering, node: ir.Levels) -> KernelCall:
    """Levels: the cuts as floats that decide alike, and the value of each level."""
    count = len(node.cuts)
    codes = node.start + np.arange(count + 1)
    levels = np.float64(np.float32(node.step)) * codes
    return _each(
        ctx,
        node,
        "float_levels",
        real_const(ctx, node, "cuts", float_cuts(node.cuts, node.closed)),
        real_const(ctx, node, "levels", levels),
        Arg("int", value=count),
    )


def float_cuts(cuts: np.ndarray, closed: np.ndarray) -> np.ndarray:
    """Return float32 k such that x >= k exactly where x >= cut (closed) or x > cut, for every float32 x.

    That is the smallest float32 that passes the cut: the cut rounded, or its neighbour above.
    """
    exact = np.asarray(cuts, np.float64)
    near = exact.astype(np.float32)
    passes = np.where(np.asarray(closed) != 0, near >= exact, near > exact)
    return np.where(passes, near, np.nextafter(near, np.float32(np.inf)))


def lower_sign(ctx: Lowering, node: ir.Sign) -> KernelCall:
    """Sign: real in, bits out."""
    return _each(ctx, node, "float_sign")


def lower_unary(ctx: Lowering, node: ir.Unary) -> KernelCall:
    """A smooth function, by the kernel of its name."""
    return _each(ctx, node, f"float_{node.kind}")


def lower_join(ctx: Lowering, node: ir.Add | ir.Mul) -> KernelCall:
    """Add and Mul: two tensors of one shape; a product also of a map and a vector, in either order."""
    out = ctx.tensors[node.output]
    a, b = sorted(node.inputs, key=lambda name: len(ctx.tensors[name].shape), reverse=True)  # stable
    broadcast = isinstance(node, ir.Mul) and len(ctx.tensors[b].shape) < len(out.shape)
    if ctx.tensors[a].shape != out.shape or ctx.tensors[b].shape != (out.shape[-1:] if broadcast else out.shape):
        shapes = " and ".join(str(list(ctx.tensors[name].shape)) for name in node.inputs)
        raise ModelError(f"{type(node).__name__} of tensors of shapes {shapes}", where=f"layer {node.name}")
    types = [ctx.type_code(name) for name in (a, b)]
    shape = MulShape(*map_dims(node, out), *types, int(broadcast), F32)
    kernel = "float_mul" if isinstance(node, ir.Mul) else "float_add"
    call = Call(node, kernel, shape, in_place={*types} == {F32})
    return finish(ctx, call, [ctx.arg(a), ctx.arg(b), ctx.arg(node.output)])


def lower_average(ctx: Lowering, node: ir.AveragePool | ir.GlobalAveragePool) -> KernelCall:
    """AveragePool, and GlobalAveragePool as a window of the whole map."""
    call = Call(node, "float_avgpool", pool_shape(ctx, node, average_window(ctx, node)))
    return finish(ctx, call, [ctx.arg(node.inputs[0]), ctx.arg(node.output)])


def lower_same(ctx: Lowering, node: ir.Scores) -> None:
    """Scores of the float stage is its input under another name."""
    ctx.alias[node.output] = ctx.root(node.inputs[0])


def lower_scores(ctx: Lowering, node: RealScores) -> KernelCall:
    """The last call: real scores to int32."""
    count = ctx.tensors[node.output].size
    call = Call(node, "float_scores", DenseShape(count, count, F32))
    return finish(ctx, call, [ctx.arg(node.inputs[0]), ctx.arg(node.output)])


FLOAT_LOWERINGS: dict[type[ir.Node], Callable[..., KernelCall | None]] = {
    RealImage: lower_image,
    ir.Conv2D: lower_conv,
    ir.BinaryConv2D: lower_binary_conv,
    ir.Dense: lower_dense,
    ir.BatchNorm: lower_norm,
    ir.Sign: lower_sign,
    ir.Clip: lower_clip,
    ir.PRelu: lower_p_relu,
    ir.Levels: lower_levels,
    ir.Unary: lower_unary,
    ir.Mul: lower_join,
    ir.Add: lower_join,
    ir.Concat: lower_concat,
    ir.Channels: lower_channels,
    ir.Encode: lower_encode,
    ir.MaxPool: lower_maxpool,
    ir.AveragePool: lower_average,
    ir.GlobalAveragePool: lower_average,
    ir.Flatten: lower_flatten,
    ir.Scores: lower_same,
    RealScores: lower_scores,
}
