# SPDX-License-Identifier: Apache-2.0
"""The layers that can be exported: one function each, and the table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import larq
import numpy as np
import tensorflow as tf

from bnngen.export.builder import NO_PADS, Step, Value
from bnngen.export.convolutions import conv2d, dense, quant_dense, same_pads
from bnngen.export.site import SIGNS, Site

keras = tf.keras.layers


def export_layer(site: Site, values: list[Value]) -> Value:
    """Append the layer's nodes to the builder and return its output. Raises ModelError."""
    handler = HANDLERS.get(type(site.layer))
    if handler is None:
        raise site.error(
            f"{type(site.layer).__name__} layers are not supported",
            why="targets have no kernel for it; supported are " + ", ".join(supported_layers()),
            fix="express the layer by supported ones and train again, or cut the model before it",
        )
    if site.layer.compute_dtype != "float32":
        raise site.error(
            f"the layer computes in {site.layer.compute_dtype}",
            why="the exported file, and the check against Keras, are float32",
            fix="build the model without a mixed-precision policy",
        )
    return handler.function(site, [_admitted(site, value, handler) for value in values])


def supported_layers() -> list[str]:
    """Return the names of the layer classes that can be exported."""
    return sorted({cls.__name__ for cls in HANDLERS})


@dataclass(frozen=True)
class Handler:
    """How a layer class is exported, and which inputs beyond a real-valued map or vector it takes.

    binary: +1 and -1; flat: a map that Keras sees as a vector; padded: a map with a ZeroPadding2D's zeros
    around it.
    """

    function: Callable[[Site, list[Value]], Value]
    binary: bool = False
    flat: bool = False
    padded: bool = False


def _admitted(site: Site, value: Value, handler: Handler) -> Value:
    """Return the input as the layer takes it. Raises ModelError where it does not."""
    if any(value.pads) and not handler.padded:
        raise site.error(
            "a ZeroPadding2D must stand directly in front of a convolution",
            why="zeros around a map exist only while a convolution reads it",
            fix="use the layer's own padding='same'",
        )
    if value.binary and not handler.binary:
        raise site.error(
            "the layer reads a binary tensor",
            why="after a sign only binary convolutions, maximum pooling and Flatten are computed",
            fix="put the sign behind this layer, or use the input_quantizer of the next one",
        )
    return site.builder.vector(value) if value.flat and not handler.flat else value


# ---------------------------------------------------------------------------------------- element-wise


def _batch_norm(site: Site, values: list[Value]) -> Value:
    (value,) = values
    layer = site.layer
    if value.flat and value.shape[:2] != (1, 1):  # Keras normalizes every element of the vector by itself
        value = site.builder.vector(value)
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    if list(axes) not in ([-1], [len(site.shape)]):
        raise site.error(
            f"axis {layer.axis} is not supported",
            why="channels are the last axis",
            fix="use axis=-1, Keras's default",
        )
    mean = site.weight(layer.moving_mean, "moving mean")
    variance = site.weight(layer.moving_variance, "moving variance")
    if not (variance + np.float32(layer.epsilon) > 0).all():
        raise site.error("variance + epsilon is not positive", fix="train again with epsilon=0.001")
    gamma = site.weight(layer.gamma, "gamma") if layer.scale else np.ones_like(mean)
    beta = site.weight(layer.beta, "beta") if layer.center else np.zeros_like(mean)
    constants = (("gamma", gamma), ("beta", beta), ("mean", mean), ("variance", variance))
    return site.emit([value], [Step("", "BatchNormalization", constants, {"epsilon": float(layer.epsilon)})])


def _relu(site: Site, values: list[Value]) -> Value:
    layer = site.layer
    if layer.max_value is not None or layer.negative_slope != 0 or layer.threshold != 0:
        raise site.error(
            "a ReLU with a maximum, a slope or a threshold is not supported",
            why="targets compute max(x, 0)",
            fix="use ReLU() and train again",
        )
    return site.emit(values, [Step("", "Relu")])


def _activation(site: Site, values: list[Value]) -> Value:
    steps = [replace(step, part="") for step in site.activation(site.layer.activation)]
    return site.emit(values, steps) if steps else values[0]


def _sign(site: Site, values: list[Value]) -> Value:
    return site.emit(values, [replace(step, part="") for step in site.activation(site.layer)])


