# SPDX-License-Identifier: Apache-2.0
"""Loads Keras files, runs them, and lists a model's layers in the order in which they compute."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import larq  # noqa: F401  (registers its layers and quantizers with Keras)
import numpy as np
import tensorflow as tf

import bnngen.train.layers  # noqa: F401  (registers its layers too)
from bnngen.errors import BnngenError, ModelError, UsageError
from bnngen.export.config import NO_CODE, ModelInfo, OwnCode, check_images, read_info, real_images
from bnngen.export.own_code import SAVE_AS_KERAS, load, own_objects, reason
from bnngen.export.site import Arguments, Operand, as_map

BATCH = 64
SUFFIXES = (".keras", ".h5", ".hdf5")
SHORT_TYPES = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
SHAPE_OPS = ("shape", "compat.v1.shape")
LAYERS_GONE = "only a .keras or .h5 file keeps the model's layers as Keras and Larq know them"
ONE_PATH = "bnngen takes one image in and gives one vector of class scores"


@dataclass(frozen=True)
class LayerCall:
    """One layer in place, and one result of it. inputs, output: keys of tensors; shape: without the batch axis."""

    layer: tf.keras.layers.Layer
    name: str
    inputs: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    arguments: Arguments = Arguments()


@dataclass(frozen=True)
class LayerList:
    """The layers of a model in execution order, the keys of its input and output, the image's [H, W, C]."""

    calls: tuple[LayerCall, ...]
    input: str
    output: str
    shape: tuple[int, ...]


def run_keras(
    path: str | Path, x: np.ndarray, info: ModelInfo | None = None, own: OwnCode = NO_CODE
) -> np.ndarray:
    """Return Keras's scores before softmax, float32 [N, classes], for images x, uint8 [N, H, W, C].

    info: how pixels are scaled; None reads NAME.meta.json beside the model. own: as for load_keras. Raises UsageError,
    ModelError for the model and DataError for the images.
    """
    path = Path(path)
    model = without_softmax(load_keras(path, own))
    check_images(x, list_layers(model).shape, "images")
    parts = list(run_batches(model, real_images(x, info or read_info(path))))
    return np.concatenate(parts) if parts else np.zeros((0, model.output_shape[-1]), np.float32)


def run_batches(model: tf.keras.Model, images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the model's output for one batch of images, float32 [N, H, W, C], after the other."""
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH].reshape(-1, *model.input_shape[1:])  # a sequence has no width
        yield np.asarray(model(batch, training=False), np.float32)


def load_keras(path: Path, own: OwnCode = NO_CODE) -> tf.keras.Model:
    """Return the model in a .keras or .h5 file, which may need the user's own code. Raises UsageError, ModelError."""
    _check_file(path)
    try:
        model = load(path, own)
        with own_objects(own):
            return as_float32(model)
    except BnngenError:
        raise
    except Exception as error:  # Keras raises whatever its parts raise
        why, fix = reason(error, path, own) or (
            (str(error).rpartition("Exception encountered: ")[2].splitlines() or [type(error).__name__])[0],
            f"{SAVE_AS_KERAS}, under TensorFlow 2.15",
        )
        message = f"{path.name} cannot be read as a Keras model"
        raise ModelError(message, where=str(path), why=why, fix=fix) from error


def _check_file(path: Path) -> None:
    """Raise UsageError, ModelError unless the file can be a whole model."""
    if path.is_dir():
        what = "a SavedModel, TensorFlow's own format" if (path / "saved_model.pb").is_file() else "no Keras file"
        raise ModelError(f"{path.name} is a folder: {what}", where=str(path), why=LAYERS_GONE, fix=SAVE_AS_KERAS)
    if not path.is_file():
        raise UsageError(f"there is no file {path}", fix="bnngen train BACKBONE --data DATA writes model.keras")
    if path.suffix not in SUFFIXES:
        why = f"they end in {', '.join(SUFFIXES)}"
        raise ModelError(f"{path.name} is not a Keras file", where=str(path), why=why, fix=SAVE_AS_KERAS)
    if path.name.endswith((".weights.h5", ".weights.hdf5")):
        raise ModelError(f"{path.name} holds weights alone, without the model", where=str(path), fix=SAVE_AS_KERAS)


