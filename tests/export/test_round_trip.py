# SPDX-License-Identifier: Apache-2.0
"""Keras == onnxruntime == imported graph, over the geometry and the layers that can be exported."""

from __future__ import annotations

import larq
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from bnngen import ir
from bnngen.export.config import real_images
from bnngen.frontend import load_onnx
from tests.export.networks import (
    BINARY,
    assert_same,
    binary_conv,
    export_and_run,
    head,
    info_for,
    layers,
    pixels_for,
    randomize,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Larq on missing kernel constraints

# Sizes: even and odd, both in one image, because TensorFlow pads "same" with stride 2 on one side only for
# even sizes; 3 strides over 8 leave a remainder.
GEOMETRY = [  # padding, pad_values, stride, kernel, dilation
    ("same", 0.0, 1, 3, 1),
    ("same", 1.0, 1, 3, 1),
    ("same", 0.0, 2, 3, 1),
    ("same", 1.0, 2, 3, 1),
    ("same", 1.0, 2, 2, 1),
    ("same", 0.0, 3, (5, 3), 1),
    ("same", 0.0, 2, 1, 1),
    ("valid", 0.0, 1, 3, 1),
    ("valid", 1.0, 2, (2, 3), 1),
    ("same", 0.0, 1, 3, 2),
    ("same", 1.0, 1, 3, 3),
    ("valid", 0.0, 1, 3, 2),
]


@pytest.mark.parametrize("geometry", GEOMETRY, ids=str)
def test_convolutions_of_every_geometry(tmp_path, geometry):
    """One binary and one real convolution of the same geometry side by side, each with its batch norm."""
    padding, pad_values, stride, kernel, dilation = geometry
    shape = dict(padding=padding, strides=stride, dilation_rate=dilation)
    image = layers.Input((8, 9, 3))
    stem = layers.BatchNormalization(name="bn")(layers.Conv2D(5, 1, name="stem")(image))
    bits = binary_conv(7, kernel, "binary", pad_values=pad_values, **shape)(stem)
    real = layers.Conv2D(7, kernel, name="real", activation="relu", **shape)(stem)
    x = layers.Add(name="sum")([layers.BatchNormalization(name="bits_bn")(bits), real])
    assert_same(export_and_run(randomize(tf.keras.Model(image, head(x)), 1), tmp_path))


def test_groups(tmp_path):
    image = layers.Input((6, 6, 4))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, groups=2, padding="same", name="real")(image))
    x = layers.BatchNormalization()(binary_conv(12, 3, "binary", groups=4, padding="same")(x))
    exported = export_and_run(randomize(tf.keras.Model(image, head(x)), 2), tmp_path)
    assert_same(exported)
    graph = load_onnx(exported.result.path)
    assert [node.groups for node in graph.of_type(ir.Conv2D, ir.BinaryConv2D)] == [2, 4]