def _add(site: Site, values: list[Value]) -> Value:
    if not all(value.flat for value in values):
        values = [site.builder.vector(value) if value.flat else value for value in values]
    if any(value.shape != values[0].shape for value in values):
        raise site.error(
            f"shapes {[list(value.shape) for value in values]} are added",
            why="both sides of an addition have one shape",
            fix="bring them to one shape first",
        )
    total = values[0]
    inner = [replace(site, name=f"{site.name}/{i}") for i in range(1, len(values) - 1)]
    for here, value in zip([*inner, site], values[1:], strict=True):
        total = here.emit([total, value], [Step("", "Add")])
    return total


def _identity(site: Site, values: list[Value]) -> Value:
    return values[0]


# ----------------------------------------------------------------------------------------------- maps


def _max_pool(site: Site, values: list[Value]) -> Value:
    return site.emit(values, [Step("", "MaxPool", (), _pool_window(site, values[0]))])


def _average_pool(site: Site, values: list[Value]) -> Value:
    attributes = _pool_window(site, values[0])
    if any(attributes["pads"]):
        raise site.error(
            "average pooling with padding is not supported",
            why="the number of pixels to divide by would differ at the border",
            fix="use padding='valid' and train again",
        )
    return site.emit(values, [Step("", "AveragePool", (), attributes)])


def _pool_window(site: Site, value: Value) -> dict[str, tuple[int, ...]]:
    site.channels_last()
    layer = site.layer
    pads = NO_PADS
    if layer.padding == "same":
        pads = same_pads(value.shape, layer.pool_size, layer.strides)
    return {"kernel_shape": layer.pool_size, "strides": layer.strides, "pads": pads}


def _global_average_pool(site: Site, values: list[Value]) -> Value:
    _no_kept_axes(site)
    steps = [Step("", "GlobalAveragePool"), Step("flatten", "Flatten", attributes={"axis": 1})]
    return site.emit(values, steps)


def _global_max_pool(site: Site, values: list[Value]) -> Value:
    _no_kept_axes(site)
    height, width, channels = values[0].shape
    attributes = {"kernel_shape": (height, width), "strides": (1, 1), "pads": NO_PADS}
    return site.emit(values, [Step("", "MaxPool", (), attributes)], (1, 1, channels))


def _no_kept_axes(site: Site) -> None:
    site.channels_last()
    if site.layer.keepdims:
        raise site.error("keepdims=True is not supported", fix="leave it out: the result is a vector")


def _flatten(site: Site, values: list[Value]) -> Value:
    """Nothing is moved until a layer needs the vector: a QuantDense reads the map itself."""
    site.channels_last()
    (value,) = values
    return replace(value, flat=site.name) if value.is_map and not value.flat else value


def _zero_padding(site: Site, values: list[Value]) -> Value:
    """Nothing is moved: the convolution that follows takes the padding."""
    site.channels_last()
    (top, bottom), (left, right) = site.layer.padding
    pads = zip((top, left, bottom, right), values[0].pads, strict=True)
    return replace(values[0], pads=tuple(a + b for a, b in pads))


HANDLERS: dict[type, Handler] = {
    keras.Conv2D: Handler(conv2d, binary=True, padded=True),
    larq.layers.QuantConv2D: Handler(conv2d, binary=True, padded=True),
    keras.Dense: Handler(dense, binary=True),
    larq.layers.QuantDense: Handler(quant_dense, binary=True, flat=True),
    keras.BatchNormalization: Handler(_batch_norm, flat=True),
    keras.ReLU: Handler(_relu, flat=True),
    keras.Activation: Handler(_activation, flat=True),
    keras.Add: Handler(_add, flat=True),
    keras.MaxPooling2D: Handler(_max_pool, binary=True),
    keras.AveragePooling2D: Handler(_average_pool),
    keras.GlobalAveragePooling2D: Handler(_global_average_pool),
    keras.GlobalMaxPooling2D: Handler(_global_max_pool, binary=True),
    keras.Flatten: Handler(_flatten, binary=True, flat=True),
    keras.ZeroPadding2D: Handler(_zero_padding, binary=True, padded=True),
    keras.Dropout: Handler(_identity, binary=True, flat=True, padded=True),
    keras.SpatialDropout2D: Handler(_identity, binary=True, padded=True),
    **{sign: Handler(_sign, flat=True) for sign in SIGNS},
}
