# SPDX-License-Identifier: Apache-2.0
"""Layouts of images and sequences: what a data set may hold for a model, and what calibration says of silent images."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from bnngen.cli.device import test_images as images_of
from bnngen.cli.model import export
from bnngen.errors import DataError, ModelError
from bnngen.export import export_model, run_onnx
from bnngen.export.config import Calibration, ExportConfig
from bnngen.export.exporter import _compare
from bnngen.export.sources import Source
from bnngen.frontend import load_onnx
from tests.export.networks import info_for, layers, silent

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


def exported(folder, shape, x):
    """Export a small model of that input, calibrated on x."""
    tf.keras.utils.set_random_seed(1)
    start = layers.Input(shape)
    features = layers.Flatten()(layers.ReLU(name="bent")(layers.Conv1D(5, 3)(start) if len(shape) == 2 else start))
    model = tf.keras.Model(start, layers.Dense(4)(features))
    model.save(folder / "model.keras")
    config = ExportConfig(folder / "model.keras", folder / "model.onnx", Calibration(x, None, "sample"), info_for(4))
    return export_model(config, silent)


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def test_a_sequence_is_calibrated_and_loaded_as_it_is(tmp_path):
    x = pixels(12, 16, 8)
    result = exported(tmp_path, (16, 8), x)
    graph = load_onnx(result.path)
    assert graph.tensors[graph.input].shape == (16, 1, 8)
    file = tmp_path / "sound.npz"
    for arrays in (x, x[:, :, np.newaxis, :]):
        np.savez(file, x_train=arrays, y_train=np.arange(12) % 4, x_test=arrays[:5], y_test=np.arange(5) % 4)
        loaded, _ = images_of(graph, str(file))
        np.testing.assert_array_equal(loaded, x[:5, :, np.newaxis, :])
    np.testing.assert_array_equal(
        load_onnx(exported(tmp_path, (16, 8), x[:, :, np.newaxis, :]).path).meta.classes, graph.meta.classes
    )
    assert run_onnx(result.path, loaded).shape == (5, 4)


def test_grey_pictures_stay_pictures_and_channels_may_be_many(tmp_path):
    graph = load_onnx(exported(tmp_path, (6, 5, 1), pixels(12, 6, 5)).path)
    file = tmp_path / "things.npz"
    np.savez(file, x_train=pixels(9, 6, 5), y_train=np.arange(9) % 3, x_test=pixels(5, 6, 5), y_test=np.arange(5) % 3)
    assert images_of(graph, str(file))[0].shape == (5, 6, 5, 1)
    graph = load_onnx(exported(tmp_path, (6, 5, 7), pixels(12, 6, 5, 7)).path)
    with pytest.raises(DataError, match="the images of things are 6x5x1, the model takes 6x5x7"):
        images_of(graph, str(file))
    x = pixels(9, 6, 5, 7)
    np.savez(file, x_train=x, y_train=np.arange(9) % 3, x_test=x, y_test=np.arange(9) % 3)
    np.testing.assert_array_equal(images_of(graph, str(file))[0], x)


def test_the_command_line_takes_sequences_of_a_data_set(tmp_path):
    exported(tmp_path, (16, 8), pixels(12, 16, 8))
    x, file = pixels(12, 16, 8), tmp_path / "sound.npz"
    np.savez(file, x_train=x, y_train=np.arange(12) % 4, x_test=x, y_test=np.arange(12) % 4)
    command = [str(tmp_path / "model.keras"), "--calibrate", str(file), "--input-scale", "0.01"]
    done = CliRunner().invoke(export, [*command, "-o", str(tmp_path / "again.onnx")])
    assert done.exit_code == 0, done.output + str(done.exception)
    assert load_onnx(tmp_path / "again.onnx").meta.classes == ("0", "1", "2", "3")


def test_images_on_which_a_tensor_is_silent_are_told(tmp_path):
    noisy = exported(tmp_path, (6, 5, 2), pixels(12, 6, 5, 2))
    assert noisy.note == ""
    black = exported(tmp_path, (6, 5, 2), np.zeros((12, 6, 5, 2), np.uint8))  # -1 everywhere: nothing behind the ReLU
    assert "0 everywhere on all calibration images: bent" in black.note and "real" in black.note


@pytest.mark.parametrize(("images", "wrong", "passes"), [(20, 1, True), (20, 2, False), (1, 1, False), (200, 2, True)])
def test_one_image_may_differ_in_a_small_sample(images, wrong, passes):
    """Rounding can turn a sign in one image: that alone does not refuse a model, however few the images are."""
    scores = np.tile(np.array([1.0, 0.5], np.float32), (images, 1))
    other = scores.copy()
    other[:wrong] = other[:wrong, ::-1]
    source = Source(graph=None, run=lambda x: iter([other]), engine="Keras", name="model")
    if passes:
        assert _compare(source, scores, scores, silent).agreement == 1 - wrong / images
    else:
        with pytest.raises(ModelError, match=f"on {wrong} of {images} images"):
            _compare(source, scores, scores, silent)


def test_a_set_without_images_is_called_empty(tmp_path):
    with pytest.raises(DataError, match="sample holds no images"):
        exported(tmp_path, (6, 5, 2), np.zeros((0, 6, 5, 2), np.uint8))
