# SPDX-License-Identifier: Apache-2.0
"""export_model: Keras file in, checked ONNX file out."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf

import bnngen
from bnngen.errors import DataError, ModelError, UsageError
from bnngen.export import keras_model
from bnngen.export.builder import GraphBuilder, Value
from bnngen.export.calibrate import Observation, observe, two_levels
from bnngen.export.config import (
    Check,
    ExportConfig,
    ExportResult,
    ModelInfo,
    Progress,
    check_info,
    choose_images,
    head_capacity,
    read_calibration,
    read_info,
    real_images,
    sibling,
)
from bnngen.export.cuts import Cuttable, choose_cut, separators
from bnngen.export.layers import export_layer
from bnngen.export.site import Site
from bnngen.frontend import spelling

LEAST_AGREEMENT = 0.99
FLIP = 1e-4  # relative to the largest score: rounding alone stays near 1e-6, one flipped sign is above


def export_model(config: ExportConfig, progress: Progress) -> ExportResult:
    """Write config.out: the model as ONNX, its calibrated ranges and its latent cut in the metadata.

    Nothing is written unless Keras and onnxruntime choose the same class on 99 % of the calibration images.
    Raises UsageError, ModelError, DataError.
    """
    _check_out(config.out)
    keras = keras_model.without_softmax(keras_model.load_keras(config.keras))
    info = read_info(config.keras) if config.info is None else check_info(config.info, "model information")
    graph = build_graph(keras)
    _check_outputs(graph, info)
    calibration = config.calibration or read_calibration(sibling(config.keras, ".calib.npz"))
    pixels = choose_images(calibration, info, graph.builder.shape)
    images = real_images(pixels, info)
    cut = choose_cut(config.cut, graph.cuttable())
    capacity = head_capacity(config, info)

    model = graph.builder.model(info.name, len(info.trained_classes))
    seen = observe(model, images, graph.builder.real, cut, progress)
    check = _compare(keras, images, seen.scores, progress)
    learning = _learning(graph, cut, seen, capacity)
    metadata = {**_description(info, pixels), "ranges": seen.ranges, **learning}
    size = _write(model, metadata, config.out)
    shape = graph.shapes()[cut] if cut else None
    return ExportResult(
        path=config.out,
        nodes=len(graph.builder.nodes),
        file_bytes=size,
        check=check,
        cut=cut,
        cut_shape=shape,
        latent_bytes=_packed_bytes(shape) if shape else 0,
        features=graph.features if cut else None,
        capacity=capacity if cut else 0,
    )


# -------------------------------------------------------------------------------------------- graph


@dataclass(frozen=True)
class ExportedGraph:
    """The ONNX graph of a Keras model.

    layers: the output of every Keras layer. features: the input of the final Dense, None without one.
    """

    builder: GraphBuilder
    layers: dict[str, Value]
    scores: Value
    features: str | None

    def tensors(self) -> dict[str, str]:
        """Return the tensor of every layer."""
        return {name: self.builder.resolved(value).tensor for name, value in self.layers.items()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape, [H, W, C] or [C], of every layer's tensor and of the features."""
        values = [v for value in self.layers.values() for v in (value, self.builder.resolved(value))]
        return {value.tensor: value.shape for value in values}

    def cuttable(self) -> Cuttable:
        """Return where the graph can be cut: at layers whose real-valued outputs separate it."""
        constants = [tensor.name for tensor in self.builder.initializers]
        real, layers = set(self.builder.real), self.tensors()
        chosen = (separators(self.builder.nodes, constants) & real) - {spelling.INPUT, spelling.OUTPUT}
        possible = [name for name, tensor in layers.items() if tensor in chosen]
        return Cuttable(layers, real, possible, self.features)


def build_graph(model: tf.keras.Model) -> ExportedGraph:
    """Return the ONNX graph of a Keras model that ends in scores. Raises ModelError."""
    listed = keras_model.list_layers(model)
    builder = GraphBuilder(listed.shape)
    values, layers = {listed.input: builder.start()}, {}
    for call in listed.calls:
        site = Site(builder, call.layer, call.name, call.shape)
        values[call.output] = export_layer(site, [values[key] for key in call.inputs])
        layers[call.name] = values[call.output]
        expected = int(np.prod(call.shape))
        assert int(np.prod(layers[call.name].shape)) == expected or any(layers[call.name].pads), call.name
    last = values[listed.output]
    if not builder.nodes[1:] or any(last.pads) or last.binary:
        raise ModelError(
            "the model does not compute real-valued scores",
            where=f"model {model.name}",
            fix="end it in Dense(classes)",
        )
    scores = builder.vector(last) if last.flat else last
    if scores.is_map:
        raise ModelError(
            f"the model gives a map {list(scores.shape)}, not a vector of scores",
            where=f"model {model.name}",
            fix="end it in a pooling or Flatten, and Dense(classes)",
        )
    final = builder.finish(scores)
    layers = {name: final if value in (scores, last) else value for name, value in layers.items()}
    node = next(node for node in builder.nodes if node.output[0] == spelling.OUTPUT)
    features = node.input[0] if node.op_type == "Gemm" else None
    return ExportedGraph(builder, layers, final, features)


