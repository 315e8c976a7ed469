# SPDX-License-Identifier: Apache-2.0
"""Conv2D, QuantConv2D, Dense and QuantDense as ONNX nodes."""

from __future__ import annotations

from typing import Any

import larq
import numpy as np
import tensorflow as tf

from bnngen.export.builder import BINARY_CONV, NO_PADS, SIGN, Step, Value
from bnngen.export.site import SCALED_SIGN, SIGN_NAMES, Site, is_sign, quantizer_name

Pads = tuple[int, int, int, int]
BOTH_BINARY = "a convolution is either binary, inputs and weights, or real-valued"


def same_pads(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...] = (1, 1),
) -> Pads:
    """Return TensorFlow's "same" padding (top, left, bottom, right).

    It makes ceil(size / stride) outputs; where the total is odd, the larger half lies behind.
    """
    before, after = [], []
    for axis in range(2):
        outputs = -(-size[axis] // stride[axis])
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        total = max((outputs - 1) * stride[axis] + reach - size[axis], 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return (*before, *after)


def conv2d(site: Site, values: list[Value]) -> Value:
    """A Conv2D, or a QuantConv2D; it takes the zero padding of a ZeroPadding2D in front of it."""
    site.channels_last()
    (value,) = values
    layer = site.layer
    input_quantizer = getattr(layer, "input_quantizer", None)
    kernel_quantizer = getattr(layer, "kernel_quantizer", None)
    if _is_binary(site, value, input_quantizer, kernel_quantizer):
        return _binary_conv2d(site, value)
    pads, fill = _conv_pads(site, value, 0.0)
    if fill:
        raise site.error(
            "a real-valued convolution is padded with 1",
            why="outside a real-valued map is 0",
            fix="leave pad_values out, or quantize the layer's inputs and weights",
        )
    kernel = site.weight(layer.kernel, "kernel").transpose(3, 2, 0, 1)
    constants = [("kernel", kernel)]
    if layer.use_bias:
        constants.append(("bias", site.weight(layer.bias, "bias")))
    step = Step("", "Conv", tuple(constants), _geometry(layer, pads))
    return site.emit(values, [step, *site.activation(layer.activation)])


def _binary_conv2d(site: Site, value: Value) -> Value:
    layer = site.layer
    # Zeros in front of a sign become +1; around a map that is binary already they stay 0.
    pads, fill = _conv_pads(site, value, 0.0 if value.binary else 1.0)
    signs, scale = _binary_kernel(site)
    convolution = Step(
        "",
        BINARY_CONV,
        (("kernel", signs.transpose(3, 2, 0, 1)),),
        {**_geometry(layer, pads), "pad_value": fill},
    )
    return site.emit([value], [*_sign(value), convolution, *_behind(site, scale)])


def quant_dense(site: Site, values: list[Value]) -> Value:
    """A binary dense layer on a flattened map: a binary convolution whose window is the whole map."""
    (value,) = values
    layer = site.layer
    if not _is_binary(site, value, layer.input_quantizer, layer.kernel_quantizer):
        return _gemm(site, site.builder.vector(value))
    if not value.is_map:
        raise site.error(
            "a QuantDense layer is supported only behind Flatten, a global maximum or a QuantDense",
            why="it is computed as a binary convolution over a map",
            fix="in front of it, replace GlobalAveragePooling2D by AveragePooling2D and Flatten, and Dense "
            "by a 1x1 Conv2D and Flatten",
        )
    signs, scale = _binary_kernel(site)
    kernel = signs.reshape(*value.shape, -1).transpose(3, 2, 0, 1)
    attributes = {"pads": NO_PADS, "strides": (1, 1), "dilations": (1, 1), "group": 1, "pad_value": 1.0}
    convolution = Step("", BINARY_CONV, (("kernel", kernel),), attributes)
    return site.emit([value], [*_sign(value), convolution, *_behind(site, scale)], (1, 1, len(kernel)))


def dense(site: Site, values: list[Value]) -> Value:
    """A Dense layer on a vector."""
    return _gemm(site, values[0])


def _gemm(site: Site, value: Value) -> Value:
    if value.is_map:
        raise site.error(
            f"a Dense layer on a map {list(value.shape)} is not supported",
            fix="put Flatten or GlobalAveragePooling2D in front of it, or use a 1x1 Conv2D",
        )
    if value.binary:
        raise site.error(
            "a Dense layer with real weights reads a binary tensor",
            why=BOTH_BINARY,
            fix="use larq.layers.QuantDense with both quantizers, or leave the sign out",
        )
    constants = [("kernel", site.weight(site.layer.kernel, "kernel"))]
    if site.layer.use_bias:
        constants.append(("bias", site.weight(site.layer.bias, "bias")))
    return site.emit([value], [Step("", "Gemm", tuple(constants)), *site.activation(site.layer.activation)])


# ----------------------------------------------------------------------------------------- quantizers


def _is_binary(site: Site, value: Value, input_quantizer: Any, kernel_quantizer: Any) -> bool:
    """True for a binary layer, False for a real-valued one. Raises ModelError for a mixture."""
    for what, quantizer in (("input", input_quantizer), ("kernel", kernel_quantizer)):
        known = quantizer is None or is_sign(quantizer) or (what == "kernel" and isinstance(quantizer, SCALED_SIGN))
        if not known:
            names = SIGN_NAMES + (", magnitude_aware_sign" if what == "kernel" else "")
            raise site.error(
                f"{what} quantizer {quantizer_name(quantizer)} is not supported",
                why="values of one bit, +1 and -1, are what targets compute with",
                fix=f"train with one of {names}",
            )
    binary_input = value.binary or input_quantizer is not None
    if binary_input != (kernel_quantizer is not None):
        present, absent = ("inputs", "kernel_quantizer") if binary_input else ("weights", "input_quantizer")
        raise site.error(
            f"only the layer's {present} are binary",
            why=BOTH_BINARY,
            fix=f"set {absent} as well, or neither of the two, and train again",
        )
    return binary_input


def _binary_kernel(site: Site) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the kernel's signs, int8, and its scale [c_out] (None where it is 1), as Larq computes them."""
    latent = site.weight(site.layer.kernel, "kernel")
    signs = larq.math.sign(tf.constant(latent)).numpy().astype(np.int8)
    if not isinstance(site.layer.kernel_quantizer, SCALED_SIGN):
        return signs, None
    axes = list(range(latent.ndim - 1))
    return signs, tf.reduce_mean(tf.abs(tf.constant(latent)), axis=axes).numpy()


def _sign(value: Value) -> list[Step]:
    return [] if value.binary else [Step("sign", SIGN)]


def _behind(site: Site, scale: np.ndarray | None) -> list[Step]:
    """Return the nodes behind a binary convolution: kernel scale, bias (unless it is 0), activation."""
    steps = []
    if scale is not None:
        steps.append(Step("scale", "Mul", (("kernel_scale", scale.reshape(1, -1, 1, 1)),)))
    bias = site.weight(site.layer.bias, "bias") if site.layer.use_bias else np.zeros(1, np.float32)
    if bias.any():
        steps.append(Step("add_bias", "Add", (("bias", bias.reshape(1, -1, 1, 1)),)))
    return steps + site.activation(site.layer.activation)


# ------------------------------------------------------------------------------------------- geometry


def _geometry(layer: Any, pads: Pads) -> dict[str, Any]:
    return {"pads": pads, "strides": layer.strides, "dilations": layer.dilation_rate, "group": layer.groups}


def _conv_pads(site: Site, value: Value, outer_fill: float) -> tuple[Pads, float]:
    """Return the layer's padding together with that of a ZeroPadding2D, and what is read there.

    outer_fill: what the ZeroPadding2D's zeros are when the convolution reads them.
    """
    layer, own = site.layer, NO_PADS
    padded = (value.shape[0] + value.pads[0] + value.pads[2], value.shape[1] + value.pads[1] + value.pads[3])
    if layer.padding == "same":
        own = same_pads(padded, layer.kernel_size, layer.strides, layer.dilation_rate)
    own_fill = float(tf.keras.backend.get_value(getattr(layer, "pad_values", 0.0)))
    fills = {fill for pads, fill in ((own, own_fill), (value.pads, outer_fill)) if any(pads)}
    if not fills <= {0.0, 1.0}:
        raise site.error(
            f"pad_values = {own_fill} is not supported",
            why="a binary map is padded with 1 or 0",
            fix="use pad_values=1.0 or leave it out, and train again",
        )
    if len(fills) > 1:
        raise site.error(
            f"the layer pads with {own_fill:g}, the ZeroPadding2D in front of it with {outer_fill:g}",
            why="a kernel reads one value outside the image (the sign of 0 is +1)",
            fix="leave the ZeroPadding2D out and use padding='same'",
        )
    total = tuple(a + b for a, b in zip(own, value.pads, strict=True))
    # Without padding the value is never read; 1 is the simpler case for a kernel.
    return total, fills.pop() if fills else float(not _is_real(site, value))


def _is_real(site: Site, value: Value) -> bool:
    return not value.binary and getattr(site.layer, "input_quantizer", None) is None