def as_float32(model: tf.keras.Model) -> tf.keras.Model:
    """Return the model, or where it computes in 16 bits its copy that computes in 32, with the same weights."""
    if all(layer.compute_dtype in ("float32", None) for layer in model._flatten_layers()):
        return model
    config = _with_float32(model.get_config())
    copy = type(model).from_config(config)
    copy.set_weights([weight.astype(np.float32) for weight in model.get_weights()])
    return copy


def _with_float32(config: Any) -> Any:
    """Return a layer's configuration with every policy or type of 16 bits replaced."""
    if isinstance(config, dict):
        if config.get("class_name") == "Policy":
            return "float32"
        return {key: _with_float32(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_with_float32(value) for value in config)
    is_short = isinstance(config, str) and config in SHORT_TYPES
    return "float32" if is_short else config


def list_layers(model: tf.keras.Model) -> LayerList:
    """Return the layers of a model in execution order, those of nested models in their place.

    Raises ModelError for what is not one graph from one image to one output.
    """
    if not getattr(model, "_is_graph_network", False) or not model.inputs:
        raise ModelError(
            "the model is not a graph of layers with a fixed input shape",
            where=f"model {model.name}",
            why="a subclassed model, or a Sequential without an Input, has no layers in a known order",
            fix="build it as tf.keras.Model(inputs, outputs), or start the Sequential with an Input layer",
        )
    _check_ends(model)
    calls, (output,) = collect(model)
    shape = _fixed_shape(model.inputs[0], f"model {model.name}")
    if len(shape) not in (2, 3):
        raise ModelError(
            f"the model's input is {list(shape)}, not an image [H, W, C]",
            where=f"model {model.name}",
            why="an image, or a sequence [L, C], comes in",
            fix="give Input the shape (1, 1, C) for a single vector",
        )
    return LayerList(tuple(calls), key_of(model.inputs[0]), output, as_map(shape))


def collect(model: tf.keras.Model) -> tuple[list[LayerCall], list[str]]:
    """Return the layer calls of a graph of layers in execution order, and the keys of its outputs."""
    listing = _Listing()
    outputs = listing.walk(model, "")
    return listing.calls, outputs


class _Listing:
    """A walk over a model and its nested ones.

    alias: a nested model has tensors of its own for its inputs and outputs; the outer ones stand for them.
    sizes: tensors that hold a shape, which is fixed, so that nothing has to compute them.
    """

    def __init__(self) -> None:
        self.calls: list[LayerCall] = []
        self._alias: dict[str, str] = {}
        self._sizes: set[str] = set()
        self._used: list[tf.keras.layers.Layer] = []
        self._names: set[str] = set()

    def walk(self, model: tf.keras.Model, prefix: str) -> list[str]:
        """Append the model's layer calls; return the keys of its outputs."""
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if not node.is_input:
                    self._visit(node, prefix)
        return [self._alias.get(key, key) for key in map(key_of, model.outputs)]

    def _visit(self, node: Any, prefix: str) -> None:
        layer, keys = node.layer, [self._alias.get(key, key) for key in node.flat_input_ids]
        if getattr(layer, "symbol", "") in SHAPE_OPS or all(key in self._sizes for key in keys):
            self._sizes.update(node.flat_output_ids)
            return
        name = self._free_name(layer.name, prefix)
        self._check(node, name)
        self._used.append(layer)
        if isinstance(layer, tf.keras.Model):
            self._enter(node, keys, name)
            return
        arguments, inputs = self._arguments(node, keys)
        results = tf.nest.flatten(node.outputs)
        for index, (output, tensor) in enumerate(zip(node.flat_output_ids, results, strict=True)):
            shape = _fixed_shape(tensor, f"layer {name}")
            part = name if len(results) == 1 else f"{name}/{index}"
            self.calls.append(LayerCall(layer, part, inputs, output, shape, replace(arguments, output=index)))

    def _enter(self, node: Any, keys: list[str], name: str) -> None:
        """Take the layers of a nested model; its inputs stand for the outer tensors."""
        model = node.layer
        if not getattr(model, "_is_graph_network", False):
            raise ModelError(
                "a nested model is not a graph of layers",
                where=f"layer {model.name} ({type(model).__name__})",
                fix="build it as tf.keras.Model(inputs, outputs)",
            )
        self._alias.update(zip(map(key_of, model.inputs), keys, strict=True))
        self._alias.update(zip(node.flat_output_ids, self.walk(model, f"{name}/"), strict=True))

    def _arguments(self, node: Any, keys: list[str]) -> tuple[Arguments, tuple[str, ...]]:
        """Return how the layer was called, and the keys of its inputs without sizes."""
        kept = [key for key in keys if key not in self._sizes]
        place = {id(tensor): key for tensor, key in zip(node.keras_inputs, keys, strict=True)}
        shapes = [tuple(t.shape[1:]) for t, key in zip(node.keras_inputs, keys, strict=True) if key in kept]

        def stand_in(value: Any) -> Any:
            key = place.get(id(value))
            if key is None:
                return value
            return Operand(kept.index(key)) if key in kept else -1

        args, kwargs = tf.nest.map_structure(stand_in, (tuple(node.call_args), dict(node.call_kwargs)))
        return Arguments(args, kwargs, tuple(shapes)), tuple(kept)

    def _check(self, node: Any, name: str) -> None:
        """Raise ModelError for a layer with weights that is used twice, or that acts as in training."""
        where = f"layer {name} ({type(node.layer).__name__})"
        repeated = any(layer is node.layer for layer in self._used)
        if repeated and (node.layer.weights or isinstance(node.layer, tf.keras.Model)):
            raise ModelError(
                "a layer is used more than once",
                where=where,
                why="one set of weights in two places is not supported",
                fix="give each place a layer of its own",
            )
        if node.call_kwargs.get("training"):
            raise ModelError(
                "a layer is called with training=True",
                where=where,
                why="it would act at random, or on batch statistics, when the model is used",
                fix="call it without the argument",
            )

    def _free_name(self, name: str, prefix: str) -> str:
        """Return the layer's name; where one has it already, with that of its model before it, or a number behind."""
        candidates = itertools.chain((name, prefix + name), (f"{prefix}{name}_{i}" for i in itertools.count(2)))
        chosen = next(candidate for candidate in candidates if candidate not in self._names)
        self._names.add(chosen)
        return chosen


def _check_ends(model: tf.keras.Model) -> None:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs",
            where=f"model {model.name}",
            why=ONE_PATH,
            fix="make a model of the one path: tf.keras.Model(image, scores)",
        )