def residual(image, name_classes: int = 4) -> tf.keras.Model:
    """Two residual blocks, ReLU fused before the batch norm; max pooling and a 1x1 transition in between."""
    x = layers.BatchNormalization(name="stem_bn")(layers.Conv2D(8, 3, strides=2, padding="same", name="stem")(image))
    for block in ("a", "b"):
        y = binary_conv(8, 3, f"{block}_conv", padding="same", pad_values=1.0, activation="relu")(x)
        x = layers.Add(name=f"{block}_add")([x, layers.BatchNormalization(name=f"{block}_bn")(y)])
    x = layers.MaxPooling2D(2, name="max")(layers.ReLU(name="relu")(x))
    x = layers.BatchNormalization(name="wide_bn")(layers.Conv2D(16, 1, use_bias=False, name="wide")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    scores = layers.Softmax(name="scores")(layers.Dense(name_classes, name="logits")(x))
    return randomize(tf.keras.Model(image, scores), 3)


def test_residual_network_and_what_is_reported(tmp_path):
    exported = export_and_run(residual(layers.Input((9, 8, 1))), tmp_path)
    assert_same(exported)
    result = exported.result
    assert result.cut == result.features == "pool" and result.cut_shape == (16,)
    assert result.latent_bytes == 4 and result.capacity == 10
    assert result.file_bytes == result.path.stat().st_size
    assert result.check.images == 24 and result.check.agreement == 1.0 and result.check.max_difference < 1e-4


def test_scores_are_before_softmax_however_it_is_spelled(tmp_path):
    for last in ([layers.Dense(4), layers.Softmax()], [layers.Dense(4), layers.Activation("softmax")],
                 [layers.Dense(4, activation="softmax")]):  # fmt: skip
        model = tf.keras.Sequential([layers.Input((4, 4, 1)), layers.Flatten(), *last])
        exported = export_and_run(randomize(model, 4), tmp_path)
        assert_same(exported)
        assert exported.keras.min() < 0, "these are probabilities"


@pytest.mark.parametrize("quantizer", ["ste_sign", "approx_sign", "swish_sign", "magnitude_aware_sign"])
def test_kernel_quantizers_and_bias(tmp_path, quantizer):
    """The bias of a binary convolution, in front of a batch norm and of a ReLU."""
    image = layers.Input((6, 5, 2))
    options = {"padding": "same", "kernel_quantizer": quantizer, "use_bias": True}
    x = binary_conv(6, 3, "first", input_quantizer="approx_sign", **options)(image)
    x = layers.BatchNormalization(name="bn")(x)
    x = binary_conv(6, 3, "second", activation="relu", **options)(x)
    exported = export_and_run(randomize(tf.keras.Model(image, head(x)), 5), tmp_path)
    assert_same(exported)
    graph = load_onnx(exported.result.path)
    scaled = [node.kernel_scale is not None for node in graph.of_type(ir.BinaryConv2D)]
    assert scaled == [quantizer == "magnitude_aware_sign"] * 2
    norms = {node.name: node for node in graph.of_type(ir.BatchNorm)}
    assert set(norms) == {"bn", "second/add_bias"}, "the batch norm absorbs the bias in front of it"


def test_signs_as_layers_and_pooling_of_bits(tmp_path):
    image = layers.Input((8, 8, 2))
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, name="stem")(image))
    x = larq.quantizers.SteSign(name="sign")(x)
    x = layers.MaxPooling2D(2, name="max_of_bits")(x)
    x = larq.layers.QuantConv2D(8, 2, kernel_quantizer="ste_sign", use_bias=False, name="conv")(x)
    exported = export_and_run(randomize(tf.keras.Model(image, head(x)), 6), tmp_path)
    assert_same(exported)
    graph = load_onnx(exported.result.path)
    assert graph.tensors["sign"].dtype == graph.tensors["max_of_bits"].dtype == ir.BITS
    assert len(list(graph.of_type(ir.Sign))) == 1


@pytest.mark.parametrize(("padding", "pool", "stride"), [("same", 3, 2), ("same", 2, 3), ("valid", 3, 2)])
def test_pooling(tmp_path, padding, pool, stride):
    image = layers.Input((8, 9, 2))
    x = layers.Conv2D(4, 1)(image)
    x = layers.MaxPooling2D(pool, stride, padding=padding)(x)
    x = layers.AveragePooling2D(2, 1)(x)
    assert_same(export_and_run(randomize(tf.keras.Model(image, head(x)), 7), tmp_path))


def test_zero_padding_is_folded_into_convolutions(tmp_path):
    """In front of a sign the zeros become +1; around bits they stay 0."""
    image = layers.Input((5, 6, 2))
    x = layers.Conv2D(6, 3, strides=2, name="real")(layers.ZeroPadding2D(((1, 0), (2, 1)))(image))
    x = binary_conv(6, 3, "before_sign")(layers.ZeroPadding2D(1)(x))
    x = layers.ZeroPadding2D(1)(larq.quantizers.SteSign()(x))
    x = larq.layers.QuantConv2D(4, 3, kernel_quantizer="ste_sign", use_bias=False, name="around_bits")(x)
    exported = export_and_run(randomize(tf.keras.Model(image, head(x)), 8), tmp_path)
    assert_same(exported)
    graph = load_onnx(exported.result.path)
    real, *binary = graph.of_type(ir.Conv2D, ir.BinaryConv2D)
    assert real.window.pads == (1, 2, 0, 1)
    assert [node.pad_value for node in binary] == [1, 0]


