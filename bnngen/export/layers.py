# SPDX-License-Identifier: Apache-2.0
"""The layers that can be exported: the table of them, and what each takes as input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import larq
import tensorflow as tf

from bnngen.export import convolutions, elementwise, operations, pooling, shapes
from bnngen.export.builder import Value
from bnngen.export.expand import expand_layer
from bnngen.export.site import Site, with_zeros
from bnngen.train import layers as own

keras = tf.keras.layers


def export_layer(site: Site, values: list[Value]) -> Value:
    """Append the layer's nodes to the builder and return its output. Raises ModelError."""
    kind = type(site.layer)
    if kind in REFUSED:
        why, fix = REFUSED[kind]
        raise site.error(f"{kind.__name__} layers are not supported", why=why, fix=fix)
    handler = HANDLERS.get(kind)
    if handler is None and kind.__module__.split(".")[0] in ("keras", "larq"):
        raise site.error(
            f"{kind.__name__} layers are not supported",
            why="targets have no kernel for it; `bnngen operators` lists the layers that are supported",
            fix="express the layer by supported ones and train again, or cut the model before it",
        )
    handler = handler or EXPANDED
    return handler.function(site, [_admitted(site, value, handler) for value in values])


@dataclass(frozen=True)
class Handler:
    """How a layer class is exported, and which inputs it takes as they are.

    flat: a map that Keras sees as a vector. padded: a map with a ZeroPadding2D's zeros around it. split: a map in the
    middle of a shuffle of channels. What a layer does not take is computed in front of it, or refused.
    """

    function: Callable[[Site, list[Value]], Value]
    flat: bool = False
    padded: bool = False
    split: bool = False


def _admitted(site: Site, value: Value, handler: Handler) -> Value:
    """Return the input as the layer takes it. Raises ModelError where it does not."""
    if not handler.split:
        value = shapes.whole_channels(site, value)
    if any(value.pads) and not handler.padded:
        value = with_zeros(site, value)
    return site.builder.vector(value) if value.flat and not handler.flat else value


def _identity(site: Site, values: list[Value]) -> Value:
    return values[0]


MAP = {"padded": True}
ANY = {"flat": True, "padded": True, "split": True}
EXPANDED = Handler(expand_layer, **ANY)
_CONV = Handler(convolutions.conv, **MAP)
_DEPTHWISE = Handler(convolutions.depthwise, **MAP)
_SEPARABLE = Handler(convolutions.separable, **MAP)
_QUANTIZER = Handler(elementwise.quantizer, flat=True)
_BATCH_NORM = Handler(elementwise.batch_norm, flat=True)
_OPERATION = Handler(operations.operation, **ANY)

