# SPDX-License-Identifier: Apache-2.0
"""One function for each ONNX operator that the exporter writes: it checks the node and adds what it means.

Channels-first arrays end here: weights become [k_h, k_w, c_in / groups, c_out], Transposes disappear.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.frontend import spelling
from bnngen.frontend.importer import NCHW, NHWC, POOLED, VECTOR, Importer, Value, attributes, window
from bnngen.frontend.proto import REEXPORT, Call

WINDOW = {"strides": [1, 1], "pads": [0, 0, 0, 0]}
CONVOLUTION = {**WINDOW, "dilations": [1, 1], "group": 1}


def _sign(importer: Importer, call: Call) -> None:
    value, tensor = importer.operand(call, 0, (NCHW, VECTOR))
    importer.add(ir.Sign(call.name, (tensor.name,), call.outputs[0]), tensor.shape, value.layout, ir.BITS)


def _binary_conv2d(importer: Importer, call: Call) -> None:
    _, tensor = importer.operand(call, 0, dtypes=(ir.BITS,))
    values = attributes(call, {**CONVOLUTION, "pad_value": 1.0})
    weights = importer.constant(call, 1, np.int8, (None, None, None, None))
    if values["pad_value"] not in (0.0, 1.0) or not np.isin(weights, (-1, 1)).all():
        raise ModelError(
            "a binary convolution has weights +1 and -1 and reads 1 or 0 outside the image",
            where=call.where,
            fix=REEXPORT,
        )
    geometry = window(call, weights.shape[2:], values)
    shape = _convolved(call, tensor, weights, geometry, values["group"])
    node = ir.BinaryConv2D(
        call.name,
        (tensor.name,),
        call.outputs[0],
        _channels_last(weights),
        geometry,
        int(values["pad_value"]),
        values["group"],
    )
    importer.add(node, shape, NCHW)


def _conv(importer: Importer, call: Call) -> None:
    _, tensor = importer.operand(call, 0)
    weights = importer.constant(call, 1, np.float32, (None, None, None, None))
    values = attributes(call, CONVOLUTION, {"auto_pad": b"NOTSET", "kernel_shape": list(weights.shape[2:])})
    geometry = window(call, weights.shape[2:], values)
    shape = _convolved(call, tensor, weights, geometry, values["group"])
    bias = importer.constant(call, 2, np.float32, (shape[-1],)) if len(call.inputs) > 2 else None
    node = ir.Conv2D(
        call.name, (tensor.name,), call.outputs[0], _channels_last(weights), geometry, values["group"], bias
    )
    importer.add(node, shape, NCHW)


def _convolved(call: Call, tensor: ir.Tensor, weights: np.ndarray, geometry: ir.Window, groups: int) -> tuple[int, ...]:
    """Return the output shape [H, W, C]. Raises ModelError where channels, groups or sizes do not fit."""
    c_out, c_in = weights.shape[:2]
    if groups < 1 or c_in * groups != tensor.channels or c_out % groups:
        raise ModelError(
            f"weights {list(weights.shape)} in {groups} groups do not fit {tensor.channels} channels",
            where=call.where,
            fix=REEXPORT,
        )
    return (*geometry.output_size(*tensor.shape[:2]), c_out)


def _channels_last(weights: np.ndarray) -> np.ndarray:
    """[O, I, kH, kW] -> [kH, kW, I, O]."""
    return np.ascontiguousarray(weights.transpose(2, 3, 1, 0))


def _batch_norm(importer: Importer, call: Call) -> None:
    value, tensor = importer.operand(call, 0, (NCHW, VECTOR))
    epsilon = attributes(call, {"epsilon": 1e-5}, {"training_mode": 0, "momentum": 0.9})["epsilon"]
    gamma, beta, mean, variance = (importer.constant(call, i, np.float32, (tensor.channels,)) for i in range(1, 5))
    if not (variance + np.float32(epsilon) > 0).all():
        raise ModelError("variance + epsilon is not positive", where=call.where, fix=REEXPORT)
    node = ir.BatchNorm(call.name, (tensor.name,), call.outputs[0], gamma, beta, mean, variance, epsilon)
    last = _only_reader(importer, call)
    if isinstance(last, ir.BatchNorm) and _only_shifts(last):  # (x + b) - mean is x - (mean - b)
        node = dataclasses.replace(node, inputs=last.inputs, mean=mean - last.beta)
        importer.replace_last(node, tensor.shape, value.layout)
    else:
        importer.add(node, tensor.shape, value.layout)


def _only_shifts(norm: ir.BatchNorm) -> bool:
    return bool((norm.gamma == 1).all() and (norm.mean == 0).all() and (norm.variance + norm.epsilon == 1).all())


def _only_reader(importer: Importer, call: Call) -> ir.Node | None:
    """Return the last node when this one reads its output, and nothing else does."""
    name = call.inputs[0]
    alone = importer.nodes and importer.nodes[-1].output == name and importer.uses[name] == 1
    return importer.nodes[-1] if alone else None


def _mul(importer: Importer, call: Call) -> None:
    """The kernel scale behind a binary convolution; it becomes part of that node."""
    _, tensor = importer.operand(call, 0)
    scale = importer.constant(call, 1, np.float32, (1, tensor.channels, 1, 1)).reshape(-1)
    last = _only_reader(importer, call)
    if not isinstance(last, ir.BinaryConv2D) or last.kernel_scale is not None:
        raise ModelError(
            "a product is supported only directly behind a binary convolution",
            where=call.where,
            why="there it is the kernel scale",
            fix=REEXPORT,
        )
    node = dataclasses.replace(last, output=call.outputs[0], kernel_scale=scale)
    importer.replace_last(node, tensor.shape, NCHW)


def _add(importer: Importer, call: Call) -> None:
    value, left = importer.operand(call, 0, (NCHW, VECTOR))
    if len(call.inputs) > 1 and call.inputs[1] in importer.constants:
        _bias(importer, call)
        return
    _, right = importer.operand(call, 1, (value.layout,))
    if left.shape != right.shape:
        raise ModelError(
            f"cannot add {list(left.shape)} and {list(right.shape)}",
            where=call.where,
            why="both sides have one shape",
            fix=REEXPORT,
        )
    importer.add(ir.Add(call.name, (left.name, right.name), call.outputs[0]), left.shape, value.layout)


def _bias(importer: Importer, call: Call) -> None:
    """A constant for each channel, behind a binary convolution: a batch norm that only shifts."""
    _, tensor = importer.operand(call, 0)
    bias = importer.constant(call, 1, np.float32, (1, tensor.channels, 1, 1)).reshape(-1)
    one, zero = np.ones_like(bias), np.zeros_like(bias)
    shift = ir.BatchNorm(call.name, (tensor.name,), call.outputs[0], one, bias, zero, one, 0.0)
    importer.add(shift, tensor.shape, NCHW)


def _relu(importer: Importer, call: Call) -> None:
    value, tensor = importer.operand(call, 0, (NCHW, VECTOR))
    importer.add(ir.Clip(call.name, (tensor.name,), call.outputs[0]), tensor.shape, value.layout)


def _max_pool(importer: Importer, call: Call) -> None:
    _, tensor = importer.operand(call, 0, dtypes=(ir.FLOAT, ir.BITS))
    geometry = _pool_window(call, {"ceil_mode": 0, "storage_order": 0, "dilations": [1, 1]})
    node = ir.MaxPool(call.name, (tensor.name,), call.outputs[0], geometry)
    importer.add(node, (*geometry.output_size(*tensor.shape[:2]), tensor.channels), NCHW, tensor.dtype)


def _average_pool(importer: Importer, call: Call) -> None:
    _, tensor = importer.operand(call, 0)
    geometry = _pool_window(call, {"ceil_mode": 0, "count_include_pad": 0, "pads": [0, 0, 0, 0]})
    node = ir.AveragePool(call.name, (tensor.name,), call.outputs[0], geometry)
    importer.add(node, (*geometry.output_size(*tensor.shape[:2]), tensor.channels), NCHW)


def _pool_window(call: Call, fixed: dict[str, object]) -> ir.Window:
    values = attributes(call, {**WINDOW, "kernel_shape": [1, 1]}, {**fixed, "auto_pad": b"NOTSET"})
    kernel = tuple(values["kernel_shape"])
    geometry = window(call, kernel, values)
    if any(geometry.pads[i] >= kernel[i % 2] for i in range(4)):
        raise ModelError(
            f"pads {geometry.pads} leave windows of {kernel} without a pixel", where=call.where, fix=REEXPORT
        )
    return geometry


def _global_average_pool(importer: Importer, call: Call) -> None:
    _, tensor = importer.operand(call, 0)
    importer.alias(call.outputs[0], Value(tensor.name, POOLED, call.name))


def _transpose(importer: Importer, call: Call) -> None:
    value, _ = importer.operand(call, 0, (NCHW, NHWC), (ir.FLOAT, ir.BITS))
    order = tuple(attributes(call, {"perm": [0, 0, 0, 0]})["perm"])
    moves = {(NHWC, spelling.TO_NCHW): NCHW, (NCHW, spelling.TO_NHWC): NHWC}
    if (value.layout, order) not in moves:
        raise ModelError(
            f"a transpose by {order} is not supported",
            where=call.where,
            why="only moves between channels first and channels last disappear",
            fix=REEXPORT,
        )
    importer.alias(call.outputs[0], Value(value.tensor, moves[value.layout, order]))


def _reshape(importer: Importer, call: Call) -> None:
    """[N, H, W, C] -> [N, H * W * C]."""
    value, tensor = importer.operand(call, 0, (NHWC,))
    attributes(call, {}, {"allowzero": 0})
    target = importer.constant(call, 1, np.int64, (2,))
    if target.tolist() != [-1, tensor.size]:
        raise ModelError(
            f"a reshape to {target.tolist()} is not supported",
            where=call.where,
            why="only an image that becomes one vector is",
            fix=REEXPORT,
        )
    importer.add(ir.Flatten(call.name, (value.tensor,), call.outputs[0]), (tensor.size,), VECTOR)


def _flatten(importer: Importer, call: Call) -> None:
    """[N, C, 1, 1] -> [N, C]."""
    value, tensor = importer.operand(call, 0, (NCHW, POOLED))
    attributes(call, {}, {"axis": 1})
    if value.layout == POOLED:
        pool = ir.GlobalAveragePool(value.pool, (tensor.name,), call.outputs[0])
        importer.add(pool, (tensor.channels,), VECTOR)
        return
    if tensor.shape[:2] != (1, 1):
        raise ModelError(
            f"flattening {list(tensor.shape)} channels first is not supported",
            where=call.where,
            why="vectors are in the order height, width, channel",
            fix=REEXPORT,
        )
    importer.add(ir.Flatten(call.name, (tensor.name,), call.outputs[0]), (tensor.channels,), VECTOR)


def _gemm(importer: Importer, call: Call) -> None:
    _, tensor = importer.operand(call, 0, (VECTOR,))
    attributes(call, {}, {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0})
    weights = importer.constant(call, 1, np.float32, (tensor.size, None))
    bias = importer.constant(call, 2, np.float32, (weights.shape[1],)) if len(call.inputs) > 2 else None
    importer.add(ir.Dense(call.name, (tensor.name,), call.outputs[0], weights, bias), (weights.shape[1],), VECTOR)


@dataclasses.dataclass(frozen=True)
class Operator:
    """How an operator is read: the function, its most inputs, and whether it may have attributes."""

    function: Callable[[Importer, Call], None]
    inputs: int
    attributes: bool = True

    def read(self, importer: Importer, call: Call) -> None:
        """Add what the node means. Raises ModelError."""
        if len(call.inputs) > self.inputs:
            raise ModelError(f"the node has {len(call.inputs)} inputs", where=call.where, fix=REEXPORT)
        if not self.attributes:
            attributes(call, {})
        self.function(importer, call)


OPERATORS = {
    f"{spelling.DOMAIN}.Sign": Operator(_sign, 1, attributes=False),
    f"{spelling.DOMAIN}.BinaryConv2D": Operator(_binary_conv2d, 2),
    "Conv": Operator(_conv, 3),
    "BatchNormalization": Operator(_batch_norm, 5),
    "Mul": Operator(_mul, 2, attributes=False),
    "Add": Operator(_add, 2, attributes=False),
    "Relu": Operator(_relu, 1, attributes=False),
    "MaxPool": Operator(_max_pool, 1),
    "AveragePool": Operator(_average_pool, 1),
    "GlobalAveragePool": Operator(_global_average_pool, 1, attributes=False),
    "Transpose": Operator(_transpose, 1),
    "Reshape": Operator(_reshape, 2),
    "Flatten": Operator(_flatten, 1),
    "Gemm": Operator(_gemm, 3),
}
