# SPDX-License-Identifier: Apache-2.0
"""Writes a net, once every pattern has been applied, as nodes of our own dialect (docs/design.md, "model.onnx")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from bnngen.export.builder import (
    BINARY_CONV,
    HEAVISIDE,
    SIGN,
    SWISH,
    TERNARY,
    UNIFORM_QUANTIZE,
    GraphBuilder,
    Step,
    Value,
)
from bnngen.export.foreign.net import Net, Op, Window, node_error
from bnngen.export.sources import ExportedGraph, features_of

ONE_PIXEL = (1, 1)


@dataclass
class Emitter:
    """A net on its way into a builder. values: of the net's tensors; layers: by the name in the file written."""

    net: Net
    builder: GraphBuilder
    values: dict[str, Value]
    layers: dict[str, Value] = field(default_factory=dict)

    def emit(self, op: Op, steps: list[Step], inputs: list[Value] | None = None) -> Value:
        """Append the nodes of an operation; note its output."""
        if inputs is None:
            inputs = [self.values[name] for name in op.inputs]
        name = self.name(op)
        tensor = self.builder.chain(name, [value.tensor for value in inputs], steps)
        value = Value(tensor, self.net.shapes[op.output], self.builder.is_binary(tensor))
        self.layers[name] = value
        return value

    def name(self, op: Op) -> str:
        """Return a name for the layer that no other has: with the operator behind it for a second of that name."""
        if op.name not in self.layers:
            return op.name
        base = name = f"{op.name}/{op.node.op_type.lower()}"
        count = 1
        while name in self.layers:
            count += 1
            name = f"{base}_{count}"
        return name


def emit_graph(net: Net) -> ExportedGraph:
    """Return the graph of a net. Raises ModelError for an operation that no pattern took."""
    builder = GraphBuilder(net.shapes[net.input])
    emitter = Emitter(net, builder, {net.input: builder.start()})
    for op in net.ops:
        write = WRITERS.get(op.kind)
        if write is None:
            message, expected = LEFT_OVER[op.kind]
            raise node_error(op.node, message, expected)
        emitter.values[op.output] = write(emitter, op)
    last = emitter.values[net.output]
    scores = builder.vector(last)
    final = builder.finish(scores)
    layers = {name: final if value in (scores, last) else value for name, value in emitter.layers.items()}
    return ExportedGraph(builder, layers, final, features_of(builder))


# ---------------------------------------------------------------------------------------- convolutions


def _geometry(window: Window, group: int) -> dict[str, object]:
    return {"pads": window.pads, "strides": window.stride, "dilations": window.dilation, "group": group}


def _conv(e: Emitter, op: Op) -> Value:
    (value,) = (e.values[name] for name in op.inputs)
    window, weights, bias = op["window"], op["weights"], op["bias"]
    if op["fill"] and any(window.pads):
        raise node_error(op.node, f"a convolution with real weights is padded with {op['fill']:g}",
                         "Pad with 1 or -1 around bits only in front of weights +s and -s, one s a channel")
    if op.output == e.net.output and window.kernel == value.shape[:2] and op["group"] == 1 and not any(window.pads):
        return _gemm(e, op, value)
    constants = [("kernel", weights)] + ([] if bias is None else [("bias", bias)])
    return e.emit(op, [Step("", "Conv", tuple(constants), _geometry(window, op["group"]))])


def _gemm(e: Emitter, op: Op, value: Value) -> Value:
    """The last layer: a product with the flattened map, whose features the learned head takes over."""
    vector = e.builder.vector(value)
    e.layers[vector.tensor] = vector
    matrix = np.ascontiguousarray(op["weights"].transpose(2, 3, 1, 0).reshape(vector.shape[0], -1))
    constants = [("kernel", matrix)] + ([] if op["bias"] is None else [("bias", op["bias"])])
    name = e.name(op)
    tensor = e.builder.chain(name, [vector.tensor], [Step("", "Gemm", tuple(constants))])
    e.layers[name] = Value(tensor, (matrix.shape[1],))
    return e.layers[name]


def _binary_conv(e: Emitter, op: Op) -> Value:
    attributes = {**_geometry(op["window"], op["group"]), "pad_value": float(op["fill"])}
    return e.emit(op, [Step("", BINARY_CONV, (("kernel", op["weights"]),), attributes)])


# ---------------------------------------------------------------------------------------- element-wise


def _along(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32).reshape(1, -1, 1, 1)


def _affine(e: Emitter, op: Op) -> Value:
    steps = []
    if op["mult"] is not None:
        steps.append(Step("scale", "Mul", (("scale_by", _along(op["mult"])),)))
    if op["add"] is not None:
        steps.append(Step("shift", "Add", (("shift_by", _along(op["add"])),)))
    last = steps[-1]
    steps[-1] = Step("", last.op, last.constants)
    return e.emit(op, steps)


def _batch_norm(e: Emitter, op: Op) -> Value:
    constants = tuple((key, op[key]) for key in ("gamma", "beta", "mean", "variance"))
    return e.emit(op, [Step("", "BatchNormalization", constants, {"epsilon": op["epsilon"]})])


