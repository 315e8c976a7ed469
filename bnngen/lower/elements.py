# SPDX-License-Identifier: Apache-2.0
"""Lowering of element-wise functions of streams: products, slopes, several-level quantizers, tables, scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.lower import bounds
from bnngen.lower.calls import Call, Lowering, finish, map_dims, map_shape
from bnngen.lower.program import Arg, KernelCall
from bnngen.lower.shapes import DenseShape, MulShape


def lower_mul(ctx: Lowering, node: ir.Mul) -> KernelCall:
    """Mul: of two maps or vectors of one shape, or of a map and a vector, in either order."""
    shape = ctx.tensors[node.output].shape
    a, b = sorted(node.inputs, key=lambda name: len(ctx.tensors[name].shape), reverse=True)  # stable
    broadcast = len(ctx.tensors[b].shape) < len(shape)
    if ctx.tensors[a].shape != shape or ctx.tensors[b].shape != (shape[-1:] if broadcast else shape):
        shapes = " and ".join(str(list(ctx.tensors[name].shape)) for name in node.inputs)
        raise ModelError(f"a product of tensors of shapes {shapes}", where=f"layer {node.name}")
    rows, width, channels = map_dims(node, ctx.tensors[node.output])
    lowered = bounds.lower_affine(
        node, node.epilogue, channels, [bounds.product_range(ctx.ranges[a], ctx.ranges[b])] * channels
    )
    types = [ctx.type_code(name) for name in (a, b, node.output)]
    call = Call(
        node,
        "mul",
        MulShape(rows, width, channels, *types[:2], int(broadcast), types[2], lowered.arithmetic),
        in_place=len(set(types)) == 1,  # else a vector could have as many bytes as the map, and not its places
    )
    return finish(ctx, call, [ctx.arg(a), ctx.arg(b), ctx.affine(node.name, lowered), ctx.arg(node.output)])


def lower_piecewise(ctx: Lowering, node: ir.Requantize) -> KernelCall:
    """A slope: one affine of 2C entries, those of `below` first, so that one proof covers both sides of the knot."""
    rule, channels = node.epilogue, ctx.tensors[node.output].channels
    sides = (rule.below, rule.above)
    if len({(side.shift, side.lo, side.hi) for side in sides}) > 1:
        raise ModelError("the two sides of a slope differ in shift or limits", where=f"layer {node.name}")
    if any(side.acc_lo > bounds.INT32[0] or side.acc_hi < bounds.INT32[1] for side in sides):
        raise ModelError("a side of a slope limits its input", where=f"layer {node.name}")
    mult, bias = (
        np.concatenate([np.broadcast_to(getattr(side, name), (channels,)) for side in sides])
        for name in ("mult", "bias")
    )
    lo, hi = ctx.ranges[node.inputs[0]]
    knots = [min(max(int(k), lo), hi + 1) for k in np.broadcast_to(rule.knot, (channels,))]
    # A side that no input reaches is proved for the one nearest to it.
    reach = [(lo, max(lo, knot - 1)) for knot in knots] + [(min(knot, hi), hi) for knot in knots]
    lowered = bounds.lower_affine(node, replace(rule.below, mult=mult, bias=bias), 2 * channels, reach)
    shape = map_shape(ctx, node, ctx.type_code(node.inputs[0]), lowered.arithmetic)
    call = Call(node, "piecewise", shape, in_place=shape.in_type == shape.out_type)
    knot = ctx.const(node.name, "knot", np.array(knots, np.int32))
    return finish(ctx, call, [ctx.arg(node.inputs[0]), knot, ctx.affine(node.name, lowered), ctx.arg(node.output)])


def lower_steps(ctx: Lowering, node: ir.Requantize) -> KernelCall:
    """A quantizer of several levels. Levels beyond what the input reaches mean the same at its borders."""
    rule, out = node.epilogue, ctx.tensors[node.output]
    cuts, (type_lo, type_hi) = rule.level.shape[-1], ir.TYPE_RANGE[out.dtype]
    if rule.first < type_lo or rule.first + cuts > type_hi:
        raise ModelError(
            f"the codes {rule.first} .. {rule.first + cuts} of a quantizer do not fit {out.dtype}",
            where=f"layer {node.name}",
        )
    lo, hi = ctx.ranges[node.inputs[0]]
    level = np.clip(np.broadcast_to(rule.level, (out.channels, cuts)), lo, hi + 1).astype(np.int32)
    down = np.broadcast_to(np.asarray(rule.down) != 0, (out.channels,)).astype(np.int8)
    shape = map_shape(ctx, node, ctx.type_code(node.inputs[0]))
    call = Call(node, "steps", shape, in_place=shape.in_type == shape.out_type)
    args = [
        ctx.arg(node.inputs[0]),
        ctx.const(node.name, "level", level),
        ctx.const(node.name, "down", down),
        Arg("int", value=cuts),
        Arg("int", value=int(rule.first)),
        ctx.arg(node.output),
    ]
    return finish(ctx, call, args)


def lower_lookup(ctx: Lowering, node: ir.Unary) -> KernelCall:
    """A table, in the type of the output."""
    source, out = ctx.tensors[node.inputs[0]], ctx.tensors[node.output]
    shape = map_shape(ctx, node, ctx.type_code(source.name))
    wanted = {ir.S8: 256, ir.S16: 257}.get(source.dtype)
    entries = np.zeros(0) if node.table is None else np.asarray(node.table)
    lo, hi = ir.TYPE_RANGE[out.dtype]
    if entries.shape != (wanted,) or entries.min() < lo or entries.max() > hi:
        raise ModelError(
            f"the table of {node.kind} does not have {wanted} entries of type {out.dtype}", where=f"layer {node.name}"
        )
    table = ctx.const(node.name, "table", entries.astype(np.int8 if out.dtype == ir.S8 else np.int16))
    call = Call(node, "lookup", shape, in_place=shape.in_type == shape.out_type)
    return finish(ctx, call, [ctx.arg(source.name), table, ctx.arg(node.output)])


def lower_scores(ctx: Lowering, node: ir.Scores) -> KernelCall:
    """The scores of a model whose last layer is not a Dense."""
    source = ctx.tensors[node.inputs[0]]
    if node.output != ctx.graph.output or source.size != ctx.tensors[node.output].size or len(source.shape) > 1:
        raise ModelError("scores are made of one vector, at the end of the model", where=f"layer {node.name}")
    count = source.channels
    lowered = bounds.lower_affine(node, node.epilogue, count, [ctx.ranges[source.name]] * count)
    call = Call(node, "scores", DenseShape(count, count, ctx.type_code(source.name), lowered.arithmetic))
    return finish(ctx, call, [ctx.arg(source.name), ctx.affine(node.name, lowered), ctx.arg(node.output)])
