# SPDX-License-Identifier: Apache-2.0
"""Element-wise layers and functions, and layers that join two tensors."""

from __future__ import annotations

import larq
import numpy as np
import pytest
import tensorflow as tf

from bnngen import ir
from bnngen.train.layers import BitPlanes, DPReLU, LearnedShift, RPReLU, Thermometer
from tests.export.layerwise import compare, fill
from tests.export.test_layers_convolutions import SIGNS, fresh_names, model_of, quant, stem  # noqa: F401

layers = tf.keras.layers

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")

FUNCTIONS = (
    "relu", "sigmoid", "tanh", "hard_sigmoid", "swish", "elu", "selu", "linear", "hard_tanh", "leaky_tanh",
    larq.quantizers.ste_sign, tf.nn.relu6, tf.nn.leaky_relu, tf.nn.silu, tf.sign, larq.math.sign, larq.math.heaviside,
)  # fmt: skip


def clipped(x: tf.Tensor) -> tf.Tensor:
    """A user's own function, of what is not in the table by itself."""
    return tf.minimum(tf.maximum(x * 0.5 + 0.25, 0.0), 1.0)


def hard_swish(x: tf.Tensor) -> tf.Tensor:
    return x * tf.nn.relu6(x + 3.0) / 6.0


def test_activations_as_names_functions_and_arguments(tmp_path):
    """As a layer, inside a convolution, and on vectors."""
    image, x = stem()
    pooled = layers.GlobalAveragePooling2D(name="pool")(x)
    branches = []
    for i, function in enumerate((*FUNCTIONS, clipped, hard_swish)):
        branches.append(layers.Activation(function, name=f"layer_{i}")(x))
        branches.append(layers.Conv2D(3, 1, activation=function, name=f"conv_{i}")(x))
        branches.append(layers.Dense(3, activation=function, name=f"dense_{i}")(pooled))
    branches.append(quant.QuantConv2D(3, 2, activation=clipped, name="bits", **SIGNS)(x))
    compared = compare(model_of(image, branches), tmp_path)
    missing = {f"layer_{i}" for i in range(len(FUNCTIONS) + 2)} - set(compared.layers)
    unseen = (larq.quantizers.ste_sign, larq.math.sign, "linear")  # bits, and what changes nothing
    binary = {f"layer_{i}" for i, function in enumerate(FUNCTIONS) if function in unseen}
    assert missing <= binary
    assert len({node.kind for node in compared.graph.of_type(ir.Unary)}) >= 5


def test_slopes_limits_and_batch_norms(tmp_path):
    image, x = stem()
    y = layers.Conv2D(6, 3, 2, name="other")(x)
    branches = [
        layers.ReLU(name="relu")(x),
        layers.ReLU(max_value=0.75, name="relu_max")(x),
        layers.ReLU(negative_slope=0.25, name="relu_slope")(x),
        layers.ReLU(max_value=1.0, negative_slope=0.125, name="relu_both")(x),
        layers.LeakyReLU(0.2, name="leaky")(x),
        layers.PReLU(shared_axes=[1, 2], name="prelu")(x),
        layers.PReLU(shared_axes=[1, 2, 3], name="prelu_one")(x),
        layers.ELU(name="elu")(x),
        layers.ELU(0.5, name="elu_half")(x),
        layers.BatchNormalization(scale=False, name="no_scale")(y),
        layers.BatchNormalization(center=False, axis=[3], name="no_center")(y),
        layers.Rescaling(0.5, offset=[0.25, 0, -1, 2, 3, 4], name="rescaling")(x),
        layers.GaussianNoise(0.5, name="noise")(layers.Dropout(0.5)(x)),
        layers.ActivityRegularization(name="regular")(x),
        LearnedShift(name="shift")(x),
        RPReLU(name="rprelu")(x),
        DPReLU(name="dprelu")(x),
        larq.quantizers.DoReFa(2, name="dorefa")(x),
        larq.quantizers.SteTern(0.3, name="ternary")(x),
        larq.quantizers.SteHeaviside(name="heaviside")(x),
        larq.quantizers.NoOp(1, name="noop")(x),
    ]
    for i, source in enumerate((layers.Flatten()(y), layers.GlobalMaxPooling2D()(x))):
        branches += [
            layers.PReLU(name=f"prelu_v{i}")(source),
            layers.BatchNormalization(name=f"norm_v{i}")(source),
            LearnedShift(name=f"shift_v{i}")(source),
            RPReLU(name=f"rprelu_v{i}")(source),
            DPReLU(name=f"dprelu_v{i}")(source),
            layers.ELU(0.5, name=f"elu_v{i}")(source),
            layers.ReLU(6.0, name=f"relu_v{i}")(source),
            larq.quantizers.SteTern(0.3, name=f"ternary_v{i}")(source),
        ]
    compared = compare(model_of(image, branches), tmp_path)
    names = {branch._keras_history.layer.name for branch in branches}
    assert names <= set(compared.layers)


