# SPDX-License-Identifier: Apache-2.0
"""Which layers of Keras and Larq, and which operations between them, can be exported: as tables."""

from __future__ import annotations

from bnngen.export.layers import HANDLERS, REFUSED
from bnngen.export.operations import OPERATIONS

SHOWN = ("keras", "larq", "bnngen")  # the packages whose layers are listed by name
NOTHING = "nothing: it acts in training alone"
CONV = "a convolution of any kernel size, strides, dilation and groups; binary where input and kernel are"
DEPTHWISE = "a convolution of each channel by itself; binary where input and kernel are"
SEPARABLE = "a depthwise convolution, then one of 1x1"
DENSE = "a dense layer on a vector, or on the channels of each pixel of a map; binary where input and kernel are"
GLOBAL = "over all pixels, to a vector"
POOL = "of windows; what lies outside the map does not count"
PADDING = "zeros around the map, taken up by the layer behind it"
SAME = "tensors of one shape"
FUNCTIONS = (
    "linear, relu, sigmoid, tanh, swish, hard_sigmoid, elu, selu, tf.nn.relu6, tf.nn.leaky_relu, tf.sign, Larq's "
    "hard_tanh and quantizers; a function of your own by the operations that it calls; softmax at the end"
)

DESCRIPTIONS = {
    "bnngen.BitPlanes": "the bits of each pixel, directly behind the input",
    "bnngen.DPReLU": "two learned slopes a channel, one below 0 and one above",
    "bnngen.LearnedShift": "x + shift, one a channel",
    "bnngen.RPReLU": "a PReLU whose knee is moved: shift, slope, shift, one of each a channel",
    "bnngen.Thermometer": "comparisons of each pixel with rising thresholds, directly behind the input",
    "keras.Activation": FUNCTIONS,
    "keras.ActivityRegularization": NOTHING,
    "keras.Add": SAME,
    "keras.AlphaDropout": NOTHING,
    "keras.Average": SAME,
    "keras.AveragePooling1D": POOL,
    "keras.AveragePooling2D": POOL,
    "keras.BatchNormalization": "over channels, with the moving mean and variance",
    "keras.Concatenate": "of channels, on the last axis",
    "keras.Conv1D": CONV,
    "keras.Conv2D": CONV,
    "keras.Dense": DENSE,
    "keras.DepthwiseConv1D": DEPTHWISE,
    "keras.DepthwiseConv2D": DEPTHWISE,
    "keras.Dropout": NOTHING,
    "keras.ELU": "any alpha",
    "keras.Flatten": "to a vector; a QuantDense behind it reads the map itself",
    "keras.GaussianDropout": NOTHING,
    "keras.GaussianNoise": NOTHING,
    "keras.GlobalAveragePooling1D": GLOBAL,
    "keras.GlobalAveragePooling2D": GLOBAL,
    "keras.GlobalMaxPooling1D": GLOBAL,
    "keras.GlobalMaxPooling2D": GLOBAL,
    "keras.Lambda": "by the operations that it calls; reading it from a file needs --import or --trust-lambdas",
    "keras.LeakyReLU": "one slope for all channels",
    "keras.MaxPooling1D": POOL,
    "keras.MaxPooling2D": POOL,
    "keras.Multiply": f"{SAME}, or a map and a map of one pixel (squeeze and excite)",
    "keras.Normalization": "(x - mean) / deviation, set before training, or its inverse",
    "keras.PReLU": "one slope a channel (shared_axes=[1, 2]), or the same one for all pixels",
    "keras.Permute": "where it moves nothing, or shuffles channels",
    "keras.ReLU": "with any maximum and negative slope, and threshold 0",
    "keras.Rescaling": "x * scale + offset",
    "keras.Reshape": "where it moves nothing, or shuffles channels",
    "keras.SeparableConv1D": SEPARABLE,
    "keras.SeparableConv2D": SEPARABLE,
    "keras.SpatialDropout1D": NOTHING,
    "keras.SpatialDropout2D": NOTHING,
    "keras.Subtract": SAME,
    "keras.ZeroPadding1D": PADDING,
    "keras.ZeroPadding2D": PADDING,
    "larq.ApproxSign": "a sign",
    "larq.DoReFa": "levels in 0..1, in the mode 'activations' alone (the mode 'weights' is for kernels)",
    "larq.MagnitudeAwareSign": "as kernel quantizer alone, where it is a sign with a scale a channel",
    "larq.NoOp": "no quantizer",
    "larq.QuantConv1D": CONV,
    "larq.QuantConv2D": CONV,
    "larq.QuantDense": DENSE,
    "larq.QuantDepthwiseConv2D": DEPTHWISE,
    "larq.QuantSeparableConv1D": SEPARABLE,
    "larq.QuantSeparableConv2D": SEPARABLE,
    "larq.SteHeaviside": "1 above 0, otherwise 0",
    "larq.SteSign": "a sign",
    "larq.SteTern": "-1, 0 or 1, by a fixed threshold (ternary_weight_networks is for kernels)",
    "larq.SwishSign": "a sign",
}
OPERATORS = {"add": "x + y", "getitem": "x[..., a:b:c]"}  # of Python


def layer_rows() -> list[tuple[str, str]]:
    """Return (package.Layer, what it is exported as) for every layer class, sorted."""
    return [(name, DESCRIPTIONS[name]) for name in sorted(filter(None, map(_name, HANDLERS)))]


def refused_rows() -> list[tuple[str, str, str]]:
    """Return (package.Layer, why it is not exported, what to use instead), sorted."""
    return sorted((_name(kind), *reason) for kind, reason in REFUSED.items())


def operation_names() -> list[str]:
    """Return the TensorFlow operations that can stand between layers, as they are written, sorted."""
    own = "__operators__."
    return sorted(OPERATORS[n.removeprefix(own)] if n.startswith(own) else f"tf.{n}" for n in OPERATIONS)


def _name(kind: type) -> str:
    """larq.QuantConv2D; "" for the classes that Keras wraps around TensorFlow operations."""
    package = kind.__module__.split(".")[0]
    return "" if kind.__name__.endswith("OpLambda") or package not in SHOWN else f"{package}.{kind.__name__}"
