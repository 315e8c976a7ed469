# SPDX-License-Identifier: Apache-2.0
"""Layers, quantizers and Lambdas of one's own, saved by one process and exported by another, from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bnngen.errors import ModelError, UsageError
from bnngen.export.config import OwnCode
from bnngen.export.keras_model import load_keras
from bnngen.export.session import run_onnx

DEFINITIONS = '''
import larq as lq
import tensorflow as tf

L = tf.keras.layers
GAIN = 2.0

class OwnShift(L.Layer):
    def build(self, shape):
        self.b = self.add_weight("b", (1, 1, 1, shape[-1]), initializer="random_normal")

    def call(self, x):
        return x + self.b

@tf.keras.utils.register_keras_serializable("mine")
def xnor_weight(w):
    return tf.reduce_mean(tf.abs(w), axis=[0, 1, 2], keepdims=True) * lq.math.sign(w)

def half_sign(x):
    return lq.math.sign(x - 0.5)

def gain(x):
    return x * GAIN

def binary(x, kernel="ste_sign", input="ste_sign"):
    conv = lq.layers.QuantConv2D(8, 3, input_quantizer=input, kernel_quantizer=kernel, use_bias=False)
    return L.BatchNormalization()(conv(x))

def own_layer(x):
    return binary(OwnShift()(x))

def own_quantizer(x):
    return binary(x, xnor_weight)

def own_lambda(x):
    return L.Lambda(lambda t: gain(t) - 1.0)(binary(x))

if __name__ == "__main__":
    import sys
    for name in ("own_layer", "own_quantizer", "own_lambda"):
        tf.keras.utils.set_random_seed(1)
        image = tf.keras.Input((8, 8, 3))
        x = globals()[name](L.Conv2D(8, 3)(image))
        model = tf.keras.Model(image, L.Dense(3)(L.GlobalAveragePooling2D()(x)))
        for suffix in ("keras", "h5"):
            model.save(f"{name}.{suffix}")
'''
KINDS = {"own_layer": "OwnShift", "own_quantizer": "xnor_weight", "own_lambda": "Lambda"}


def started(*command: str, folder: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models, saved by a script, the script itself, and images."""
    path = tmp_path_factory.mktemp("own")
    (path / "script.py").write_text(DEFINITIONS)
    saved = started("script.py", folder=path)
    assert saved.returncode == 0, saved.stderr
    np.savez(path / "images.npz", x=np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8))
    (path / "apart").mkdir()
    (path / "script.py").rename(path / "apart" / "script.py")
    return path


def export(folder: Path, name: str, *options: str) -> subprocess.CompletedProcess:
    data = ("--calibrate", "images.npz", "--input-scale", "0.0078125", "--input-offset", "-1", "-o", f"{name}.onnx")
    return started("-m", "bnngen.cli", "export", name, *data, *options, folder=folder)


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line_imports_what_a_model_needs(folder: Path, kind: str) -> None:
    refused = export(folder, f"{kind}.keras")
    assert refused.returncode == 1 and "--import FILE.py" in refused.stderr and KINDS[kind] in refused.stderr
    done = export(folder, f"{kind}.keras", "--import", "apart/script.py")
    assert done.returncode == 0, done.stderr
    x = np.load(folder / "images.npz")["x"]
    assert np.ptp(run_onnx(folder / f"{kind}.keras.onnx", x), axis=0).min() > 0


@pytest.mark.parametrize("kind", ["own_layer", "own_lambda"])
def test_hdf5_files_are_read_with_the_same_imports(folder: Path, kind: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_keras(folder / f"{kind}.h5")
    assert "--import FILE.py" in caught.value.fix and KINDS[kind] in caught.value.why
    model = load_keras(folder / f"{kind}.h5", OwnCode((folder / "apart" / "script.py",)))
    assert model(np.zeros((1, 8, 8, 3), np.float32)).shape == (1, 3)


def test_a_function_as_quantizer_in_hdf5_is_refused_by_its_cause(folder: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_keras(folder / "own_quantizer.h5", OwnCode((folder / "apart" / "script.py",)))
    assert "as quantizer from an .h5 file" in caught.value.why and "model.keras" in caught.value.fix


def test_a_lambda_that_calls_nothing_of_its_file_needs_trust_alone(folder: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    path = tmp_path / "lambda.keras"
    tf.keras.Sequential([tf.keras.Input((2, 2, 1)), tf.keras.layers.Lambda(lambda x: x * 2.0)]).save(path)
    with pytest.raises(ModelError) as caught:
        load_keras(path)
    assert "runs" in caught.value.why + caught.value.fix or "run" in caught.value.why
    assert "--trust-lambdas" in caught.value.fix
    assert float(load_keras(path, OwnCode(trust_lambdas=True))(np.ones((1, 2, 2, 1), np.float32))[0, 0, 0, 0]) == 2


def test_files_that_cannot_be_imported_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        load_keras(folder / "own_layer.keras", OwnCode((tmp_path / "nothing.py",)))
    broken = tmp_path / "broken_layers.py"
    broken.write_text("1 / 0")
    with pytest.raises(ModelError) as caught:
        load_keras(folder / "own_layer.keras", OwnCode((broken,)))
    assert caught.value.message == "broken_layers.py cannot be imported" and "ZeroDivisionError" in caught.value.why
    other = tmp_path / "other_layers.py"
    other.write_text("class Another:\n    pass\n")
    with pytest.raises(ModelError) as caught:
        load_keras(folder / "own_layer.keras", OwnCode((other,)))
    assert "OwnShift" in caught.value.why and "other_layers.py" in caught.value.why


def test_what_is_no_model_is_called_what_it_is(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ModelError, match="a SavedModel"):
        load_keras(tmp_path / "saved")
    (tmp_path / "model.weights.h5").write_bytes(b"")
    with pytest.raises(ModelError, match="holds weights alone"):
        load_keras(tmp_path / "model.weights.h5")


def test_validate_imports_the_same_file(folder: Path) -> None:
    assert export(folder, "own_layer.keras", "--import", "apart/script.py").returncode == 0
    command = ("-m", "bnngen.cli", "validate", "--model", "own_layer.keras.onnx", "--keras", "own_layer.keras")
    for option in ((), ("--layers",)):
        done = started(*command, "--random", "4", *option, "--import", "apart/script.py", folder=folder)
        assert done.returncode == 0, done.stderr
        assert "Keras" in done.stdout