def _clip(e: Emitter, op: Op) -> Value:
    if (op["lo"], op["hi"]) == (0, np.inf):
        return e.emit(op, [Step("", "Relu")])
    most = float(np.finfo(np.float32).max)  # our files hold finite numbers only
    bounds = {"min": max(op["lo"], -most), "max": min(op["hi"], most)}
    limits = tuple((key, np.array(value, np.float32)) for key, value in bounds.items())
    return e.emit(op, [Step("", "Clip", limits)])


def _prelu(e: Emitter, op: Op) -> Value:
    return e.emit(op, [Step("", "PRelu", (("slope", op["slope"].reshape(-1, 1, 1)),))])


def _unary(e: Emitter, op: Op) -> Value:
    if op["op"] == "Elu" and op["attributes"].get("alpha", 1.0) != 1.0:
        raise node_error(op.node, f"Elu with alpha {op['attributes']['alpha']:g}", "Elu with alpha 1")
    name = SWISH if op["op"] == "Swish" else op["op"]
    return e.emit(op, [Step("", name, (), {"alpha": 1.0} if name == "Elu" else {})])


def _function(name: str, *keys: str) -> Callable[[Emitter, Op], Value]:
    return lambda e, op: e.emit(op, [Step("", name, (), {key: float(op[key]) for key in keys})])


def _add(e: Emitter, op: Op) -> Value:
    shapes = [list(e.net.shapes[name]) for name in op.inputs]
    if shapes[0] != shapes[1]:
        raise node_error(op.node, f"maps {shapes[0]} and {shapes[1]} are added", "Add of two tensors of one shape")
    return e.emit(op, [Step("", "Add")])


def _mul(e: Emitter, op: Op) -> Value:
    """A product of maps of one shape, or with one number for each channel (squeeze and excite)."""
    values = [e.values[name] for name in op.inputs]
    if values[0].shape != values[1].shape:
        values = [_point(e, value) if value.shape[:2] == ONE_PIXEL else value for value in values]
        if sum(value.shape[:2] == ONE_PIXEL for value in values) != 1:
            shapes = [list(value.shape) for value in values]
            raise node_error(op.node, f"maps {shapes[0]} and {shapes[1]} are multiplied",
                             "Mul of two tensors of one shape, or of a map and one number for each channel")
    return e.emit(op, [Step("", "Mul")], values)


def _point(e: Emitter, value: Value) -> Value:
    return e.builder.point(e.builder.vector(value))


# ----------------------------------------------------------------------------------- pools, channels


def _pool(name: str) -> Callable[[Emitter, Op], Value]:
    def write(e: Emitter, op: Op) -> Value:
        window = op["window"]
        if window.dilation != (1, 1):
            raise node_error(op.node, "a pool with dilation", "dilations 1")
        attributes = {"kernel_shape": window.kernel, "strides": window.stride, "pads": window.pads}
        return e.emit(op, [Step("", name, (), attributes)])

    return write


def _concat(e: Emitter, op: Op) -> Value:
    return e.emit(op, [Step("", "Concat", (), {"axis": 1})])


def _channels(e: Emitter, op: Op) -> Value:
    """A selection of channels; where some are 0, a padding: nothing else in ONNX makes them."""
    index = np.asarray(op["index"])
    kept = index[index >= 0]
    before = int(np.argmax(index >= 0))
    after = len(index) - before - len(kept)
    steps = []
    if not np.array_equal(kept, np.arange(e.net.channels(op.inputs[0]))):
        steps.append(Step("gather", "Gather", (("index", kept.astype(np.int64)),), {"axis": 1}))
    if before or after:
        pads = np.array([0, before, 0, 0, 0, after, 0, 0], np.int64)
        steps.append(Step("pad", "Pad", (("channel_pads", pads),)))
    if not steps:
        return e.values[op.inputs[0]]
    last = steps[-1]
    steps[-1] = Step("", last.op, last.constants, last.attributes)
    return e.emit(op, steps)


def _flatten(e: Emitter, op: Op) -> Value:
    value = e.builder.point(e.builder.vector(e.values[op.inputs[0]]))
    e.layers[e.name(op)] = value
    return value


WRITERS: dict[str, Callable[[Emitter, Op], Value]] = {
    "add": _add,
    "affine": _affine,
    "average_pool": _pool("AveragePool"),
    "batch_norm": _batch_norm,
    "binary_conv": _binary_conv,
    "channels": _channels,
    "clip": _clip,
    "concat": _concat,
    "conv": _conv,
    "flatten": _flatten,
    "heaviside": _function(HEAVISIDE),
    "max_pool": _pool("MaxPool"),
    "mul": _mul,
    "prelu": _prelu,
    "quantize": _function(UNIFORM_QUANTIZE, "steps"),
    "sign": _function(SIGN),
    "ternary": _function(TERNARY, "threshold"),
    "unary": _unary,
}

# kind that no pattern took -> what stands there, what was looked for
LEFT_OVER = {
    "pad": (
        "padding that no window takes",
        "Pad with 0, or with 1 around bits, directly in front of a convolution without other padding; or in front of a "
        "maximum that it cannot win",
    ),
    "round": (
        "a Round of values that are not bounded by integers",
        "Clip, or Min and Max, and a scale in front of Round, so that it gives a range of integers (k-bit quantizer)",
    ),
    "softmax": ("a softmax in the middle of the model", "a softmax at the end alone"),
    "max": ("a maximum of two computed tensors", "max(x, slope * x) with a slope of at most 1 (leaky ReLU)"),
    "min": ("a minimum of two computed tensors", "Min with a constant"),
}
