# SPDX-License-Identifier: Apache-2.0
"""Layers that work on each element, and those that join two tensors element by element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bnngen.export.activations import activate, elu, negative_slope, two_slopes
from bnngen.export.builder import BIT_PLANES, THERMOMETER, Step, Value
from bnngen.export.site import Site, affine, clip

INFINITY = float("inf")


def unjoined(site: Site, value: Value) -> Value:
    """Return the value with Keras's channels as its own: a flattened map of more than one pixel becomes the vector."""
    is_long = value.flat and value.shape[:2] != (1, 1)
    return site.builder.vector(value) if is_long else value


# ------------------------------------------------------------------------------------- batch norm and lines


def batch_norm(site: Site, values: list[Value]) -> Value:
    """BatchNormalization over channels."""
    value, layer = unjoined(site, values[0]), site.layer
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


def normalization(site: Site, values: list[Value]) -> Value:
    """(x - mean) / deviation, fixed before training; the other way round where the layer is inverted."""
    layer = site.layer
    mean, variance = (np.asarray(number, np.float32) for number in (layer.mean, layer.variance))
    deviation = np.maximum(np.sqrt(variance), np.float32(1e-7))  # Keras's epsilon
    if layer.invert:
        return line(site, values[0], deviation, mean)
    return line(site, values[0], 1 / deviation, -mean / deviation)


def rescaling(site: Site, values: list[Value]) -> Value:
    """x * scale + offset."""
    return line(site, values[0], site.layer.scale, site.layer.offset)


def line(site: Site, value: Value, gain: Any, shift: Any) -> Value:
    """Append x * gain + shift, where gain and shift are constants as Keras broadcasts them."""
    value = unjoined(site, value)
    gain, shift = (channels_of(site, number, value) for number in (gain, shift))
    return site.emit([value], [affine("", value, gain, shift)])


def channels_of(site: Site, numbers: Any, value: Value) -> np.ndarray:
    """Return a constant that broadcasts to the value as one number a channel, [C] or a scalar.

    Raises ModelError where it differs from pixel to pixel.
    """
    array = site.finite(numbers, "constant")
    if array.size == 1:
        return array.reshape(())
    rows = array.reshape(-1, array.shape[-1])
    if array.shape[-1] not in (1, value.shape[-1]) or not (rows == rows[0]).all():
        raise site.error(
            f"a constant of shape {list(array.shape)} differs from pixel to pixel",
            why="targets keep one number a channel",
            fix="use a constant, or a weight, of shape [channels]",
        )
    return rows[0]


def learned_shift(site: Site, values: list[Value]) -> Value:
    """x + shift[c]."""
    return line(site, values[0], 1.0, site.weight(site.layer.shift, "shift"))


# ---------------------------------------------------------------------------------------------- slopes


def activation(site: Site, values: list[Value]) -> Value:
    """Activation(function)."""
    return activate(site, values, site.layer.activation)


def quantizer(site: Site, values: list[Value]) -> Value:
    """A quantizer that stands as a layer."""
    return activate(site, values, site.layer)


def relu(site: Site, values: list[Value]) -> Value:
    """ReLU with a maximum and a slope."""
    layer = site.layer
    if layer.threshold != 0:
        raise site.error(
            f"a ReLU with the threshold {layer.threshold} is not supported",
            why="it jumps there, and targets compute continuous slopes",
            fix="use ReLU() and train again",
        )
    high = INFINITY if layer.max_value is None else float(layer.max_value)
    if layer.negative_slope == 0:
        return site.emit(values, [Step("", "Relu") if high == INFINITY else clip("", 0.0, high)])
    steps = [negative_slope("", values[0], layer.negative_slope)]
    return site.emit(values, steps if high == INFINITY else [*steps, clip("clip", -INFINITY, high)])


def leaky_relu(site: Site, values: list[Value]) -> Value:
    """LeakyReLU: one slope for all channels."""
    return site.emit(values, [negative_slope("", values[0], float(site.layer.alpha))])


def elu_layer(site: Site, values: list[Value]) -> Value:
    """ELU(alpha)."""
    return site.emit(values, elu(values[0], float(site.layer.alpha)))


