# SPDX-License-Identifier: Apache-2.0
"""One function per op of the integer stage: ir node -> kernel call, with its constants packed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.lower import bounds
from bnngen.lower.kernels import KERNELS
from bnngen.lower.names import c_name
from bnngen.lower.pack import pack_bits
from bnngen.lower.program import AffineConst, Arg, Const, KernelCall
from bnngen.lower.select import choose
from bnngen.lower.shapes import TYPE_CODE, WIDE, ConvShape, DenseShape, MapShape, PoolShape, Shape


@dataclass
class Lowering:
    """State while a graph is lowered. `alias` maps the output of a Flatten to the tensor whose bytes it is."""

    graph: ir.Graph
    features: frozenset[str]
    mode: str
    ranges: dict[str, bounds.Range]
    tensors: dict[str, ir.Tensor]
    alias: dict[str, str] = field(default_factory=dict)
    consts: list[Const] = field(default_factory=list)
    affines: list[AffineConst] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def root(self, tensor: str) -> str:
        """Return the tensor that owns the bytes of `tensor`."""
        return self.alias.get(tensor, tensor)

    def type_code(self, tensor: str) -> int:
        """Return the BNN_ type of a stream or packed tensor; raise ModelError for any other."""
        dtype = self.tensors[tensor].dtype
        if dtype not in TYPE_CODE:
            raise ModelError(f"tensor {tensor} has type {dtype}, which no kernel reads or writes")
        return TYPE_CODE[dtype]

    def arg(self, tensor: str) -> Arg:
        """Return the argument that points at a tensor."""
        return Arg(special, special) if (special := self.special(tensor)) else Arg("tensor", self.root(tensor))

    def special(self, tensor: str) -> str | None:
        """Name of the caller's pointer behind a tensor, if it is one."""
        known = {self.graph.input: "image", self.graph.output: "scores", "latent": "latent"}
        return known.get(tensor)

    def unique(self, layer: str, kind: str) -> str:
        """Return a C name that no other constant has."""
        base = f"{c_name(layer)}_{kind}"
        name, number = base, 2
        while name in self.names:
            name, number = f"{base}_{number}", number + 1
        self.names.add(name)
        return name

    def const(self, layer: str, kind: str, values: np.ndarray) -> Arg:
        """Keep an array under a C name of its own."""
        name = self.unique(layer, kind)
        self.consts.append(Const(name, np.ascontiguousarray(values)))
        return Arg("const", name)

    def affine(self, layer: str, lowered: bounds.LoweredAffine) -> Arg:
        """Keep an affine; returns its argument."""
        a = lowered.affine
        mult, bias = self.const(layer, "mult", a.mult), self.const(layer, "bias", a.bias)
        name = self.unique(layer, "affine")
        self.affines.append(
            AffineConst(name, mult.name, bias.name, lowered.arithmetic, a.shift, a.lo, a.hi, a.acc_lo, a.acc_hi)
        )
        return Arg("affine", name)


@dataclass(frozen=True)
class _Call:
    """A call before its variant is known: everything but weights, which a variant packs its own way."""

    node: ir.Node
    kernel: str
    shape: Shape
    weights: np.ndarray | None = None
    in_place: bool = False


def _finish(ctx: Lowering, call: _Call, args: list[Arg]) -> KernelCall:
    """Choose the variant, pack weights as it wants them, and append scratch where the kernel has it."""
    node, kernel = call.node, KERNELS[call.kernel]
    variant = choose(call.kernel, call.shape, ctx.features, ctx.mode)
    if call.weights is not None:
        assert variant.pack is not None
        args.insert(1, ctx.const(node.name, "w", variant.pack(call.weights)))
    scratch = variant.scratch(call.shape)
    if any(name == "scratch" for _, name in kernel.params):
        args.append(Arg("scratch", f"{node.name}/scratch") if scratch else Arg("null"))
    assert len(args) == len(kernel.params), (call.kernel, args)
    reads = tuple(ctx.special(name) or ctx.root(name) for name in node.inputs)
    write = ctx.special(node.output) or ctx.root(node.output)
    return KernelCall(
        node.name,
        node.output,
        call.kernel,
        variant.name,
        call.shape,
        tuple(args),
        reads,
        write,
        scratch,
        call.in_place,
    )