def key_of(tensor: Any) -> str:
    """Return the key that Keras gives a symbolic tensor in its nodes."""
    return str(id(tensor))


def _fixed_shape(tensor: Any, where: str) -> tuple[int, ...]:
    shape = (None,) if tensor.shape.rank is None else tuple(tensor.shape[1:])
    if None in shape:
        raise ModelError(
            f"a shape is not fixed: {list(shape)}",
            where=where,
            why="all memory is planned when code is generated",
            fix="give Input the height and width of the images",
        )
    return shape


# ------------------------------------------------------------------------------------------ softmax


def without_softmax(model: tf.keras.Model) -> tf.keras.Model:
    """Return the model up to its scores: a softmax at the end, which does not change the winner, is left out.

    The activation of a last layer is changed in place. Raises ModelError as list_layers does.
    """
    layers = list_layers(model)
    last = next((call.layer for call in layers.calls if call.output == layers.output), None)
    if isinstance(last, tf.keras.layers.Softmax):
        if last not in model.layers:
            raise ModelError(
                "the model ends in a softmax inside a nested model",
                where=f"layer {last.name} (Softmax)",
                fix="make the softmax a layer of the outer model",
            )
        return tf.keras.Model(model.inputs, last.input, name=model.name)
    if getattr(last, "symbol", "") == "nn.softmax" and last in model.layers:
        return tf.keras.Model(model.inputs, last.input, name=model.name)
    if getattr(last, "activation", None) is tf.keras.activations.softmax:
        last.activation = tf.keras.activations.linear
    return model