def test_binary_dense_layers(tmp_path):
    image = layers.Input((4, 5, 3))
    x = layers.BatchNormalization()(layers.Conv2D(3, 1)(image))
    x = layers.Flatten()(x)
    x = larq.layers.QuantDense(16, use_bias=True, name="one", **BINARY)(x)
    x = layers.BatchNormalization(name="one_bn")(x)
    x = larq.layers.QuantDense(12, activation="relu", name="two", **BINARY)(x)
    x = layers.BatchNormalization(name="two_bn")(layers.Dropout(0.5)(x))
    exported = export_and_run(randomize(tf.keras.Model(image, layers.Dense(4)(x)), 9), tmp_path)
    assert_same(exported)
    assert exported.result.cut == "two_bn" and exported.result.cut_shape == (12,)


def test_vectors_batch_norm_and_global_maximum(tmp_path):
    image = layers.Input((4, 4, 2))
    x = layers.GlobalMaxPooling2D(name="max")(layers.Conv2D(6, 3)(image))
    x = layers.Add()([x, layers.Dense(6, activation="relu")(x), layers.ReLU()(x)])
    x = layers.BatchNormalization()(x)
    flat = layers.BatchNormalization(name="every_element")(layers.Flatten()(image))
    x = layers.Add()([x, layers.Dense(6)(flat)])
    assert_same(export_and_run(randomize(tf.keras.Model(image, layers.Dense(4)(x)), 10), tmp_path))


def test_nested_models(tmp_path):
    """Layers of a nested model stand in their place; where names collide, the model's name comes first."""
    inner = tf.keras.Sequential([layers.Input((6, 6, 4)), layers.Conv2D(4, 3, name="conv"), layers.ReLU()], name="in")
    image = layers.Input((6, 6, 1))
    x = inner(layers.Conv2D(4, 1, name="conv")(image))
    exported = export_and_run(randomize(tf.keras.Model(image, head(x)), 11), tmp_path)
    assert_same(exported)
    assert [node.name for node in load_onnx(exported.result.path).of_type(ir.Conv2D)] == ["conv", "in/conv"]


