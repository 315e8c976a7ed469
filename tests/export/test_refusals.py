# SPDX-License-Identifier: Apache-2.0
"""What cannot be exported: one clear error each, which names the layer or file, and no file left behind."""

from __future__ import annotations

import json

import larq
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from bnngen.cli.model import export
from bnngen.errors import BnngenError, DataError, ModelError, UsageError
from bnngen.export import export_model, run_keras, run_onnx
from bnngen.export.config import Calibration, ExportConfig, read_calibration, read_info
from bnngen.export.keras_graph import build_graph
from bnngen.train.layers import Thermometer
from tests.export.networks import head, info_for, layers, pixels_for, silent

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


@pytest.fixture(autouse=True)
def fresh_names():
    tf.keras.backend.clear_session()


def image(height: int | None = 6, width: int = 6, channels: int = 2) -> tf.Tensor:
    return layers.Input((height, width, channels), name="image")


def network(*between: tf.keras.layers.Layer, last: tuple = ()) -> tf.keras.Model:
    x = start = image()
    for layer in between:
        x = layer(x)
    return tf.keras.Model(start, head(x))


def refuse(model: tf.keras.Model, folder, **config) -> BnngenError:
    """Export must fail, and leave nothing."""
    path, out = folder / "model.keras", folder / "model.onnx"
    model.save(path)
    values = {"calibration": Calibration(np.zeros((3, 6, 6, 2), np.uint8)), "info": info_for(), **config}
    with pytest.raises(BnngenError) as caught:
        export_model(ExportConfig(path, out, **values), silent)
    assert [entry.name for entry in folder.iterdir()] == ["model.keras"]
    assert caught.value.message and (caught.value.where or caught.value.fix)
    return caught.value


quant = larq.layers

