# SPDX-License-Identifier: Apache-2.0
"""Every convolution and dense layer of Keras and Larq as ONNX nodes.

Whatever the layer's class, it is one `Convolution` (two, where it is separable). Where inputs and kernel have two
values each it becomes a BinaryConv2D, otherwise a Conv or a Gemm with the kernel's values as Larq computes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from bnngen.export.activations import activate, finish, is_sign
from bnngen.export.builder import BINARY_CONV, NO_PADS, Step, Value
from bnngen.export.quantizers import kernel_values, latent_steps, signs_and_scale
from bnngen.export.site import Site, affine, with_zeros

Pads = tuple[int, int, int, int]
Pair = tuple[int, int]


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


def pair(numbers: Any, spare: int = 1) -> Pair:
    """Return (along the height, along the width) of a window's numbers; a sequence has one, its width `spare`."""
    numbers = (numbers,) if isinstance(numbers, int) else tuple(numbers)
    return (*numbers, spare)[:2]


@dataclass(frozen=True)
class Convolution:
    """What a layer computes. kernel: [k_h, k_w, c_in / groups, c_out] as the layer computes with it.

    quantized: the kernel has a quantizer. pad_values: what Larq's "same" padding reads outside. latent: the
    weights that are trained as quantizers.latent_steps gives them, in the kernel's shape; None where there are none.
    """

    kernel: np.ndarray
    quantized: bool
    strides: Pair = (1, 1)
    dilations: Pair = (1, 1)
    groups: int = 1
    padding: str = "valid"
    pad_values: float = 0.0
    bias: np.ndarray | None = None
    input_quantizer: Any = None
    activation: Any = None
    latent: np.ndarray | None = None

    def own_pads(self, size: tuple[int, ...]) -> Pads:
        """Return the layer's own padding of a map of that size."""
        if self.padding == "same":
            return same_pads(size, self.kernel.shape[:2], self.strides, self.dilations)
        if self.padding == "causal":
            return (self.dilations[0] * (self.kernel.shape[0] - 1), 0, 0, 0)
        return NO_PADS


# ---------------------------------------------------------------------------------------------- layers


def conv(site: Site, values: list[Value]) -> Value:
    """Conv1D, Conv2D and Larq's; they take the zero padding of a ZeroPadding2D in front of them."""
    kernel = kernel_values(site, site.layer.kernel, getattr(site.layer, "kernel_quantizer", None))
    quantized = getattr(site.layer, "kernel_quantizer", None) is not None
    what = _convolution(site, _as_image(kernel), quantized)
    if quantized:
        latent = latent_steps(site.weight(site.layer.kernel, "kernel"), kernel)
        what = replace(what, latent=None if latent is None else _as_image(latent))
    return convolve(site, values[0], what)


def depthwise(site: Site, values: list[Value]) -> Value:
    """DepthwiseConv1D, DepthwiseConv2D and Larq's."""
    return convolve(site, values[0], _depthwise(site))


def separable(site: Site, values: list[Value]) -> Value:
    """SeparableConv1D, SeparableConv2D and Larq's: depthwise, then 1x1."""
    layer = site.layer
    first = replace(_depthwise(site), bias=None, activation=None)
    size = _map_size(values[0], first)
    middle = convolve(site.inner("depthwise", (*size, first.kernel.shape[3])), values[0], first)
    quantizer = getattr(layer, "pointwise_quantizer", None)
    kernel = _as_image(kernel_values(site, layer.pointwise_kernel, quantizer, "pointwise kernel"))
    second = Convolution(kernel, quantizer is not None, bias=_bias(site), activation=layer.activation)
    return convolve(site, middle, second)


def dense(site: Site, values: list[Value]) -> Value:
    """Dense and QuantDense: on a vector, or for each pixel of a map."""
    layer, (value,) = site.layer, values
    quantizer = getattr(layer, "kernel_quantizer", None)
    kernel = kernel_values(site, layer.kernel, quantizer)
    what = Convolution(
        kernel[None, None], quantizer is not None, bias=_bias(site),
        input_quantizer=getattr(layer, "input_quantizer", None), activation=layer.activation,
    )  # fmt: skip
    if value.is_map and not value.flat:
        return convolve(site, value, what)
    value = quantize_input(site, value, what.input_quantizer)
    if value.binary and what.quantized and signs_and_scale(kernel):
        value = replace(site.builder.point(value), flat="")
        window = replace(what, kernel=kernel.reshape(*value.shape, -1), input_quantizer=None)
        return convolve(site, value, window, (1, 1, kernel.shape[1]))
    constants = [("kernel", kernel)] + ([] if what.bias is None else [("bias", what.bias)])
    return finish(site, [site.builder.vector(value)], [Step("", "Gemm", tuple(constants))], layer.activation)


def _convolution(site: Site, kernel: np.ndarray, quantized: bool) -> Convolution:
    layer = site.layer
    return Convolution(
        kernel,
        quantized,
        pair(layer.strides),
        pair(layer.dilation_rate),
        getattr(layer, "groups", 1),
        layer.padding,
        float(tf.keras.backend.get_value(getattr(layer, "pad_values", 0.0))),
        _bias(site),
        getattr(layer, "input_quantizer", None),
        layer.activation,
    )