def test_two_tensors(tmp_path):
    """Sums, products, differences; squeeze and excite by every way to make the factor."""
    image, x = stem()
    y = layers.Conv2D(6, 1, activation="relu", name="other")(x)
    pooled = layers.GlobalAveragePooling2D(name="pool")(x)
    gate = layers.Dense(6, activation="sigmoid", name="gate")(
        layers.Dense(3, activation="relu", name="squeeze")(pooled)
    )
    by_conv = layers.Conv2D(6, 1, activation="sigmoid", name="gate_conv")(
        layers.Conv2D(3, 1, name="squeeze_conv")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    )
    bits = larq.quantizers.SteSign(name="bits")(x)
    branches = [
        layers.Add(name="sum")([x, y, x]),
        layers.Subtract(name="difference")([x, y]),
        layers.Average(name="average")([x, y]),
        layers.Multiply(name="product")([x, y]),
        layers.Multiply(name="excite")([x, layers.Reshape((1, 1, 6), name="factor")(gate)]),
        layers.Multiply(name="excite_conv")([by_conv, y]),
        layers.Multiply(name="excite_max")([y, layers.GlobalMaxPooling2D(keepdims=True)(x)]),
        layers.Multiply(name="vectors")([pooled, gate]),
        layers.Add(name="vector_sum")([pooled, gate]),
        layers.Add(name="with_bits")([x, bits]),
        layers.Multiply(name="bits_product")([bits, y]),
        layers.Concatenate(name="maps")([x, y, x]),
        layers.Concatenate(name="mixed")([bits, y]),
        layers.MaxPooling2D(2, name="of_bits")(layers.Concatenate(name="all_bits")([bits, bits])),
        layers.Conv2D(3, 3, name="real_on_bits")(bits),
        layers.AveragePooling2D(2, name="mean_of_bits")(bits),
        layers.BatchNormalization(name="norm_of_bits")(bits),
        layers.Activation("relu", name="relu_of_bits")(bits),
        quant.QuantConv2D(3, 2, input_quantizer="ste_heaviside", kernel_quantizer="ste_sign", name="levels_of_bits")(
            bits
        ),
        layers.Dense(3, name="dense_on_bits")(layers.Flatten(name="flat_bits")(bits)),
        layers.Add(name="flat_sum")([layers.Flatten(name="flat_x")(x), layers.Flatten(name="flat_y")(y)]),
    ]
    compared = compare(model_of(image, branches), tmp_path)
    assert {"sum", "excite", "excite_conv", "excite_max", "mixed", "flat_sum"} <= set(compared.layers)
    assert len(list(compared.graph.of_type(ir.Mul))) == 6


def test_signs_of_zero(tmp_path):
    """0 and -0.0 are +1 for Larq's signs; for TensorFlow's own sign, 0 is 0."""
    image = layers.Input((4, 4, 2))
    zero = layers.ReLU(name="zero")(layers.Rescaling(-0.0, name="minus_zero")(image))
    plus = quant.QuantConv2D(3, 3, padding="same", name="larq", **SIGNS)(zero)
    none = quant.QuantConv2D(3, 3, padding="same", input_quantizer=tf.sign, kernel_quantizer="ste_sign", name="tf")(
        zero
    )
    minus = quant.QuantConv2D(3, 3, name="negative", **SIGNS)(layers.Rescaling(-0.0, name="negative_zero")(image))
    x = layers.Flatten()(layers.Concatenate()([plus, none]))
    x = layers.Concatenate()([x, layers.Flatten()(minus)])
    model = fill(tf.keras.Model(image, layers.Dense(4)(x)), 1)
    for layer in ("larq", "tf", "negative"):
        model.get_layer(layer).kernel.latent_variable.assign(np.ones((3, 3, 2, 3), np.float32))
    # the scores do not depend on the image: a bias of each class tells them apart
    compare(model, tmp_path)


@pytest.mark.parametrize("encoding", [Thermometer(levels=5, name="code"), BitPlanes(bits=3, name="code")])
def test_input_encodings(tmp_path, encoding):
    image = layers.Input((6, 5, 3), name="image")
    x = layers.BatchNormalization(name="bn")(quant.QuantConv2D(7, 3, name="first", **SIGNS)(encoding(image)))
    compared = compare(fill(tf.keras.Model(image, layers.Dense(4)(layers.Flatten()(x))), 2), tmp_path)
    assert [type(node) for node in compared.graph.nodes][:2] == [ir.Encode, ir.BinaryConv2D]
