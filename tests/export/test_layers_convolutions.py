# SPDX-License-Identifier: Apache-2.0
"""Convolutions and dense layers: every class, with every mixture of quantizers."""

from __future__ import annotations

import larq
import numpy as np
import pytest
import tensorflow as tf

from bnngen import ir
from bnngen.export.keras_model import as_float32
from tests.export.layerwise import compare, fill

layers, quant = tf.keras.layers, larq.layers
SIGNS = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
DEPTHWISE_SIGNS = {"input_quantizer": "approx_sign", "depthwise_quantizer": "ste_sign"}

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


@pytest.fixture(autouse=True)
def fresh_names():
    tf.keras.backend.clear_session()


def stem(shape: tuple[int, ...] = (8, 9, 3), channels: int = 6) -> tuple[tf.Tensor, tf.Tensor]:
    image = layers.Input(shape, name="image")
    conv = layers.Conv2D if len(shape) == 3 else layers.Conv1D
    return image, layers.BatchNormalization(name="bn")(conv(channels, 1, name="stem")(image))


def model_of(image: tf.Tensor, branches: list[tf.Tensor], seed: int = 1) -> tf.keras.Model:
    """All branches side by side: each is pooled, and the scores read all of them."""
    pool = layers.GlobalAveragePooling2D if len(image.shape) == 4 else layers.GlobalAveragePooling1D
    vectors = [branch if len(branch.shape) == 2 else pool()(branch) for branch in branches]
    x = layers.Concatenate(name="joined")(vectors) if len(vectors) > 1 else vectors[0]
    return fill(tf.keras.Model(image, layers.Dense(4, name="logits")(x)), seed)


def xnor_scale(kernel: tf.Tensor) -> tf.Tensor:
    """XNOR-Net's quantizer: clipped weights, the mean of their absolute values for each filter."""
    kernel = tf.clip_by_value(kernel, -1, 1)
    return tf.reduce_mean(tf.abs(kernel), axis=[0, 1, 2], keepdims=True) * larq.quantizers.ste_sign(kernel)


def kernel_quantizers() -> dict[str, object]:
    return {
        "none": None,
        "sign": "ste_sign",
        "approx": "approx_sign",
        "swish": "swish_sign",
        "magnitude": "magnitude_aware_sign",
        "xnor": xnor_scale,
        "ternary": "ste_tern",
        "twn": larq.quantizers.SteTern(ternary_weight_networks=True),
        "dorefa": larq.quantizers.DoReFa(3, mode="weights"),
        "heaviside": "ste_heaviside",
        "plain": tf.sign,
        "noop": larq.quantizers.NoOp(precision=1),
    }


BINARY_KERNELS = {"sign": False, "approx": False, "swish": False, "magnitude": True, "xnor": True}  # with a scale


@pytest.mark.parametrize(
    "make_input",
    [lambda: None, lambda: "ste_sign", lambda: "ste_heaviside", lambda: larq.quantizers.SteTern(0.25),
     lambda: larq.quantizers.DoReFa(2), lambda: tf.sign],
    ids=["none", "sign", "heaviside", "ternary", "dorefa", "plain sign"],
)  # fmt: skip
def test_every_mixture_of_quantizers(tmp_path, make_input):
    """Only signs on signs are binary convolutions; every padding value is exact for all of them."""
    image, x = stem()
    values = {}
    for name, kernel in kernel_quantizers().items():
        for pad in (0.0, 1.0, -1.0) if name in ("none", "sign", "ternary") else (0.0,):
            values[f"{name}_{pad:+g}"] = quant.QuantConv2D(
                4, (3, 2), 2, padding="same", pad_values=pad, input_quantizer=make_input(), kernel_quantizer=kernel,
                use_bias=True, name=f"{name}_{['none', 'plus', 'minus'][int(pad)]}",
            )(x)  # fmt: skip
    compared = compare(model_of(image, list(values.values())), tmp_path)
    assert len(compared.layers) >= len(values)
    binary = {node.name.split("_")[0]: node for node in compared.graph.of_type(ir.BinaryConv2D)}
    assert set(binary) == (set(BINARY_KERNELS) if make_input() == "ste_sign" else set())
    for name, node in binary.items():
        assert (node.kernel_scale is not None) == BINARY_KERNELS[name]


