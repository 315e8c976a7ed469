# SPDX-License-Identifier: Apache-2.0
"""One Keras model, layer by layer: Keras == onnxruntime == the imported graph.

Weights are multiples of 1/64 and images multiples of 1/128, many of them 0: sums are exact in float32, and signs
meet exact zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from bnngen import interp, ir
from bnngen.export.builder import Value
from bnngen.export.config import Calibration, ExportConfig, real_images
from bnngen.export.exporter import export_source
from bnngen.export.keras_graph import keras_source
from bnngen.export.keras_model import without_softmax
from bnngen.export.session import run_batches
from bnngen.export.shapes import SplitChannels
from bnngen.export.sources import ExportedGraph
from bnngen.frontend import load_onnx
from bnngen.frontend.proto import read_model
from tests.export.networks import info_for, silent

IMAGES = 6


def fill(model: tf.keras.Model, seed: int) -> tf.keras.Model:
    """Fill all weights. Channel 0 of a batch norm gives 0 for every input, and a quarter of the gammas is negative."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers(include_self=False):
        for weight in layer.weights:
            shape, kind = tuple(weight.shape), weight.name.rsplit("/", 1)[-1].split(":")[0]
            if kind == "moving_variance":
                value = rng.uniform(0.3, 3, shape)
            elif kind == "gamma":
                value = rng.uniform(0.4, 2, shape) * rng.choice([-1, 1, 1, 1], shape)
            elif kind in ("beta", "moving_mean"):
                value = rng.normal(0, 0.5, shape)
            else:
                value = np.round(rng.uniform(-1, 1, shape) * 64) / 64
            if kind in ("gamma", "beta") and len(shape) == 1:
                value[0] = 0
            weight.assign(value.astype(np.float32))
    return model


def pixels(model: tf.keras.Model, count: int = IMAGES) -> np.ndarray:
    """Return images uint8 [N, H, W, C]; a third of the pixels is 128, which is the real value 0."""
    rng, shape = np.random.default_rng(5), model.input_shape[1:]
    shape = (shape[0], 1, shape[1]) if len(shape) == 2 else shape
    values = rng.integers(0, 256, (count, *shape))
    return np.where(rng.random(values.shape) < 1 / 3, 128, values).astype(np.uint8)


@dataclass(frozen=True)
class Compared:
    """What was compared. layers: names of the Keras layers whose tensors were; graph: imported from the file."""

    layers: list[str]
    graph: ir.Graph
    operators: list[str]
    scores: np.ndarray


def compare(model: tf.keras.Model, folder: Path, atol: float = 2e-4) -> Compared:
    """Export the model and compare every layer's tensor, and the scores, by every route."""
    source = keras_source(model)
    model = without_softmax(model)
    out, info = folder / "model.onnx", info_for(model.output_shape[-1])
    x = pixels(model)
    export_source(source, info, Calibration(x), ExportConfig(model.name, out, cut="none"), silent)
    proto, _ = read_model(out)
    real = real_images(x, info)
    names = list(dict.fromkeys([*source.graph.builder.real, "scores"]))
    computed = [name for name in names if name != "image"]
    by_onnx = dict(zip(computed, next(run_batches(proto, real, computed, len(x))), strict=True))
    compared = _compare_with_keras(model, source.graph, by_onnx, real, atol)
    graph = load_onnx(out)
    values = interp.evaluate(graph, real)
    for name, expected in by_onnx.items():
        if name in values and values[name].ndim == expected.ndim:
            np.testing.assert_allclose(values[name], _channels_last(expected), atol=atol, rtol=1e-4, err_msg=name)
    scores = values[graph.output]
    assert np.ptp(scores) > 0.01, "the network computes next to nothing"
    operators = [node.op_type for node in proto.graph.node]
    return Compared(compared, graph, operators, scores)


def _compare_with_keras(
    model: tf.keras.Model, graph: ExportedGraph, by_onnx: dict[str, np.ndarray], real: np.ndarray, atol: float
) -> list[str]:
    tensors = graph.tensors()
    taps = {layer.name: layer.output for layer in model.layers if tensors.get(layer.name) in by_onnx}
    taps = {name: output for name, output in taps.items() if not _is_half_way(graph.layers[name])}
    shaped = real.reshape(-1, *model.input_shape[1:])
    expected = tf.keras.Model(model.inputs, taps)(shaped, training=False)
    for name, value in expected.items():
        actual = _channels_last(by_onnx[tensors[name]])
        value = np.asarray(value, np.float32)
        assert actual.size == value.size, name
        np.testing.assert_allclose(actual.reshape(value.shape), value, atol=atol, rtol=1e-4, err_msg=name)
    return list(expected)


def _is_half_way(value: Value) -> bool:
    """True for padding and shuffles that a later layer carries out."""
    return any(value.pads) or isinstance(value, SplitChannels)


def _channels_last(value: np.ndarray) -> np.ndarray:
    return np.moveaxis(value, 1, -1) if value.ndim == 4 else value