HANDLERS: dict[type, Handler] = {
    keras.Conv1D: _CONV,
    keras.Conv2D: _CONV,
    larq.layers.QuantConv1D: _CONV,
    larq.layers.QuantConv2D: _CONV,
    keras.DepthwiseConv1D: _DEPTHWISE,
    keras.DepthwiseConv2D: _DEPTHWISE,
    larq.layers.QuantDepthwiseConv2D: _DEPTHWISE,
    keras.SeparableConv1D: _SEPARABLE,
    keras.SeparableConv2D: _SEPARABLE,
    larq.layers.QuantSeparableConv1D: _SEPARABLE,
    larq.layers.QuantSeparableConv2D: _SEPARABLE,
    keras.Dense: Handler(convolutions.dense, flat=True, padded=True),
    larq.layers.QuantDense: Handler(convolutions.dense, flat=True, padded=True),
    keras.BatchNormalization: _BATCH_NORM,
    keras.Normalization: Handler(elementwise.normalization, flat=True),
    keras.Rescaling: Handler(elementwise.rescaling, flat=True),
    keras.ReLU: Handler(elementwise.relu, flat=True),
    keras.LeakyReLU: Handler(elementwise.leaky_relu, flat=True),
    keras.PReLU: Handler(elementwise.prelu, flat=True),
    keras.ELU: Handler(elementwise.elu_layer, flat=True),
    keras.Activation: Handler(elementwise.activation, flat=True),
    keras.Add: Handler(elementwise.add, flat=True),
    keras.Average: Handler(elementwise.average, flat=True),
    keras.Subtract: Handler(elementwise.subtract, flat=True),
    keras.Multiply: Handler(elementwise.multiply, flat=True),
    keras.Concatenate: Handler(shapes.concatenate, flat=True),
    keras.MaxPooling1D: Handler(pooling.max_pool),
    keras.MaxPooling2D: Handler(pooling.max_pool),
    keras.AveragePooling1D: Handler(pooling.average_pool),
    keras.AveragePooling2D: Handler(pooling.average_pool),
    keras.GlobalAveragePooling1D: Handler(pooling.global_average_pool),
    keras.GlobalAveragePooling2D: Handler(pooling.global_average_pool),
    keras.GlobalMaxPooling1D: Handler(pooling.global_max_pool),
    keras.GlobalMaxPooling2D: Handler(pooling.global_max_pool),
    keras.Flatten: Handler(shapes.flatten, flat=True),
    keras.Reshape: Handler(shapes.reshape, flat=True, split=True),
    keras.Permute: Handler(shapes.permute, flat=True, split=True),
    keras.ZeroPadding1D: Handler(shapes.zero_padding, **MAP),
    keras.ZeroPadding2D: Handler(shapes.zero_padding, **MAP),
    own.LearnedShift: Handler(elementwise.learned_shift, flat=True),
    own.RPReLU: Handler(elementwise.rp_relu, flat=True),
    own.DPReLU: Handler(elementwise.dp_relu, flat=True),
    own.Thermometer: Handler(elementwise.encoding),
    own.BitPlanes: Handler(elementwise.encoding),
    keras.Lambda: EXPANDED,
    **{
        cls: Handler(_identity, **ANY)
        for cls in (
            keras.Dropout, keras.SpatialDropout1D, keras.SpatialDropout2D, keras.GaussianDropout, keras.GaussianNoise,
            keras.AlphaDropout, keras.ActivityRegularization,
        )
    },
    **{
        cls: _QUANTIZER
        for cls in (
            larq.quantizers.SteSign, larq.quantizers.ApproxSign, larq.quantizers.SwishSign, larq.quantizers.SteTern,
            larq.quantizers.SteHeaviside, larq.quantizers.DoReFa, larq.quantizers.MagnitudeAwareSign,
            larq.quantizers.NoOp,
        )
    },
}  # fmt: skip


def _operation_classes() -> dict[type, Handler]:
    """Return the handlers of Keras's two classes for TensorFlow operations, which it does not export by name."""
    x = tf.keras.Input((1,))
    return {type((x + 1)._keras_history.layer): _OPERATION, type(x[:, :1]._keras_history.layer): _OPERATION}


HANDLERS |= _operation_classes()

_WEIGHTS = "every pixel has weights of its own, which do not fit a microcontroller, and there is no kernel for it"
_TRANSPOSED = "a transposed convolution enlarges the map; classifiers have none, and there is no kernel for it"
_SOLID = "maps have a height and a width; there is no kernel for three dimensions"
_CROP = "targets compute whole maps"

REFUSED: dict[type, tuple[str, str]] = {
    **{
        cls: (_TRANSPOSED, "cut the model before it, or use a convolution")
        for cls in (
            keras.Conv1DTranspose, keras.Conv2DTranspose, larq.layers.QuantConv2DTranspose,
            larq.layers.QuantConv3DTranspose, keras.Conv3DTranspose,
        )
    },
    **{
        cls: (_WEIGHTS, "use Conv2D or QuantConv2D, whose weights are shared by all pixels")
        for cls in (
            keras.LocallyConnected1D, keras.LocallyConnected2D, larq.layers.QuantLocallyConnected1D,
            larq.layers.QuantLocallyConnected2D,
        )
    },
    **{
        cls: (_SOLID, "use Conv2D or QuantConv2D, with the third dimension as channels")
        for cls in (keras.Conv3D, larq.layers.QuantConv3D)
    },
    **{
        cls: (_CROP, "crop the images before training, or use a convolution with padding='valid'")
        for cls in (keras.Cropping1D, keras.Cropping2D)
    },
    keras.ThresholdedReLU: (
        "it jumps at its threshold, and targets compute continuous slopes",
        "use ReLU() and train again",
    ),
    keras.Softmax: (
        "a softmax joins all channels; one may stand at the end, where it does not change which class wins",
        "leave it out",
    ),
}  # fmt: skip
