# SPDX-License-Identifier: Apache-2.0
"""Lowering of what moves channels or encodes pixels: Concat, Channels, Flatten, Encode."""

from __future__ import annotations

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.lower.calls import Call, Lowering, finish, map_dims
from bnngen.lower.program import KernelCall
from bnngen.lower.shapes import KERNEL_PREFIX, TYPE_CODE, MoveShape

BITS = TYPE_CODE[ir.BITS]
PIXEL_VALUES, PIXEL_BITS = 256, 8


def lower_concat(ctx: Lowering, node: ir.Concat) -> KernelCall:
    """Concat of any number of inputs: one call, which reads them all and writes every pixel whole."""
    out = ctx.tensors[node.output]
    sources = [ctx.tensors[name] for name in node.inputs]
    counts = [source.channels for source in sources]
    wrong = any(s.shape[:-1] != out.shape[:-1] or s.dtype != out.dtype for s in sources)
    if wrong or sum(counts) != out.channels:
        parts = ", ".join(f"{s.dtype}{list(s.shape)}" for s in sources)
        raise ModelError(
            f"tensors {parts} cannot be joined to {out.dtype}{list(out.shape)}", where=f"layer {node.name}"
        )
    shape = _move_shape(ctx, node, out.channels, len(sources))
    call = Call(node, f"{KERNEL_PREFIX.get(shape.in_type, '')}concat", shape)
    args = [ctx.arg(name) for name in node.inputs]
    return finish(ctx, call, [*args, ctx.const(node.name, "counts", np.int32(counts)), ctx.arg(node.output)])


def lower_channels(ctx: Lowering, node: ir.Channels) -> KernelCall:
    """Channels: slices, shuffles, and padding with 0, which bits do not have."""
    source = ctx.tensors[node.inputs[0]]
    index, lowest = np.asarray(node.index), 0 if source.dtype == ir.BITS else -1
    if index.min() < lowest or index.max() >= source.channels:
        raise ModelError(
            f"channels {index.min()} .. {index.max()} are asked for, {source.name} has 0 .. {source.channels - 1}",
            where=f"layer {node.name}",
            why="a binary tensor has no 0 to pad with" if lowest == 0 else "",
        )
    shape = _move_shape(ctx, node, source.channels, 1)
    call = Call(node, f"{KERNEL_PREFIX.get(shape.in_type, '')}channels", shape)
    return finish(
        ctx, call, [ctx.arg(source.name), ctx.const(node.name, "index", np.int32(index)), ctx.arg(node.output)]
    )


def lower_flatten(ctx: Lowering, node: ir.Flatten) -> KernelCall | None:
    """Flatten: nothing moves, but bits whose channels do not fill words; None where nothing is called."""
    source = ctx.tensors[node.inputs[0]]
    pixels = source.size // source.channels
    if source.dtype != ir.BITS or source.channels % 32 == 0 or pixels == 1:
        ctx.alias[node.output] = ctx.root(node.inputs[0])
        return None
    shape = MoveShape(1, pixels, source.channels, source.size, 1, BITS)
    return finish(ctx, Call(node, "bflatten", shape), [ctx.arg(source.name), ctx.arg(node.output)])


def lower_encode(ctx: Lowering, node: ir.Encode) -> KernelCall:
    """Encode: image pixels to bits."""
    image, out = ctx.tensors[node.inputs[0]], ctx.tensors[node.output]
    if image.dtype != ir.U8 or out.dtype != ir.BITS:
        raise ModelError("an input encoding reads pixels and gives bits", where=f"layer {node.name}")
    source, value = (np.broadcast_to(v, (out.channels,)) for v in (node.source, node.value))
    if source.min() < 0 or source.max() >= image.channels:
        raise ModelError("an input encoding reads a channel that the image lacks", where=f"layer {node.name}")
    if node.planes and value.min() < 0:
        raise ModelError("an input encoding reads a bit below the lowest", where=f"layer {node.name}")
    value = np.clip(value, 0, PIXEL_BITS if node.planes else PIXEL_VALUES)  # beyond, every value means the same
    rows, width, channels = map_dims(node, out)
    shape = MoveShape(rows, width, image.channels, channels, 1, BITS)
    args = [ctx.const(node.name, kind, np.int16(array)) for kind, array in (("source", source), ("value", value))]
    call = Call(node, "bitplanes" if node.planes else "thermometer", shape)
    return finish(ctx, call, [ctx.arg(image.name), *args, ctx.arg(node.output)])


def _move_shape(ctx: Lowering, node: ir.Node, in_c: int, inputs: int) -> MoveShape:
    rows, width, channels = map_dims(node, ctx.tensors[node.output])
    return MoveShape(rows, width, in_c, channels, inputs, ctx.type_code(node.output))
