# SPDX-License-Identifier: Apache-2.0
"""ONNX operators with weights and windows: convolutions, dense layers, batch norms, pools.

Channels-first arrays end here: weights become [k_h, k_w, c_in / groups, c_out].
"""

from __future__ import annotations

import dataclasses

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.frontend.importer import ELEMENTWISE, NCHW, POINT, POOLED, VECTOR, Importer, Value, attributes, window
from bnngen.frontend.proto import REEXPORT, Call

WINDOW = {"strides": [1, 1], "pads": [0, 0, 0, 0]}
CONVOLUTION = {**WINDOW, "dilations": [1, 1], "group": 1}
MAPS = (NCHW, POINT)


def binary_conv2d(importer: Importer, call: Call) -> None:
    """bnngen.BinaryConv2D -> ir.BinaryConv2D."""
    weights = importer.constant(call, 1, np.int8, (None, None, None, None))
    if not np.isin(weights, (-1, 1)).all():
        raise ModelError("a binary convolution has weights +1 and -1", where=call.where, fix=REEXPORT)
    _binary(importer, call, weights, None)


def latent_conv2d(importer: Importer, call: Call) -> None:
    """bnngen.LatentConv2D -> ir.BinaryConv2D with its latent weights."""
    latent = importer.constant(call, 1, np.int8, (None, None, None, None))
    if (latent == -128).any():
        raise ModelError("latent weights lie in -127..127", where=call.where, why="127 is 1.0", fix=REEXPORT)
    _binary(importer, call, np.where(latent >= 0, np.int8(1), np.int8(-1)), latent)


def _binary(importer: Importer, call: Call, weights: np.ndarray, latent: np.ndarray | None) -> None:
    """Add a binary convolution of those signs; latent: of the same shape, where the file has them."""
    _, tensor = importer.operand(call, 0, MAPS, (ir.BITS,))
    values = attributes(call, {**CONVOLUTION, "pad_value": 1.0}, needed=("pad_value",))
    if values["pad_value"] not in (0.0, 1.0):
        raise ModelError("a binary convolution reads 1 or 0 outside the image", where=call.where, fix=REEXPORT)
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
        latent=None if latent is None else _channels_last(latent),
    )
    importer.add(node, shape, NCHW)


def conv(importer: Importer, call: Call) -> None:
    """Conv, of a real or a binary tensor -> ir.Conv2D."""
    _, tensor = importer.operand(call, 0, MAPS)
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
    size = tensor.shape[:2] if len(tensor.shape) == 3 else (1, 1)  # a vector is a map of one pixel
    return (*geometry.output_size(*size), c_out)


def _channels_last(weights: np.ndarray) -> np.ndarray:
    """[O, I, kH, kW] -> [kH, kW, I, O]."""
    return np.ascontiguousarray(weights.transpose(2, 3, 1, 0))


def gemm(importer: Importer, call: Call) -> None:
    """Gemm of a vector -> ir.Dense."""
    _, tensor = importer.operand(call, 0, (VECTOR,))
    attributes(call, {}, {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0})
    weights = importer.constant(call, 1, np.float32, (tensor.size, None))
    bias = importer.constant(call, 2, np.float32, (weights.shape[1],)) if len(call.inputs) > 2 else None
    importer.add(ir.Dense(call.name, (tensor.name,), call.outputs[0], weights, bias), (weights.shape[1],), VECTOR)


def batch_norm(importer: Importer, call: Call) -> None:
    """BatchNormalization -> ir.BatchNorm; it takes up a shift directly in front of it."""
    value, tensor = importer.operand(call, 0, ELEMENTWISE)
    epsilon = attributes(call, {"epsilon": 1e-5}, {"training_mode": 0, "momentum": 0.9})["epsilon"]
    gamma, beta, mean, variance = (importer.constant(call, i, np.float32, (tensor.channels,)) for i in range(1, 5))
    if not (variance + np.float32(epsilon) > 0).all() or not np.isfinite(epsilon):
        raise ModelError("variance + epsilon is not positive", where=call.where, fix=REEXPORT)
    node = ir.BatchNorm(call.name, (tensor.name,), call.outputs[0], gamma, beta, mean, variance, epsilon)
    last = importer.only_read(call)
    if isinstance(last, ir.BatchNorm) and _only_shifts(last):  # (x + b) - mean is x - (mean - b)
        node = dataclasses.replace(node, inputs=last.inputs, mean=mean - last.beta)
        importer.replace_last(node, tensor.shape, value.layout)
    else:
        importer.add(node, tensor.shape, value.layout)


def _only_shifts(norm: ir.BatchNorm) -> bool:
    return bool((norm.gamma == 1).all() and (norm.mean == 0).all() and (norm.variance + norm.epsilon == 1).all())


def max_pool(importer: Importer, call: Call) -> None:
    """MaxPool, of a real or a binary tensor -> ir.MaxPool."""
    _, tensor = importer.operand(call, 0)
    geometry = _pool_window(call, {"ceil_mode": 0, "storage_order": 0, "dilations": [1, 1]})
    node = ir.MaxPool(call.name, (tensor.name,), call.outputs[0], geometry)
    importer.add(node, (*geometry.output_size(*tensor.shape[:2]), tensor.channels), NCHW, tensor.dtype)


def average_pool(importer: Importer, call: Call) -> None:
    """AveragePool -> ir.AveragePool: padding does not count."""
    _, tensor = importer.operand(call, 0)
    geometry = _pool_window(call, {"ceil_mode": 0, "count_include_pad": 0})
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


def global_average_pool(importer: Importer, call: Call) -> None:
    """GlobalAveragePool: the Flatten behind it, or the first reader of another kind, makes it a node."""
    _, tensor = importer.operand(call, 0)
    importer.alias(call.outputs[0], Value(tensor.name, POOLED, call.name))