def test_depthwise_and_separable(tmp_path):
    image, x = stem()
    options = {"padding": "same", "use_bias": True}
    branches = [
        layers.DepthwiseConv2D(3, 2, depth_multiplier=2, activation="relu", name="real", **options)(x),
        layers.DepthwiseConv2D((2, 3), dilation_rate=2, name="dilated", **options)(x),
        quant.QuantDepthwiseConv2D(3, depth_multiplier=3, pad_values=1.0, name="binary", **DEPTHWISE_SIGNS, **options)(
            x
        ),
        quant.QuantDepthwiseConv2D(3, depthwise_quantizer="magnitude_aware_sign", name="kernel", **options)(x),
        quant.QuantDepthwiseConv2D(3, input_quantizer="ste_sign", name="input", **options)(x),
        layers.SeparableConv2D(7, 3, 2, depth_multiplier=2, activation="tanh", name="separable", **options)(x),
        quant.QuantSeparableConv2D(
            7, 3, pad_values=1.0, pointwise_quantizer="ste_sign", name="all", **DEPTHWISE_SIGNS, **options
        )(x),
        quant.QuantSeparableConv2D(7, (5, 2), dilation_rate=2, pointwise_quantizer="ste_tern", name="point", **options)(
            x
        ),
    ]
    compared = compare(model_of(image, branches), tmp_path)
    binary = {node.name: node.groups for node in compared.graph.of_type(ir.BinaryConv2D)}
    assert binary == {"binary": 6, "all/depthwise": 6}


def test_sequences(tmp_path):
    """One dimension: everything is a map of width 1."""
    image, x = stem((13, 4), 5)
    options = {"padding": "same", "use_bias": True}
    branches = [
        layers.Conv1D(6, 3, 2, activation="relu", name="real", **options)(x),
        layers.Conv1D(6, 4, padding="causal", dilation_rate=2, name="causal")(x),
        layers.Conv1D(10, 3, groups=5, name="groups", **options)(x),
        quant.QuantConv1D(6, 3, pad_values=1.0, name="one", **SIGNS, **options)(x),
        quant.QuantConv1D(6, 4, name="zero", **SIGNS, **options)(layers.ZeroPadding1D((1, 2))(x)),
        quant.QuantConv1D(6, 4, padding="causal", name="causal_bits", **SIGNS)(x),
        layers.DepthwiseConv1D(3, depth_multiplier=2, name="depthwise", **options)(x),
        layers.SeparableConv1D(6, 3, depth_multiplier=2, name="separable", **options)(x),
        quant.QuantSeparableConv1D(
            6, 3, name="separable_bits", pointwise_quantizer="ste_sign", **DEPTHWISE_SIGNS, **options
        )(x),
        layers.MaxPooling1D(3, 2, padding="same", name="max")(x),
        layers.AveragePooling1D(3, 2, padding="same", name="average")(x),
        layers.GlobalMaxPooling1D(name="largest")(x),
        layers.GlobalAveragePooling1D(keepdims=True, name="mean")(x),
        layers.PReLU(shared_axes=[1], name="prelu")(layers.SpatialDropout1D(0.5)(x)),
        layers.Flatten(name="flat")(layers.Dense(3, activation="relu", name="each")(x)),
        quant.QuantDense(6, name="all", **SIGNS)(layers.Flatten(name="flat_2")(x)),
    ]
    compared = compare(model_of(image, branches), tmp_path)
    assert {"real", "causal", "zero", "separable_bits", "largest", "mean", "each", "all"} <= set(compared.layers)


def test_dense_layers_everywhere(tmp_path):
    """On maps, on pooled vectors, behind Flatten, behind each other, and last."""
    image, x = stem()
    pooled = layers.GlobalAveragePooling2D(name="pool")(x)
    flat = layers.Flatten(name="flat")(x)
    vectors = []
    for name, source in (("pooled", pooled), ("flat", flat)):
        for kind, options in (
            ("both", SIGNS),
            ("scaled", {**SIGNS, "kernel_quantizer": "magnitude_aware_sign"}),
            ("input", {"input_quantizer": "ste_sign"}),
            ("kernel", {"kernel_quantizer": "ste_tern"}),
            ("dorefa", {"input_quantizer": larq.quantizers.DoReFa(2), "kernel_quantizer": "ste_sign"}),
        ):
            y = quant.QuantDense(5, activation="relu", name=f"{name}_{kind}", **options)(source)
            vectors.append(layers.BatchNormalization(name=f"{name}_{kind}_bn")(y))
        vectors.append(layers.Dense(5, activation="sigmoid", name=f"{name}_real")(source))
    branches = [
        *vectors,
        layers.Dense(4, activation="relu", name="map")(x),
        quant.QuantDense(4, name="map_bits", **SIGNS)(x),
        quant.QuantDense(4, name="behind_bits", **SIGNS)(vectors[0]),
    ]
    y = layers.BatchNormalization(name="last_bn")(layers.Concatenate(name="joined")(
        [v if len(v.shape) == 2 else layers.GlobalAveragePooling2D()(v) for v in branches]))  # fmt: skip
    model = fill(tf.keras.Model(image, quant.QuantDense(4, name="logits", **SIGNS)(y)), 3)
    compared = compare(model, tmp_path)
    assert isinstance(compared.graph.nodes[-1], (ir.Flatten, ir.BinaryConv2D)), "no Dense layer is last"