def test_plain_onnxruntime_runs_the_file(tmp_path):
    """With all its optimizations, and knowing nothing of bnngen."""
    exported = export_and_run(residual(layers.Input((8, 8, 1))), tmp_path)
    session = onnxruntime.InferenceSession(exported.result.path, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["image"]
    assert [value.name for value in session.get_outputs()] == ["scores"]
    x = np.random.default_rng(6).integers(0, 256, (9, 8, 8, 1)).astype(np.uint8)
    scores = session.run(None, {"image": real_images(x, info_for())})[0]
    np.testing.assert_allclose(scores, exported.keras, atol=1e-4)


def test_same_model_same_bytes(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        export_and_run(residual(layers.Input((8, 8, 1), name="image")), folder)
    assert (first / "model.onnx").read_bytes() == (second / "model.onnx").read_bytes()


def test_ranges_and_levels_are_those_of_keras(tmp_path):
    """Every channel's range equals the minimum and maximum that Keras computes itself."""
    model = residual(layers.Input((8, 8, 1)))
    exported = export_and_run(model, tmp_path, cut="a_add")
    meta = load_onnx(exported.result.path).meta
    names = ["stem", "stem_bn", "a_conv", "a_bn", "b_add", "max", "pool"]
    taps = tf.keras.Model(model.input, [model.get_layer(name).output for name in names + ["a_add"]])
    *values, cut = (v.numpy() for v in taps(real_images(pixels_for(model), info_for())))
    for name, value in zip(names, values, strict=True):
        axes, seen = tuple(range(value.ndim - 1)), meta.ranges[name]
        np.testing.assert_allclose(seen.lo, value.min(axis=axes), atol=1e-4)
        np.testing.assert_allclose(seen.hi, value.max(axis=axes), atol=1e-4)
        assert (np.array(seen.clip) <= seen.reach).all() and (np.array(seen.clip) >= seen.reach / 4).all()
    assert meta.latent.tensor == "a_add" and exported.result.latent_bytes == 4 * 4 * 4
    assert set(meta.latent.threshold) == {0.0}  # the next block reads the cut's signs
    for c, (low, high) in enumerate(zip(meta.latent.low, meta.latent.high, strict=True)):
        channel = cut[..., c]
        sides = channel[channel < 0], channel[channel >= 0]
        assert low < 0 <= high
        assert not len(sides[0]) or abs(low - sides[0].mean()) < 1e-3
        assert not len(sides[1]) or abs(high - sides[1].mean()) < 1e-3
    features = values[names.index("pool")]
    assert (meta.head.tensor, meta.head.capacity) == ("pool", 10)
    np.testing.assert_allclose((meta.head.lo, meta.head.hi), (min(0.0, features.min()), features.max()), atol=1e-4)
    roots = np.sign(features) * np.sqrt(np.abs(features))
    assert meta.head.map.root
    np.testing.assert_allclose(meta.head.map.mean, roots.mean(axis=0), atol=1e-3)
    away = roots - roots.mean(axis=0)
    outside = ((away < meta.head.map.lo - 1e-3) | (away > meta.head.map.hi + 1e-3)).mean()
    assert meta.head.map.lo < 0 < meta.head.map.hi and outside < 0.01


def test_levels_at_the_features_are_means_of_roots(tmp_path):
    model = residual(layers.Input((8, 8, 1)))
    meta = load_onnx(export_and_run(model, tmp_path, cut="pool").result.path).meta
    tap = tf.keras.Model(model.input, model.get_layer("pool").output)
    features = tap(real_images(pixels_for(model), info_for())).numpy().astype(np.float64)
    roots = np.sign(features) * np.sqrt(np.abs(features))
    root = {name: np.sign(v) * np.sqrt(np.abs(v)) for name in ("threshold", "low", "high")
            for v in [np.array(getattr(meta.latent, name))]}  # fmt: skip
    for c, channel in enumerate(roots.T):
        below = channel < root["threshold"][c]
        if below.any() and not below.all():
            assert abs(root["low"][c] - channel[below].mean()) < 1e-3
            assert abs(root["high"][c] - channel[~below].mean()) < 1e-3
            assert abs(root["threshold"][c] - (root["low"][c] + root["high"][c]) / 2) < 1e-6


def test_a_flattened_map_has_one_range(tmp_path):
    image = layers.Input((4, 5, 3))
    x = layers.Conv2D(3, 1, name="conv")(image)
    exported = export_and_run(randomize(tf.keras.Model(image, head(x)), 12), tmp_path)
    ranges = load_onnx(exported.result.path).meta.ranges
    assert len(ranges["conv"].lo) == 3
    assert ranges["flat"].lo == (min(ranges["conv"].lo),) and ranges["flat"].hi == (max(ranges["conv"].hi),)


@pytest.mark.parametrize("method", ["mse", "percentile", "minmax"])
def test_the_method_of_calibration_is_in_the_file(tmp_path, method):
    exported = export_and_run(residual(layers.Input((8, 8, 1))), tmp_path, method=method)
    meta = load_onnx(exported.result.path).meta
    assert meta.source["calibration_method"] == method
    assert {len(seen.clip) > 0 for seen in meta.ranges.values()} == {method != "minmax"}


def test_a_model_that_does_not_end_in_dense_is_for_inference(tmp_path):
    """The default says so and goes on; who asked for a cut gets an error (test_refusals.py)."""
    image = layers.Input((6, 6, 2))
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, name="conv")(image))
    model = randomize(tf.keras.Model(image, layers.GlobalAveragePooling2D(name="pool")(x)), 13)
    exported = export_and_run(model, tmp_path)
    assert_same(exported)
    result = exported.result
    assert result.cut is None and result.features is None and result.capacity == 0
    assert "does not end in a Dense layer" in result.note and "inference" in result.note
    meta = load_onnx(result.path).meta
    assert meta.latent is None and meta.head is None