def _depthwise(site: Site) -> Convolution:
    """[k_h, k_w, C, M] becomes C groups of M filters: output channel c * M + m."""
    quantizer = getattr(site.layer, "depthwise_quantizer", None)
    kernel = _as_image(kernel_values(site, site.layer.depthwise_kernel, quantizer, "depthwise kernel"))
    height, width, channels, multiplier = kernel.shape
    grouped = kernel.reshape(height, width, 1, channels * multiplier)
    return replace(_convolution(site, grouped, quantizer is not None), groups=channels)


def _as_image(kernel: np.ndarray) -> np.ndarray:
    """Return the kernel of a sequence, [k, c_in, c_out], as one of width 1."""
    return kernel if kernel.ndim == 4 else kernel[:, None]


def _bias(site: Site) -> np.ndarray | None:
    return site.weight(site.layer.bias, "bias") if site.layer.use_bias else None


# ----------------------------------------------------------------------------------------- the one form


def convolve(site: Site, value: Value, what: Convolution, shape: tuple[int, ...] | None = None) -> Value:
    """Append a convolution with everything around it: quantizer, padding, bias, activation."""
    site.channels_last()
    value, pads, fill = _padding(site, value, what)
    value = quantize_input(site, value, what.input_quantizer)
    binary = signs_and_scale(what.kernel) if value.binary and what.quantized else None
    if binary and (fill in (0.0, 1.0) or not any(pads)):
        steps = _binary_steps(what, binary, pads, fill)
        return finish(site, [value], steps, what.activation, shape)
    bias = what.bias
    if fill and any(pads):  # outside is p: the layer reads x - p, padded with zeros, and p * w is added again
        moved = site.inner("unpadded", value.shape)
        value = moved.emit([replace(value, flat="")], [affine("", value, 1.0, -fill)], value.shape)
        extra = (fill * what.kernel.sum(axis=(0, 1, 2), dtype=np.float64)).astype(np.float32)
        bias = extra if bias is None else bias + extra
    constants = [("kernel", what.kernel.transpose(3, 2, 0, 1))] + ([] if bias is None else [("bias", bias)])
    return finish(site, [value], [Step("", "Conv", tuple(constants), _geometry(what, pads))], what.activation, shape)


def _binary_steps(
    what: Convolution, binary: tuple[np.ndarray, np.ndarray | None], pads: Pads, fill: float
) -> list[Step]:
    """Return the nodes of a binary convolution: kernel scale and bias stand behind it."""
    signs, scale = binary
    fill = fill if any(pads) else 1.0  # never read; 1 is the simpler case for a kernel
    attributes = {**_geometry(what, pads), "pad_value": fill}
    latent = None if what.latent is None else what.latent.transpose(3, 2, 0, 1)
    steps = [Step("", BINARY_CONV, (("kernel", signs.transpose(3, 2, 0, 1)),), attributes, latent)]
    if scale is not None:
        steps.append(Step("scale", "Mul", (("kernel_scale", scale.reshape(1, -1, 1, 1)),)))
    if what.bias is not None and what.bias.any():
        steps.append(Step("add_bias", "Add", (("bias", what.bias.reshape(1, -1, 1, 1)),)))
    return steps


def quantize_input(site: Site, value: Value, quantizer: Any) -> Value:
    """Return the layer's input as its quantizer makes it."""
    if quantizer is None or (value.binary and is_sign(quantizer)):
        return value
    part = "sign" if is_sign(quantizer) else "quantized"
    shape = site.arguments.input_shapes[0] if site.arguments.input_shapes else value.shape
    return activate(site.inner(part, shape), [value], quantizer)


def _geometry(what: Convolution, pads: Pads) -> dict[str, Any]:
    return {"pads": pads, "strides": what.strides, "dilations": what.dilations, "group": what.groups}


def _padded_size(value: Value) -> Pair:
    top, left, bottom, right = value.pads
    return value.shape[0] + top + bottom, value.shape[1] + left + right


def _map_size(value: Value, what: Convolution) -> Pair:
    """Return (height, width) of the convolution's result."""
    size, own = _padded_size(value), what.own_pads(_padded_size(value))
    reach = [what.dilations[axis] * (what.kernel.shape[axis] - 1) + 1 for axis in range(2)]
    return tuple((size[i] + own[i] + own[i + 2] - reach[i]) // what.strides[i] + 1 for i in range(2))


def _padding(site: Site, value: Value, what: Convolution) -> tuple[Value, Pads, float]:
    """Return the input without pending padding, the convolution's padding, and what is read there.

    The layer's own padding surrounds the quantized input; a ZeroPadding2D's zeros go through the quantizer: a sign
    makes +1 of them. Where the two differ, the ZeroPadding2D is computed as a layer of its own.
    """
    own, fill = what.own_pads(_padded_size(value)), what.pad_values
    if any(value.pads):
        outer = _quantized_zero(what.input_quantizer)
        if outer is None or (any(own) and outer != fill):
            value = with_zeros(site, value)
        else:
            fill = outer
    pads = tuple(a + b for a, b in zip(own, value.pads, strict=True))
    return replace(value, pads=NO_PADS), pads, fill


def _quantized_zero(quantizer: Any) -> float | None:
    """Return what the quantizer makes of zeros; None where that is not the same everywhere."""
    if quantizer is None:
        return 0.0
    result = np.unique(np.asarray(quantizer(tf.zeros((1, 2, 2, 2)))))
    return float(result[0]) if len(result) == 1 else None
