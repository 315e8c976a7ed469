# SPDX-License-Identifier: Apache-2.0
"""What an export starts from: a model as an ONNX graph, with the engine that knows its true scores.

A Keras file, a model of the zoo and an ONNX file of another tool become a `Source`; behind that, exporter.py
treats all three alike. The modules that read them are imported when needed: TensorFlow is not for the last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bnngen.errors import UsageError
from bnngen.export.builder import GraphBuilder, Value
from bnngen.export.config import (
    Calibration,
    ExportConfig,
    ModelInfo,
    Progress,
    check_info,
    read_calibration,
    read_info,
    sibling,
)
from bnngen.export.cuts import Cuttable, separators
from bnngen.frontend import spelling

ZOO = "zoo:"


@dataclass(frozen=True)
class ExportedGraph:
    """The ONNX graph of a model.

    builder: its nodes, `finish` done. layers: the output of every layer. scores: the output, a vector before
    softmax. features: the real-valued input of the final Gemm, None where something else is last.
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
        return Cuttable(layers, real, possible, self.features, tuple(self._joins(chosen)))

    def _joins(self, separating: set[str]) -> Iterator[str]:
        """Yield, in order, the tensors of `separating` in front of the features that several nodes read."""
        readers = Counter(name for node in self.builder.nodes for name in dict.fromkeys(node.input))
        for node in self.builder.nodes:
            if node.output[0] == self.features:
                return
            if node.output[0] in separating and readers[node.output[0]] > 1:
                yield node.output[0]


def features_of(builder: GraphBuilder) -> str | None:
    """Return the input of the Gemm that gives the scores; None where something else does, or reads bits.

    builder: `finish` done.
    """
    node = next(node for node in builder.nodes if node.output[0] == spelling.OUTPUT)
    return node.input[0] if node.op_type == "Gemm" and not builder.is_binary(node.input[0]) else None


@dataclass(frozen=True)
class Source:
    """A model to be exported.

    run: real-valued images, float32 [N, H, W, C], -> scores before softmax, float32 [n, classes], in batches that
    together are N; computed by the source's own engine, never by the exported file. engine: that engine's name
    in messages, "Keras" or "the original file". name: what the model is called.
    """

    graph: ExportedGraph
    run: Callable[[np.ndarray], Iterator[np.ndarray]]
    engine: str
    name: str


@dataclass(frozen=True)
class Opened:
    """A source with what goes with it. calibration None: read what `bnngen train` left beside the model."""

    source: Source
    info: ModelInfo
    calibration: Calibration


def open_source(config: ExportConfig, progress: Progress) -> Opened:
    """Return the model that `config` names. Raises UsageError, ModelError, DataError."""
    given = str(config.model)
    if given.startswith(ZOO):
        return _open_zoo(given.removeprefix(ZOO), config, progress)
    if config.weights is not None:
        raise UsageError(
            f"--weights {config.weights} is for models of the zoo",
            where="--weights",
            why=f"{given} brings its own weights",
            fix="leave --weights out, or export zoo:NAME",
        )
    path = Path(config.model)
    if path.suffix == ".onnx":
        from bnngen.export.foreign import open_foreign

        source = open_foreign(path)
    else:
        from bnngen.export.keras_graph import keras_source
        from bnngen.export.keras_model import load_keras

        source = keras_source(load_keras(path, config.own))
    info = _with_classes(config.info or read_info(path), source)
    calibration = config.calibration or read_calibration(sibling(path, ".calib.npz"))
    return Opened(source, check_info(info, "model information"), calibration)


def _with_classes(info: ModelInfo, source: Source) -> ModelInfo:
    """Return the information; where nobody named the classes, outputs are called by their numbers."""
    if info.classes:
        return info
    outputs = source.graph.scores.shape[0]
    return replace(info, classes=tuple(map(str, range(outputs))), trained_classes=tuple(range(outputs)))


def _open_zoo(name: str, config: ExportConfig, progress: Progress) -> Opened:
    from bnngen.export.keras_graph import keras_source
    from bnngen.export.zoo import open_zoo, zoo_name

    weights, name = config.weights or "imagenet", zoo_name(name)
    if config.calibration is None and weights != "none":  # before anything is fetched
        raise _no_zoo_images(name)
    model, info, calibration = open_zoo(name, weights, progress)
    calibration = config.calibration or calibration
    if calibration is None:
        raise _no_zoo_images(name)
    return Opened(keras_source(model), check_info(config.info or info, "model information"), calibration)


def _no_zoo_images(name: str) -> UsageError:
    """Return the error of a zoo model with trained weights and no images."""
    return UsageError(
        f"there are no images to calibrate {ZOO}{name} on",
        where="--calibrate",
        why="the ranges of all tensors are measured on images, and the zoo brings none",
        fix=f"bnngen export {ZOO}{name} --calibrate DATA; or to try it with random weights: --weights none",
    )
