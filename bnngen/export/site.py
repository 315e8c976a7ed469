# SPDX-License-Identifier: Apache-2.0
"""A Keras layer while it is being exported: its weights, checked, and its errors, with its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import larq
import numpy as np
import tensorflow as tf
from larq.quantized_variable import QuantizedVariable

from bnngen.errors import ModelError
from bnngen.export.builder import SIGN, GraphBuilder, Step, Value

SIGNS = (larq.quantizers.SteSign, larq.quantizers.ApproxSign, larq.quantizers.SwishSign)
SCALED_SIGN = larq.quantizers.MagnitudeAwareSign
SIGN_FUNCTIONS = (larq.quantizers.ste_sign, larq.quantizers.approx_sign, larq.quantizers.swish_sign)
SIGN_NAMES = "ste_sign, approx_sign, swish_sign"
RELUS = (tf.keras.activations.relu, tf.nn.relu)


@dataclass(frozen=True)
class Site:
    """The layer at hand. shape: of its Keras output, without the batch axis."""

    builder: GraphBuilder
    layer: tf.keras.layers.Layer
    name: str
    shape: tuple[int, ...]

    def error(self, message: str, *, why: str = "", fix: str = "") -> ModelError:
        """Return an error that names the layer and its class."""
        return ModelError(message, where=f"layer {self.name} ({type(self.layer).__name__})", why=why, fix=fix)

    def weight(self, variable: Any, what: str) -> np.ndarray:
        """Return a variable's float32 value, latent where it is quantized. Raises ModelError for NaN."""
        if isinstance(variable, QuantizedVariable):
            variable = variable.latent_variable
        value = variable.numpy().astype(np.float32)
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

        shape: [H, W, C] of the output where it differs from Keras's.
        """
        shape = shape or (inputs[0].shape if inputs[0].flat else self.shape)
        flat = self.name if len(shape) > len(self.shape) else ""
        output = f"{self.name}/map" if flat else self.name
        tensor = self.builder.chain(self.name, [value.tensor for value in inputs], steps, output)
        return Value(tensor, shape, self.builder.is_binary(tensor), flat)

    def activation(self, function: Any) -> list[Step]:
        """Return the nodes of an activation. Raises ModelError for one that is not supported."""
        if function is None or function is tf.keras.activations.linear:
            return []
        if function in RELUS:
            return [Step("relu", "Relu")]
        if is_sign(function):
            return [Step("sign", SIGN)]
        name = getattr(function, "__name__", type(function).__name__)
        raise self.error(
            f"activation {name} is not supported" + (" in the middle of a model" if name == "softmax" else ""),
            why="targets compute integers: linear, relu and signs only; a softmax may stand at the end",
            fix=f"train with activation='relu', or with one of {SIGN_NAMES}",
        )


def is_sign(quantizer: Any) -> bool:
    """True for a quantizer whose forward value is +1 for x >= 0 and -1 otherwise."""
    return isinstance(quantizer, SIGNS) or quantizer in SIGN_FUNCTIONS


def quantizer_name(quantizer: Any) -> str:
    """Return what to call a quantizer in a message."""
    return getattr(quantizer, "__name__", type(quantizer).__name__)