def _check_outputs(graph: ExportedGraph, info: ModelInfo) -> None:
    """Raise ModelError unless the graph fits what was said about the model."""
    outputs, classes = graph.scores.shape[0], len(info.trained_classes)
    if outputs != classes:
        raise ModelError(
            f"the model has {outputs} outputs for {classes} trained classes",
            where="model information",
            why="each output stands for one class",
            fix="list the class of each output as trained_classes",
        )
    if info.shape is not None and info.shape != graph.builder.shape:
        raise ModelError(
            f"the model takes {list(graph.builder.shape)}, its description says {list(info.shape)}",
            where="model information",
            fix="take the description that was written with this model",
        )


# ----------------------------------------------------------------------------------------- metadata


def _learning(graph: ExportedGraph, cut: str | None, seen: Observation, capacity: int) -> dict[str, Any]:
    """Return the metadata of the cut and of the learned head; empty without a cut."""
    if cut is None or seen.cut is None or graph.features is None:
        return {}
    levels = two_levels(seen.cut)
    lo, hi = seen.ranges[graph.features]
    return {
        "latent": {
            "tensor": cut,
            "threshold": levels.threshold.tolist(),
            "low": levels.low.tolist(),
            "high": levels.high.tolist(),
        },
        "head": {"tensor": graph.features, "lo": min(0.0, lo), "hi": hi, "capacity": capacity},
    }


def _description(info: ModelInfo, pixels: np.ndarray) -> dict[str, Any]:
    """Return the metadata that calibration does not change. pixels: the calibration images."""
    digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
    return {
        "schema": spelling.METADATA_SCHEMA,
        "name": info.name,
        "classes": info.classes,
        "trained_classes": info.trained_classes,
        "input": {"scale": info.input_scale, "offset": info.input_offset},
        "source": {
            "tool": f"bnngen {bnngen.__version__}",
            "data": info.data,
            "data_sha256": info.data_sha256,
            "calibration": f"{len(pixels)} images, sha256 {digest}",
        },
    }


def _packed_bytes(shape: tuple[int, ...]) -> int:
    """Bytes of one 1-bit latent: whole 32-bit words for the channels of each pixel (docs/numerics.md)."""
    *pixels, channels = shape
    return int(np.prod(pixels, dtype=np.int64)) * -(-channels // 32) * 4


# ----------------------------------------------------------------------------------- check and write


def _compare(keras: tf.keras.Model, images: np.ndarray, scores: np.ndarray, progress: Progress) -> Check:
    """Return how far Keras and onnxruntime differ. Raises ModelError when they do not agree."""
    expected = []
    for part in keras_model.run_batches(keras, images):
        expected.append(part)
        progress("check against Keras", sum(map(len, expected)), len(images))
    reference = np.concatenate(expected)
    difference = np.abs(reference.astype(np.float64) - scores)
    agreement = float(np.mean(reference.argmax(axis=1) == scores.argmax(axis=1)))
    if agreement < LEAST_AGREEMENT or not np.isfinite(difference).all():
        raise ModelError(
            f"the ONNX model agrees with Keras on {agreement:.1%} of {len(images)} images only",
            where="check of the exported model",
            why=f"the largest difference of a score is {difference.max():.3g}; nothing was written",
            fix="this is a fault of bnngen unless values lie at sign thresholds: please report the model",
        )
    flipped = int((difference.max(axis=1) > FLIP * max(1.0, np.abs(reference).max())).sum())
    return Check(len(images), float(difference.max()), float(difference.mean()), agreement, flipped)


def _check_out(out: Path) -> None:
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent}", where=str(out), fix="create it, or choose another -o")
    if out.suffix != ".onnx":
        raise UsageError(f"{out.name} is no name of an ONNX file", where="-o", why="another file might be overwritten",
                         fix=f"-o {out.with_suffix('.onnx').name}")
    if out.is_dir():
        raise UsageError(f"{out} is a folder", fix="name a file: -o model.onnx")


def _write(model: onnx.ModelProto, metadata: dict[str, Any], out: Path) -> int:
    """Write the file with its metadata, whole or not at all; return its size in bytes."""
    text = json.dumps(metadata, sort_keys=True, allow_nan=False)
    onnx.helper.set_model_props(model, {spelling.METADATA_KEY: text})
    content = model.SerializeToString(deterministic=True)
    partial = out.with_name(out.name + ".partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, out)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{out} cannot be written", why=str(error), fix="free space, or choose another -o") from error
    return len(content)