def prelu(site: Site, values: list[Value]) -> Value:
    """PReLU with one slope a channel; a slope of each pixel is possible where all pixels have the same."""
    value = unjoined(site, values[0])
    slope = site.weight(site.layer.alpha, "slope")
    rows = slope.reshape(-1, slope.shape[-1])
    if slope.shape[-1] not in (1, value.shape[-1]) or not (rows == rows[0]).all():
        raise site.error(
            f"a PReLU with slopes of shape {list(slope.shape)} is not supported",
            why="targets keep one slope a channel, not one a pixel",
            fix="use PReLU(shared_axes=[1, 2]) and train again",
        )
    return site.emit([value], [negative_slope("", value, rows[0])])


def dp_relu(site: Site, values: list[Value]) -> Value:
    """A slope for each side of 0, both learned."""
    value = unjoined(site, values[0])
    negative, positive = (site.weight(v, "slope") for v in (site.layer.negative, site.layer.positive))
    return site.emit([value], [two_slopes("", value, negative, positive)])


def rp_relu(site: Site, values: list[Value]) -> Value:
    """A PReLU whose knee is moved: shift, slope, shift."""
    value, layer = unjoined(site, values[0]), site.layer
    before, slope, after = (site.weight(v, "weights") for v in (layer.before, layer.slope, layer.after))
    steps = [
        affine("before", value, 1.0, before),
        negative_slope("slope", value, slope),
        affine("", value, 1.0, after),
    ]
    return site.emit([value], steps)


def encoding(site: Site, values: list[Value]) -> Value:
    """Thermometer and BitPlanes: pixels to bits, directly behind the input."""
    layer, (value,) = site.layer, values
    if value.tensor != site.builder.nodes[0].output[0]:
        raise site.error(
            f"{type(layer).__name__} must read the image itself",
            why="it recovers the pixels 0 to 255, which are there at the input alone",
            fix="make it the first layer of the model",
        )
    operation = THERMOMETER if type(layer).__name__ == "Thermometer" else BIT_PLANES
    attributes = {
        "scale": layer.scale,
        "offset": layer.offset,
        "source": [int(number) for number in layer.source],
        "value": [int(number) for number in layer.value],
    }
    return site.emit(values, [Step("", operation, attributes=attributes)])


# ------------------------------------------------------------------------------------------ two tensors


def add(site: Site, values: Sequence[Value]) -> Value:
    """Add: tensors of one shape; a vector or a map of one pixel is not spread over a map."""
    values = aligned(site, values)
    if any(value.shape != values[0].shape for value in values):
        raise site.error(
            f"shapes {[list(value.shape) for value in values]} are added",
            why="both sides of an addition have one shape",
            fix="bring them to one shape first",
        )
    return _fold(site, values, "Add")


def average(site: Site, values: Sequence[Value]) -> Value:
    """Average of several tensors."""
    total = add(site.inner("sum", site.shape), values)
    return site.emit([total], [affine("", total, 1 / len(values), 0.0)])


def subtract(site: Site, values: Sequence[Value]) -> Value:
    """The first minus the second."""
    first, second = aligned(site, values)
    minus = site.inner("minus", site.shape).emit([second], [affine("", second, -1.0, 0.0)])
    return add(site, [first, minus])


def multiply(site: Site, values: Sequence[Value]) -> Value:
    """Multiply: tensors of one shape, or a map and a map of one pixel (squeeze and excite)."""
    values = sorted(aligned(site, values), key=lambda value: -int(np.prod(value.shape)))
    shape = values[0].shape
    factors = [values[0]]
    for value in values[1:]:
        if value.shape == shape:
            factors.append(value)
        elif len(shape) == 3 and value.shape == (1, 1, shape[2]):
            is_point = site.builder.is_point(value)
            factors.append(value if is_point else site.builder.point(site.builder.vector(value)))
        else:
            raise site.error(
                f"shapes {[list(value.shape) for value in values]} are multiplied",
                why="both sides have one shape, or one of them has one number a channel",
                fix="bring them to one shape first",
            )
    return _fold(site, factors, "Mul")


def aligned(site: Site, values: Sequence[Value]) -> list[Value]:
    """Return the values all as flattened maps of one shape, or all as Keras sees them."""
    if all(value.flat for value in values) and len({value.shape for value in values}) == 1:
        return list(values)
    return [site.builder.vector(value) if value.flat else value for value in values]


def _fold(site: Site, values: Sequence[Value], operation: str) -> Value:
    """Append a chain of operations of two tensors each."""
    result = values[0]
    inner = [replace(site, name=f"{site.name}/{i}") for i in range(1, len(values) - 1)]
    for here, value in zip([*inner, site], values[1:], strict=True):
        result = here.emit([result, value], [Step("", operation)])
    return result
