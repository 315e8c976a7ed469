# SPDX-License-Identifier: Apache-2.0
"""Small Larq networks for tests of the export, and the way from a Keras model to its scores by every runtime.

Kernels are multiples of 1/64 and images are (pixel - 128) / 128, so that the sums of a convolution are
exact in float32 whatever their order: no sign depends on which runtime added up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import larq
import numpy as np
import tensorflow as tf

from bnngen import interp
from bnngen.export import export_model, run_onnx
from bnngen.export.config import Calibration, ExportConfig, ExportResult, ModelInfo, real_images
from bnngen.export.keras_model import run_batches, without_softmax
from bnngen.frontend import load_onnx

layers = tf.keras.layers
BINARY = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
CLASSES = 4


def silent(what: str, done: int, total: int) -> None:
    assert 0 < done <= total


def binary_conv(filters: int, kernel: int | tuple[int, int], name: str, **options: object) -> tf.keras.layers.Layer:
    return larq.layers.QuantConv2D(filters, kernel, name=name, **{"use_bias": False, **BINARY, **options})


def head(x: tf.Tensor) -> tf.Tensor:
    return layers.Dense(CLASSES, name="logits")(layers.Flatten(name="flat")(x))


def randomize(model: tf.keras.Model, seed: int) -> tf.keras.Model:
    """Fill all weights; batch norms get negative gammas, and one gamma of zero."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers(include_self=False):
        for weight in layer.weights:
            shape = tuple(weight.shape)
            kind = weight.name.rsplit("/", 1)[-1].split(":")[0]
            if kind == "moving_variance":
                value = rng.uniform(0.2, 4, shape)
            elif kind == "gamma":
                value = rng.uniform(0.3, 2, shape) * rng.choice([-1, 1], shape)
                value[0] = 0
            elif kind in ("beta", "moving_mean"):
                value = rng.normal(0, 1, shape)
            else:
                value = np.round(rng.uniform(-1, 1, shape) * 64) / 64
            weight.assign(value.astype(np.float32))
    return model


def info_for(classes: int = CLASSES) -> ModelInfo:
    return ModelInfo("test", tuple("abcdefghij"[:classes]), tuple(range(classes)), 1 / 128, -1.0)


def pixels_for(model: tf.keras.Model, count: int = 24, seed: int = 5) -> np.ndarray:
    shape = model.input_shape[1:]
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


@dataclass(frozen=True)
class Exported:
    """One model by every route: scores float32 [N, classes] of Keras, onnxruntime and the imported graph."""

    keras: np.ndarray
    onnx: np.ndarray
    graph: np.ndarray
    result: ExportResult


def export_and_run(model: tf.keras.Model, folder: Path, **config: object) -> Exported:
    """Save, export and import the model; run it by every route on images that calibration did not see."""
    path, info = folder / "model.keras", info_for(model.output_shape[-1])
    model.save(path)
    calibration = Calibration(pixels_for(model))
    result = export_model(ExportConfig(path, folder / "model.onnx", calibration, info, **config), silent)
    x = pixels_for(model, 9, seed=6)
    graph = load_onnx(result.path)
    return Exported(
        keras=np.concatenate(list(run_batches(without_softmax(model), real_images(x, info)))),
        onnx=run_onnx(result.path, x),
        graph=interp.run(graph, real_images(x, info)),
        result=result,
    )


def assert_same(exported: Exported) -> None:
    assert np.ptp(exported.keras) > 0.1, "the network computes next to nothing"
    np.testing.assert_allclose(exported.onnx, exported.keras, atol=1e-4, rtol=1e-5)
    np.testing.assert_allclose(exported.graph, exported.onnx, atol=1e-4, rtol=1e-5)