def lower_conv(ctx: Lowering, node: ir.Conv2D | ir.BinaryConv2D) -> KernelCall:
    """Conv2D and BinaryConv2D, with an affine epilogue (stream out) or a threshold (bits out)."""
    binary = isinstance(node, ir.BinaryConv2D)
    weights, epilogue = np.asarray(node.weights), node.epilogue
    if binary and not np.isin(weights, (-1, 1)).all():
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
        call = _Call(node, f"{stem}_sign", _conv_shape(ctx, node, arithmetic=WIDE), weights)
    elif isinstance(epilogue, ir.Affine):
        lowered = bounds.lower_affine(node, epilogue, weights.shape[-1], acc)
        args.append(ctx.affine(node.name, lowered))
        call = _Call(node, stem, _conv_shape(ctx, node, lowered.arithmetic), weights)
    else:
        raise ModelError("a convolution of the integer stage has no epilogue", where=f"layer {node.name}")
    return _finish(ctx, call, [*args, ctx.arg(node.output)])


def _without_flip(node: ir.Node, weights: np.ndarray, threshold: ir.Threshold) -> tuple[np.ndarray, list[int]]:
    """Negate the filters of flipped channels: acc >= level is -acc < 1 - level."""
    flip = np.broadcast_to(threshold.flip, (weights.shape[-1],)).astype(bool)
    level = [int(v) for v in np.broadcast_to(threshold.level, flip.shape)]
    if weights.min() == -128 and flip.any():
        raise ModelError("an int8 weight of -128 cannot be negated", where=f"layer {node.name}")
    negated = np.where(flip, -weights.astype(np.int16), weights).astype(np.int8)
    return negated, [1 - v if f else v for v, f in zip(level, flip, strict=True)]