UNSUPPORTED = {
    "activation": (lambda: [layers.Conv2D(2, 3, activation="softplus", name="bad")], "activation softplus"),
    "softmax inside": (lambda: [layers.Conv2D(2, 3, activation="softmax", name="bad")], "in the middle"),
    "softmax layer": (lambda: [layers.Softmax(name="bad")], "Softmax layers are not supported"),
    "relu with a threshold": (lambda: [layers.ReLU(threshold=0.5, name="bad")], "a ReLU with the threshold 0.5"),
    "thresholded relu": (lambda: [layers.ThresholdedReLU(0.5, name="bad")], "ThresholdedReLU layers"),
    "prelu of pixels": (lambda: [layers.PReLU(alpha_initializer=DIFFERENT, name="bad")], "slopes of shape [6, 6, 2]"),
    "twn on activations": (
        lambda: [larq.quantizers.SteTern(ternary_weight_networks=True, name="bad")],
        "SteTern with ternary_weight_networks is not supported on activations",
    ),
    "dorefa weights on activations": (
        lambda: [quant.QuantConv2D(2, 3, input_quantizer=larq.quantizers.DoReFa(2, mode="weights"), name="bad")],
        "DoReFa in the mode 'weights' is not supported on activations",
    ),
    "magnitude on activations": (
        lambda: [larq.quantizers.MagnitudeAwareSign(name="bad")],
        "MagnitudeAwareSign is not supported on activations",
    ),
    "batch norm over rows": (lambda: [layers.BatchNormalization(axis=1, name="bad")], "axis"),
    "concatenated rows": (lambda: [Twice(layers.Concatenate(axis=1, name="bad"))], "a concatenation over axis 1"),
    "shapes that differ": (
        lambda: [Twice(layers.Add(name="bad"), layers.GlobalAveragePooling2D(keepdims=True))],
        "shapes [[6, 6, 2], [1, 1, 2]] are added",
    ),
    "a reshape that moves": (lambda: [layers.Reshape((12, 3, 2), name="bad")], "a reshape of [6, 6, 2] to [12, 3, 2]"),
    "turned": (lambda: [layers.Permute((2, 1, 3), name="bad")], "a transpose by [2, 1, 3]"),
    "half a shuffle": (
        lambda: [layers.Reshape((6, 6, 2, 1)), layers.Activation("relu", name="bad")],
        "the layer reads channels on several axes",
    ),
    "half a shuffle of operations": (
        lambda: [Calls(lambda x: tf.nn.relu(tf.reshape(x, [-1, 6, 6, 2, 1])), name="bad")],
        "the layer reads channels on several axes",
    ),
    "transposed": (lambda: [quant.QuantConv2DTranspose(2, 3, name="bad")], "QuantConv2DTranspose layers"),
    "keras transposed": (lambda: [layers.Conv2DTranspose(2, 3, name="bad")], "Conv2DTranspose layers"),
    "locally connected": (lambda: [quant.QuantLocallyConnected2D(2, 3, name="bad")], "QuantLocallyConnected2D layers"),
    "solid": (lambda: [layers.Reshape((6, 6, 1, 2)), quant.QuantConv3D(2, 1, name="bad")], "QuantConv3D layers"),
    "cropped": (lambda: [layers.Cropping2D(1, name="bad")], "Cropping2D layers"),
    "enlarged": (lambda: [layers.UpSampling2D(2, name="bad")], "UpSampling2D layers are not supported"),
    "not of operations": (lambda: [OfTheData(name="bad")], "operation numpy_function is not supported"),
    "operation": (lambda: [Calls(tf.exp, name="bad")], "operation math.exp is not supported"),
    "a sum over channels": (lambda: [Calls(lambda x: tf.reduce_mean(x, -1), name="bad")], "a reduction over the axes"),
    "a mean over everything": (
        lambda: [Calls(lambda x: x * tf.reduce_mean(x, None), name="bad")],
        "a reduction over all axes",
    ),
    "no channel": (lambda: [Calls(lambda x: x[..., 1:1], name="bad")], "a slice without a channel"),
    "a part of the image": (lambda: [Calls(lambda x: x[:, 1:5], name="bad")], "cuts out a part of the image"),
    "a split of rows": (lambda: [Calls(lambda x: tf.split(x, 2, 1)[0], name="bad")], "a split over axis 1"),
    "a constant for each pixel": (
        lambda: [Calls(lambda x: x + np.arange(6, dtype=np.float32).reshape(6, 1, 1), name="bad")],
        "differs from pixel to pixel",
    ),
    "a division by a tensor": (lambda: [Calls(lambda x: 1.0 / x, name="bad")], "a division by a computed tensor"),
    "a cast": (lambda: [Calls(lambda x: tf.cast(x, tf.int32), name="bad")], "a cast to int32"),
    "mirrored padding": (
        lambda: [Calls(lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT"), name="bad")],
        "with REFLECT",
    ),
    "an encoding of no pixels": (
        lambda: [layers.ReLU(), Thermometer(name="bad")],
        "Thermometer must read the image itself",
    ),
}


def DIFFERENT(shape: tuple[int, ...], dtype: object = None) -> tf.Tensor:  # noqa: N802 (stands for a constant)
    return tf.reshape(tf.range(np.prod(shape), dtype=tf.float32), shape)


class Twice:
    """Gives a layer of two inputs one tensor twice, the second time behind another layer."""

    def __init__(self, layer: tf.keras.layers.Layer, second: tf.keras.layers.Layer | None = None) -> None:
        self.layer, self.second = layer, second

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return self.layer([x, self.second(x) if self.second else x])


class Calls(tf.keras.layers.Layer):
    """A user's layer that calls a function."""

    def __init__(self, function: object, **options: object) -> None:
        super().__init__(**options)
        self.function = function

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.function(x)


class OfTheData(tf.keras.layers.Layer):
    """A user's layer whose Python code looks at values."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        y = tf.numpy_function(lambda v: v, [x], tf.float32)
        y.set_shape(x.shape)
        return y


@pytest.mark.parametrize("case", UNSUPPORTED, ids=UNSUPPORTED.keys())
def test_an_unsupported_layer_is_named(tmp_path, case):
    make, message = UNSUPPORTED[case]
    x = start = image()
    for layer in make():
        x = layer(x)
    if x.shape[1:].rank and None not in x.shape[1:] and x.dtype == tf.float32:
        x = layers.Flatten()(x)
    with pytest.raises(ModelError) as caught:
        build_graph(tf.keras.Model(start, x))
    error = caught.value
    assert message in error.message
    assert error.where.startswith("layer bad") and error.why and error.fix


def test_an_unsupported_class_says_where_the_supported_are_listed(tmp_path):
    error = refuse(network(layers.LayerNormalization(name="bad")), tmp_path)
    assert "`bnngen operators` lists" in error.why and len(str(error)) < 500


def shared() -> tf.keras.Model:
    conv, start = layers.Conv2D(2, 3, padding="same", name="twice"), image()
    return tf.keras.Model(start, head(conv(conv(start))))


def active_dropout() -> tf.keras.Model:
    start = image()
    return tf.keras.Model(start, head(layers.Dropout(0.5, name="drop")(start, training=True)))


def two_outputs() -> tf.keras.Model:
    start = image()
    return tf.keras.Model(start, [layers.Flatten()(start), head(start)])


def two_inputs() -> tf.keras.Model:
    start, other = image(), layers.Input((6, 6, 2))
    return tf.keras.Model([start, other], head(layers.Add()([start, other])))


def any_height() -> tf.keras.Model:
    start = image(height=None)
    return tf.keras.Model(start, layers.Dense(4)(layers.GlobalAveragePooling2D()(start)))


def vector_input() -> tf.keras.Model:
    return tf.keras.Sequential([layers.Input((8,)), layers.Dense(4)])


def gives_a_map() -> tf.keras.Model:
    start = image()
    return tf.keras.Model(start, layers.Conv2D(4, 3, name="last")(start))


def gives_bits() -> tf.keras.Model:
    start = image()
    return tf.keras.Model(start, larq.quantizers.SteSign()(head(start)))


def nan_weights() -> tf.keras.Model:
    model = network(layers.Conv2D(2, 3, name="diverged"))
    model.get_layer("diverged").bias.assign([np.nan, 0])
    return model


def negative_variance() -> tf.keras.Model:
    model = network(layers.BatchNormalization(name="norm"))
    model.get_layer("norm").moving_variance.assign([-1.0, 1.0])
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (shared, "a layer is used more than once"),
        (active_dropout, "a layer is called with training=True"),
        (two_outputs, "the model has 1 inputs and 2 outputs"),
        (two_inputs, "the model has 2 inputs and 1 outputs"),
        (any_height, "a shape is not fixed"),
        (vector_input, "the model's input is [8], not an image"),
        (gives_a_map, "the model gives a map [4, 4, 4]"),
        (gives_bits, "the model does not compute real-valued scores"),
        (nan_weights, "the bias has values that are not finite"),
        (negative_variance, "variance + epsilon is not positive"),
    ],
)
def test_a_model_of_another_kind(tmp_path, build, message):
    error = refuse(build(), tmp_path)
    assert isinstance(error, ModelError) and message in error.message


def test_files_that_are_no_keras_models(tmp_path):
    (tmp_path / "text.keras").write_text("no model")
    (tmp_path / "model.txt").write_text("no model")
    network().save(tmp_path / "cut.keras")
    whole = (tmp_path / "cut.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    for name, kind in [("text.keras", ModelError), ("model.txt", ModelError), ("cut.keras", ModelError),
                       ("none.keras", UsageError)]:  # fmt: skip
        with pytest.raises(kind, match=name):
            export_model(ExportConfig(tmp_path / name, tmp_path / "out.onnx"), silent)


# -------------------------------------------------------------------------------------- calibration


def sample(x: np.ndarray, y: np.ndarray | None = None) -> dict:
    return {"calibration": Calibration(x, y, "sample")}


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((3, 6, 6, 2), np.float32), None, "images are float32, not uint8"),
        (
            np.zeros((3, 6, 5, 2), np.uint8),
            None,
            "images have shape [3, 6, 5, 2], the model takes [N, 6, 6, 2]",
        ),
        (np.zeros((6, 6, 2), np.uint8), None, "images have shape [6, 6, 2]"),
        (np.zeros((0, 6, 6, 2), np.uint8), None, "sample holds no images"),
        (np.zeros((3, 6, 6, 2), np.uint8), np.zeros(2, int), "labels are int64 [2], the images are 3"),
        (np.zeros((3, 6, 6, 2), np.uint8), np.zeros(3), "labels are float64 [3]"),
        (np.zeros((3, 6, 6, 2), np.uint8), np.array([0, 1, 9]), "label 9 is not a class"),
        (np.zeros((3, 6, 6, 2), np.uint8), np.array([0, -1, 1]), "label -1 is not a class"),
    ],
)
def test_calibration_images_that_do_not_fit(tmp_path, x, y, message):
    error = refuse(network(), tmp_path, **sample(x, y))
    assert isinstance(error, DataError) and message in error.message


def test_no_calibration_sample(tmp_path):
    error = refuse(network(), tmp_path, calibration=None)
    assert error.message == "no calibration sample" and "--calibrate" in error.fix
    broken = tmp_path / "x.calib.npz"
    broken.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match="is not a calibration sample"):
        read_calibration(broken)
    np.savez(broken, z=np.zeros(3))
    with pytest.raises(DataError, match="is not a calibration sample"):
        read_calibration(broken)


def test_values_that_overflow(tmp_path):
    model = network(layers.Conv2D(2, 3, name="large"))
    model.get_layer("large").kernel.assign(np.full((3, 3, 2, 2), 3e38, np.float32))
    error = refuse(model, tmp_path)
    assert isinstance(error, DataError) and "tensor large takes a value that is not finite" in error.message


# --------------------------------------------------------------------------------- what is asked for


def test_cuts_that_are_none(tmp_path):
    def build():
        x = start = image()
        y = larq.quantizers.SteSign(name="bits")(layers.Conv2D(2, 1, name="inner")(x))
        y = larq.layers.QuantConv2D(2, 3, padding="same", kernel_quantizer="ste_sign", name="conv")(y)
        return tf.keras.Model(start, head(layers.Add(name="sum")([x, y])))

    reasons = {
        "inner": "inside a block",
        "bits": "binary already",
        "nowhere": "no exported layer",
        "logits": "nothing is left to learn",
    }
    for cut, why in reasons.items():
        tf.keras.backend.clear_session()
        error = refuse(build(), tmp_path, cut=cut)
        assert f"cannot be cut at {cut}" in error.message and why in error.why
        assert "features, sum, flat; or not at all: none" in error.fix


def test_a_model_without_a_classifier_has_no_head(tmp_path):
    start = image()
    model = tf.keras.Model(start, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(start)))
    assert "does not end in a Dense layer" in refuse(model, tmp_path, cut="features").message
    config = ExportConfig(tmp_path / "model.keras", tmp_path / "model.onnx", Calibration(pixels_for(model)),
                          info_for(), cut="none")  # fmt: skip
    result = export_model(config, silent)
    assert (result.cut, result.features, result.latent_bytes, result.capacity) == (None, None, 0, 0)


def test_requests_that_do_not_fit(tmp_path):
    model = network()
    assert isinstance(refuse(model, tmp_path, capacity=1), UsageError)
    assert "4 outputs for 3 trained classes" in refuse(model, tmp_path, info=info_for(3)).message
    config = ExportConfig(tmp_path / "model.keras", tmp_path / "nowhere" / "model.onnx")
    with pytest.raises(UsageError, match="there is no folder"):
        export_model(config, silent)


META = {
    "schema": 1,
    "name": "m",
    "classes": ["a", "b", "c", "d"],
    "trained_classes": [0, 1, 2, 3],
    "input": {"shape": [6, 6, 2], "dtype": "uint8", "scale": 0.5, "offset": 0},
}


@pytest.mark.parametrize(
    "change",
    [
        "[",
        "[1]",
        {"schema": 2},
        {"trained_classes": [0, 0]},
        {"trained_classes": [4]},
        {"trained_classes": None},
        {"input": {**META["input"], "scale": -1}},
        {"input": {**META["input"], "dtype": "float32"}},
        {"input": {"scale": 1}},
    ],
)
def test_a_description_that_cannot_be(tmp_path, change):
    text = change if isinstance(change, str) else json.dumps({**META, **change})
    (tmp_path / "model.meta.json").write_text(text)
    with pytest.raises(ModelError):
        read_info(tmp_path / "model.keras")


def test_the_files_beside_the_model_are_enough(tmp_path):
    """Labels in the sample choose the images of trained classes; all class names are kept."""
    network().save(tmp_path / "model.keras")
    with pytest.raises(ModelError, match=r"there is no model\.meta\.json"):
        export_model(ExportConfig(tmp_path / "model.keras", tmp_path / "model.onnx"), silent)
    meta = {**META, "classes": list("abcdefgh"), "trained_classes": [5, 0, 1, 2]}
    (tmp_path / "model.meta.json").write_text(json.dumps(meta))
    x = np.random.default_rng(0).integers(0, 200, (40, 6, 6, 2)).astype(np.uint8)
    x[7] = 255  # of class 7, which the model was not trained on
    np.savez(tmp_path / "model.calib.npz", x=x, y=np.arange(40) % 8)
    result = export_model(ExportConfig(tmp_path / "model.keras", tmp_path / "model.onnx", capacity=4), silent)
    assert result.check.images == 20 and result.capacity == 4
    x = x[:5]
    np.testing.assert_allclose(run_onnx(result.path, x), run_keras(tmp_path / "model.keras", x), rtol=1e-4, atol=1e-3)
    with pytest.raises(DataError, match="the model takes"):
        run_onnx(result.path, x[:, :5])
    with pytest.raises(DataError, match="not uint8"):
        run_keras(tmp_path / "model.keras", x / 255)


def test_disagreement_is_refused(tmp_path, monkeypatch):
    """A wrong padding of the exporter must not reach a file."""
    model = network(layers.Conv2D(3, 4, strides=2, padding="same"))
    calibration = Calibration(np.random.default_rng(1).integers(0, 256, (60, 6, 6, 2)).astype(np.uint8))
    monkeypatch.setattr("bnngen.export.convolutions.same_pads", lambda *_: (0, 0, 2, 2))
    error = refuse(model, tmp_path, calibration=calibration)
    assert "chooses another class than Keras on" in error.message and "nothing was written" in error.why


def test_a_zoo_model_without_images_is_refused_before_anything_is_fetched(tmp_path):
    for weights in (None, "imagenet", "weights.h5"):
        with pytest.raises(UsageError, match="no images to calibrate zoo:QuickNet") as caught:
            export_model(ExportConfig("zoo:quicknet", tmp_path / "zoo.onnx", weights=weights), silent)
        assert "--calibrate DATA" in caught.value.fix and "--weights none" in caught.value.fix


@pytest.mark.parametrize("option", ["--input-scale", "--input-offset", "--classes"])
def test_a_zoo_model_does_not_ignore_options(option):
    result = CliRunner().invoke(export, ["zoo:QuickNet", "--weights", "none", option, "0"])
    assert isinstance(result.exception, UsageError)
    assert f"{option} is not for models of the zoo" in str(result.exception)


def test_a_file_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "model.onnx.partial").mkdir()
    network(layers.Conv2D(3, 3)).save(tmp_path / "model.keras")
    config = ExportConfig(tmp_path / "model.keras", tmp_path / "model.onnx",
                          Calibration(np.zeros((3, 6, 6, 2), np.uint8)), info_for())  # fmt: skip
    with pytest.raises(DataError, match="cannot be written") as caught:
        export_model(config, silent)
    assert "Errno" not in caught.value.why and "space" not in caught.value.fix


def test_a_missing_onnx_file_is_called_by_its_name():
    result = CliRunner().invoke(export, ["nothere.onnx"])
    assert str(result.exception).startswith("there is no nothere.onnx\n")