@pytest.mark.parametrize("kernel", [1, 2, 5, 12])
def test_sizes_of_kernels(tmp_path, kernel):
    """1 to 12, with what is even and what is odd, real-valued and binary side by side."""
    image, x = stem((13, 14, 2), 3)
    branches = [
        make(
            4, (kernel, max(1, kernel - 1)), padding=padding, strides=stride, name=f"{padding}_{stride}_{i}", **options
        )(x)
        for padding in ("same", "valid")
        for stride in (1, 3)
        for i, (make, options) in enumerate(((layers.Conv2D, {}), (quant.QuantConv2D, SIGNS)))
    ]
    compare(model_of(image, branches), tmp_path)


def test_padding_that_nothing_takes_is_computed(tmp_path):
    """In front of pools, batch norms and sums, around bits, beside the layer's own padding, and of another value."""
    image, x = stem()
    pad = layers.ZeroPadding2D(((1, 2), (0, 1)), name="pad")(x)
    bits = layers.ZeroPadding2D(1, name="around")(larq.quantizers.SteSign(name="bits")(x))
    branches = [
        layers.MaxPooling2D(3, 2, name="max")(pad),
        layers.AveragePooling2D(2, name="average")(pad),
        layers.BatchNormalization(name="norm")(pad),
        layers.Add(name="sum")([pad, layers.ReLU(name="relu")(pad)]),
        quant.QuantConv2D(4, 3, padding="same", name="two_paddings", **SIGNS)(pad),
        quant.QuantConv2D(4, 3, name="signs", **SIGNS)(pad),
        quant.QuantConv2D(4, 3, input_quantizer="ste_sign", name="sign_of_zero", kernel_quantizer="ste_sign")(bits),
        quant.QuantConv2D(4, 3, kernel_quantizer="ste_sign", name="zero_counts", use_bias=False)(bits),
        quant.QuantConv2D(4, 3, name="ones", **SIGNS)(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=1.0)),
        layers.Conv2D(4, 3, name="of_a_pair")(layers.ZeroPadding2D(1)(layers.ZeroPadding2D((0, 1))(x))),
        layers.GlobalMaxPooling2D(name="largest")(pad),
        layers.Dense(3, name="flat")(layers.Flatten()(pad)),
    ]
    compared = compare(model_of(image, branches), tmp_path)
    assert {"max", "average", "norm", "sum", "two_paddings", "sign_of_zero", "zero_counts"} <= set(compared.layers)


def test_groups_that_are_binary_or_real(tmp_path):
    image, x = stem((6, 6, 2), 12)
    branches = [
        make(24, 3, groups=groups, padding="same", name=f"{make.__name__}_{groups}", **options)(x)
        for groups in (2, 3, 12)
        for make, options in ((layers.Conv2D, {}), (quant.QuantConv2D, SIGNS))
    ]
    compared = compare(model_of(image, branches), tmp_path)
    assert sorted(node.groups for node in compared.graph.of_type(ir.BinaryConv2D)) == [2, 3, 12]


def test_mixed_precision_becomes_float32(tmp_path):
    """The file computes what the same weights compute in float32."""
    image, policy = layers.Input((6, 6, 2)), tf.keras.mixed_precision.Policy("mixed_bfloat16")
    x = layers.BatchNormalization(dtype=policy)(layers.Conv2D(5, 3, dtype=policy, name="stem")(image))
    x = quant.QuantConv2D(6, 3, name="conv", dtype="float32", **SIGNS)(x)  # Larq's weights do not follow a policy
    x = layers.GlobalAveragePooling2D(dtype=policy)(x)
    model = fill(tf.keras.Model(image, layers.Dense(4, dtype="float32", name="logits")(x)), 4)
    single = as_float32(model)
    assert {layer.compute_dtype for layer in single.layers} == {"float32"}
    for here, there in zip(model.get_weights(), single.get_weights(), strict=True):
        np.testing.assert_array_equal(here, there)
    compare(single, tmp_path)
    assert as_float32(single) is single
