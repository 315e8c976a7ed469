# SPDX-License-Identifier: Apache-2.0
"""`zoo:` models by name: which there are, their weights, their input, and what is said when something is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra bnngen[train]")
larq = pytest.importorskip("larq", reason="needs the extra bnngen[train]")

from bnngen.errors import ModelError, ToolError, UsageError  # noqa: E402
from bnngen.export.config import real_images  # noqa: E402
from bnngen.export.synthetic import natural_images  # noqa: E402
from bnngen.export.zoo import MODELS, SHAPE, open_zoo, zoo_name  # noqa: E402

NAME = "QuickNetSmall"


def silent(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total


@pytest.fixture(scope="module")
def opened():
    return open_zoo(f"zoo:{NAME}", "none", silent)


def test_every_model_of_the_package_has_its_name():
    import larq_zoo

    assert set(MODELS) == set(larq_zoo.literature.__all__) | set(larq_zoo.sota.__all__)
    assert len(MODELS) == 14


def test_names_are_found_in_any_case_and_others_refused():
    assert zoo_name("zoo:quicknetlarge") == "QuickNetLarge"
    with pytest.raises(UsageError, match="did you mean zoo:QuickNet?") as caught:
        zoo_name("zoo:QuikNet")
    assert "MeliusNet22" in caught.value.fix


def test_the_input_is_normalized_as_in_the_package(opened):
    from larq_zoo.training.data import _normalize

    model, info, _ = opened
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SHAPE)).astype(np.uint8)
    layer = tf.keras.Model(model.inputs, model.get_layer("preprocess").output)
    expected = np.stack([_normalize(tf.cast(image, tf.float32)).numpy() for image in pixels])
    np.testing.assert_allclose(layer(real_images(pixels, info)).numpy(), expected, atol=2e-6)


def test_random_weights_are_the_same_every_time(opened):
    again, _, calibration = open_zoo(NAME, "none", silent)
    for ours, theirs in zip(opened[0].weights, again.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    np.testing.assert_array_equal(opened[2].x, calibration.x)


def test_random_weights_behave_like_trained_ones(opened):
    """Batch norms have their input's statistics, signs are balanced in every layer, and classes differ."""
    model, info, calibration = opened
    body = next(layer for layer in model.layers if isinstance(layer, tf.keras.Model))
    norms = [layer for layer in body.layers if isinstance(layer, tf.keras.layers.BatchNormalization)]
    binary = [layer for layer in body.layers if getattr(layer, "input_quantizer", None) is not None]
    x = model.get_layer("preprocess")(real_images(calibration.x, info))
    watch = tf.keras.Model(body.inputs, [norms[-1].input, *(layer.input for layer in binary), body.output])
    before, *signs, scores = (value.numpy() for value in watch(x))
    mean, deviation = before.mean(axis=(0, 1, 2)), before.std(axis=(0, 1, 2))
    np.testing.assert_allclose(mean, norms[-1].moving_mean.numpy(), atol=0.2 * deviation.max())
    np.testing.assert_allclose(deviation, np.sqrt(norms[-1].moving_variance.numpy()), rtol=0.3)
    shares = [float((value >= 0).mean()) for value in signs]
    assert len(shares) == 16 and min(shares) > 0.25 and max(shares) < 0.75, shares
    winners = scores.argmax(axis=1)
    assert len(set(winners)) >= 12, winners
    assert info.classes[:2] == ("0", "1") and len(info.trained_classes) == scores.shape[1] == 1000


def test_a_file_of_weights_is_used(opened, tmp_path):
    import larq_zoo

    source = larq_zoo.sota.QuickNetSmall(weights=None)
    source.save_weights(tmp_path / "weights.h5")
    model, _, calibration = open_zoo(NAME, str(tmp_path / "weights.h5"), silent)
    assert calibration is None, "ranges of trained weights are measured on real images"
    body = next(layer for layer in model.layers if isinstance(layer, tf.keras.Model))
    for ours, theirs in zip(body.weights, source.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    import larq_zoo

    path = tmp_path / "weights.h5"
    with pytest.raises(UsageError, match="there is no file"):
        open_zoo(NAME, str(path), silent)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="does not hold the weights"):
        open_zoo(NAME, str(path), silent)
    larq_zoo.sota.QuickNetLarge(weights=None).save_weights(path)
    with pytest.raises(ModelError, match="does not hold the weights of QuickNetSmall") as caught:
        open_zoo(NAME, str(path), silent)
    assert caught.value.fix and caught.value.why
    broken = larq_zoo.sota.QuickNetSmall(weights=None)
    broken.layers[1].set_weights([np.full(weight.shape, np.nan) for weight in broken.layers[1].weights])
    broken.save_weights(path)
    with pytest.raises(ModelError, match="is not finite"):
        open_zoo(NAME, str(path), silent)


def test_without_network_the_download_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))  # where Keras keeps what it has fetched
    for variable in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(UsageError, match="ImageNet weights of QuickNetSmall could not be fetched") as caught:
        open_zoo(f"zoo:{NAME}", "imagenet", silent)
    assert "refused" in caught.value.why and "--weights none" in caught.value.fix and "FILE" in caught.value.fix
    assert capsys.readouterr().out == ""
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "half a download is left behind"


def test_without_the_package_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "larq_zoo.sota", None)
    with pytest.raises(ToolError, match="larq_zoo") as caught:
        open_zoo(NAME, "none", silent)
    assert "pip install" in caught.value.fix and "zoo" in caught.value.fix


def test_synthetic_images_resemble_photographs():
    """Neighbours are alike, images differ, all brightnesses occur, and the spectrum falls."""
    x = natural_images(8, (64, 64, 3), seed=1)
    np.testing.assert_array_equal(x, natural_images(8, (64, 64, 3), seed=1))
    real = x.astype(np.float64)
    assert x.dtype == np.uint8 and x.min() < 20 and x.max() > 235
    flat = real[:, :, :-1].ravel(), real[:, :, 1:].ravel()
    assert np.corrcoef(*flat)[0, 1] > 0.8
    assert real.mean(axis=(1, 2)).std() > 8, "all images have one colour"
    spectrum = (np.abs(np.fft.fft(real - real.mean(axis=2, keepdims=True), axis=2)) ** 2).mean(axis=(0, 1, 3))
    assert spectrum[1:4].mean() > 20 * spectrum[16:32].mean()
