# SPDX-License-Identifier: Apache-2.0
"""A Keras layer while it is being exported: its weights, checked, and its errors, with its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf
from larq.quantized_variable import QuantizedVariable

from bnngen.errors import ModelError
from bnngen.export.builder import NO_PADS, GraphBuilder, Step, Value


@dataclass(frozen=True)
class Operand:
    """Stands for input number `index` of a layer among the arguments of its call."""

    index: int


@dataclass(frozen=True)
class Arguments:
    """How a layer was called: tensors are Operands; input_shapes are Keras's, without the batch axis.

    output: which of the layer's results is meant.
    """

    args: tuple[Any, ...] = (Operand(0),)
    kwargs: dict[str, Any] = field(default_factory=dict)
    input_shapes: tuple[tuple[int, ...], ...] = ()
    output: int = 0


@dataclass(frozen=True)
class Site:
    """The layer at hand. shape: of its Keras output, without the batch axis."""

    builder: GraphBuilder
    layer: tf.keras.layers.Layer
    name: str
    shape: tuple[int, ...]
    arguments: Arguments = Arguments()

    def inner(self, part: str, shape: tuple[int, ...]) -> Site:
        """Return a site for a part of the layer, named layer/part, whose output has that shape."""
        return replace(self, name=f"{self.name}/{part}", shape=shape)

    def error(self, message: str, *, why: str = "", fix: str = "") -> ModelError:
        """Return an error that names the layer and its class."""
        return ModelError(message, where=f"layer {self.name} ({type(self.layer).__name__})", why=why, fix=fix)

    def weight(self, variable: Any, what: str) -> np.ndarray:
        """Return a variable's float32 value, latent where it is quantized. Raises ModelError for NaN."""
        if isinstance(variable, QuantizedVariable):
            variable = variable.latent_variable
        return self.finite(variable.numpy(), what)

    def finite(self, value: Any, what: str) -> np.ndarray:
        """Return the array as float32. Raises ModelError for NaN or infinity."""
        value = np.asarray(value).astype(np.float32)
        if not np.isfinite(value).all():
            raise self.error(
                f"the {what} has values that are not finite numbers",
                why="training has diverged: nothing can be computed with NaN or infinity",
                fix="train again with a smaller learning rate",
            )
        return value

    def channels_last(self) -> None:
        """Raise ModelError for a layer in channels-first order."""
        if getattr(self.layer, "data_format", "channels_last") != "channels_last":
            raise self.error(
                "data_format channels_first is not supported",
                why="images are [height, width, channel] on every target",
                fix="build the model with data_format='channels_last', Keras's default",
            )

    def emit(self, inputs: Sequence[Value], steps: Sequence[Step], shape: tuple[int, ...] | None = None) -> Value:
        """Append the layer's nodes and return its output: of Keras's shape, or a map that Keras sees flat.

        shape: [H, W, C] of the output where it differs from Keras's. Without steps the first input is the output.
        """
        if not steps:
            return inputs[0]
        shape = shape or (inputs[0].shape if inputs[0].flat else as_map(self.shape))
        flat = self.name if len(shape) == 3 and len(self.shape) == 1 else ""
        output = f"{self.name}/map" if flat else self.name
        tensor = self.builder.chain(self.name, [value.tensor for value in inputs], steps, output)
        return Value(tensor, shape, self.builder.is_binary(tensor), flat)


def as_map(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a value for Keras's: a sequence [L, C] is the map [L, 1, C]."""
    return (shape[0], 1, shape[1]) if len(shape) == 2 else shape


def per_channel(value: Value, numbers: Any) -> np.ndarray:
    """Return one number a channel, [C], or a scalar, as it broadcasts to the value: [C, 1, 1] for a map, [C]."""
    channels = np.broadcast_to(np.asarray(numbers, np.float32), (value.shape[-1],)).copy()
    return channels.reshape(-1, 1, 1) if value.is_map else channels


def affine(part: str, value: Value, gain: Any, shift: Any) -> Step:
    """Return the node that computes x * gain + shift for each channel: a batch norm of mean 0 and variance 1."""
    ones = np.ones(value.shape[-1], np.float32)
    gamma, beta = (np.asarray(number, np.float32) * ones for number in (gain, shift))
    constants = (("gamma", gamma), ("beta", beta), ("mean", 0 * ones), ("variance", ones))
    return Step(part, "BatchNormalization", constants, {"epsilon": 0.0})


def clip(part: str, low: float, high: float) -> Step:
    """Return the node that computes min(max(x, low), high). Infinity is the largest float32: files hold numbers."""
    most = np.finfo(np.float32).max
    low, high = (np.array(np.clip(limit, -most, most), np.float32) for limit in (low, high))
    constants = (("min", low), ("max", high))
    return Step(part, "Clip", constants)


def with_zeros(site: Site, value: Value, fill: float = 0.0) -> Value:
    """Return the map with its pending padding filled in: a convolution by 1 of each channel, which reads 0 outside.

    fill: what stands in the padding; x - fill is padded with zeros, and fill added again.
    """
    if not any(value.pads):
        return value
    top, left, bottom, right = value.pads
    height, width, channels = value.shape
    shape = (height + top + bottom, width + left + right, channels)
    attributes = {"pads": value.pads, "strides": (1, 1), "dilations": (1, 1), "group": channels}
    constants = [("ones", np.ones((channels, 1, 1, 1), np.float32))]
    steps = []
    if fill:
        steps.append(affine("moved", value, 1.0, -fill))
        constants.append(("fill", np.full(channels, fill, np.float32)))
    steps.append(Step("", "Conv", tuple(constants), attributes))
    return site.inner("padded", shape).emit([replace(value, pads=NO_PADS, flat="")], steps, shape)