def _conv_shape(ctx: Lowering, node: ir.Conv2D | ir.BinaryConv2D, arithmetic: int) -> ConvShape:
    source, out, window = ctx.tensors[node.inputs[0]], ctx.tensors[node.output], node.window
    return ConvShape(
        *_map_dims(node, source),
        *_map_dims(node, out),
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


def _map_dims(node: ir.Node, tensor: ir.Tensor) -> tuple[int, int, int]:
    """[H, W, C] of a map; a vector is one pixel."""
    if len(tensor.shape) == 3:
        height, width, channels = tensor.shape
        return height, width, channels
    if len(tensor.shape) == 1:
        return 1, 1, tensor.shape[0]
    raise ModelError(f"tensor {tensor.name} has {len(tensor.shape)} dimensions", where=f"layer {node.name}")


def _map_shape(ctx: Lowering, node: ir.Node, in_type: int, arithmetic: int = WIDE) -> MapShape:
    rows, width, channels = _map_dims(node, ctx.tensors[node.output])
    return MapShape(rows, width, channels, in_type, ctx.type_code(node.output), arithmetic)


def _pool_shape(ctx: Lowering, node: ir.Node, window: ir.Window, arithmetic: int = WIDE) -> PoolShape:
    source, out = ctx.tensors[node.inputs[0]], ctx.tensors[node.output]
    in_h, in_w, channels = _map_dims(node, source)
    out_h, out_w, _ = _map_dims(node, out)
    for axis, (size, n_out) in enumerate(((in_h, out_h), (in_w, out_w))):
        first = {i * window.dilation[axis] - window.pads[axis] for i in range(window.kernel[axis])}
        for step in range(n_out):
            if not any(0 <= step * window.stride[axis] + tap < size for tap in first):
                raise ModelError("a pooling window lies wholly in the padding", where=f"layer {node.name}")
    return PoolShape(
        in_h,
        in_w,
        channels,
        out_h,
        out_w,
        *window.kernel,
        *window.stride,
        *window.pads[:2],
        *window.dilation,
        ctx.type_code(source.name),
        ctx.type_code(out.name),
        arithmetic,
    )


def lower_maxpool(ctx: Lowering, node: ir.MaxPool) -> KernelCall:
    """MaxPool, of a stream or of bits."""
    shape = _pool_shape(ctx, node, node.window)
    kernel = "bmaxpool" if shape.in_type == TYPE_CODE[ir.BITS] else "maxpool"
    return _finish(ctx, _Call(node, kernel, shape), [ctx.arg(node.inputs[0]), ctx.arg(node.output)])


def lower_avgpool(ctx: Lowering, node: ir.AveragePool | ir.GlobalAveragePool) -> KernelCall:
    """AveragePool, and GlobalAveragePool as a window of the whole map."""
    height, width, channels = _map_dims(node, ctx.tensors[node.inputs[0]])
    window = node.window if isinstance(node, ir.AveragePool) else ir.Window((height, width))
    if any(window.pads):
        raise ModelError(
            "average pooling with padding is not supported",
            where=f"layer {node.name}",
            fix='use padding="valid"',
        )
    acc = bounds.sum_range(node, int(np.prod(window.kernel)), channels, ctx.ranges[node.inputs[0]])
    lowered = bounds.lower_affine(node, node.epilogue, channels, acc)
    call = _Call(node, "avgpool", _pool_shape(ctx, node, window, lowered.arithmetic))
    return _finish(ctx, call, [ctx.arg(node.inputs[0]), ctx.affine(node.name, lowered), ctx.arg(node.output)])


def lower_requantize(ctx: Lowering, node: ir.QuantizeInput | ir.Requantize) -> KernelCall:
    """QuantizeInput (pixels in) and Requantize (stream in)."""
    channels = ctx.tensors[node.output].channels
    lowered = bounds.lower_affine(node, node.epilogue, channels, [ctx.ranges[node.inputs[0]]] * channels)
    pixels = isinstance(node, ir.QuantizeInput)
    in_type = TYPE_CODE[ir.S8] if pixels else ctx.type_code(node.inputs[0])
    shape = _map_shape(ctx, node, in_type, lowered.arithmetic)
    call = _Call(
        node,
        "quantize_input" if pixels else "requantize",
        shape,
        in_place=not pixels and shape.in_type == shape.out_type,
    )
    return _finish(ctx, call, [ctx.arg(node.inputs[0]), ctx.affine(node.name, lowered), ctx.arg(node.output)])


def lower_binarize(ctx: Lowering, node: ir.Binarize) -> KernelCall:
    """Binarize: levels per channel, flips as one packed pixel."""
    channels = ctx.tensors[node.output].channels
    level = np.broadcast_to(node.epilogue.level, (channels,)).astype(np.int32)
    flip = np.broadcast_to(node.epilogue.flip, (channels,)).astype(bool)
    call = _Call(node, "binarize", _map_shape(ctx, node, ctx.type_code(node.inputs[0])))
    consts = [
        ctx.const(node.name, "level", level),
        ctx.const(node.name, "flip", pack_bits(np.where(flip, -1, 1))),
    ]
    return _finish(ctx, call, [ctx.arg(node.inputs[0]), *consts, ctx.arg(node.output)])


def lower_unpack(ctx: Lowering, node: ir.Unpack) -> KernelCall:
    """Unpack: the two values of a channel, as int16."""
    channels = ctx.tensors[node.output].channels
    call = _Call(node, "unpack", _map_shape(ctx, node, TYPE_CODE[ir.BITS]))
    values = [
        ctx.const(node.name, kind, np.broadcast_to(array, (channels,)).astype(np.int16))
        for kind, array in (("low", node.low), ("high", node.high))
    ]
    return _finish(ctx, call, [ctx.arg(node.inputs[0]), *values, ctx.arg(node.output)])


def lower_add(ctx: Lowering, node: ir.Add) -> KernelCall:
    """Add: saturates at lo and hi, both inside the output's type."""
    lo_type, hi_type = ir.TYPE_RANGE[ctx.tensors[node.output].dtype]
    limits = [Arg("int", value=max(node.lo, lo_type)), Arg("int", value=min(node.hi, hi_type))]
    call = _Call(node, "add", _map_shape(ctx, node, ctx.type_code(node.inputs[0])), in_place=True)
    return _finish(ctx, call, [*(ctx.arg(name) for name in node.inputs), *limits, ctx.arg(node.output)])


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
    return _finish(ctx, _Call(node, "dense", shape, np.asarray(node.weights)), args)


LOWERINGS: dict[type[ir.Node], Callable[..., KernelCall]] = {
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
}
