# SPDX-License-Identifier: Apache-2.0
"""Loads Keras files, runs them, and lists a model's layers in the order in which they compute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import larq  # noqa: F401  (registers its layers and quantizers with Keras)
import numpy as np
import tensorflow as tf

from bnngen.errors import ModelError, UsageError
from bnngen.export.config import ModelInfo, check_images, read_info, real_images

BATCH = 64
SUFFIXES = (".keras", ".h5", ".hdf5")
ONE_PATH = "bnngen takes one image in and gives one vector of class scores"


@dataclass(frozen=True)
class LayerCall:
    """One layer in place. inputs, output: keys of tensors; shape: of the output, without the batch axis."""

    layer: tf.keras.layers.Layer
    name: str
    inputs: tuple[str, ...]
    output: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LayerList:
    """The layers of a model in execution order, the keys of its input and output, the input's [H, W, C]."""

    calls: tuple[LayerCall, ...]
    input: str
    output: str
    shape: tuple[int, ...]


def run_keras(path: str | Path, x: np.ndarray, info: ModelInfo | None = None) -> np.ndarray:
    """Return Keras's scores before softmax, float32 [N, classes], for images x, uint8 [N, H, W, C].

    info: how pixels are scaled; None reads NAME.meta.json beside the model. Raises UsageError, ModelError
    for the model and DataError for the images.
    """
    path = Path(path)
    model = without_softmax(load_keras(path))
    check_images(x, list_layers(model).shape, "images")
    parts = list(run_batches(model, real_images(x, info or read_info(path))))
    return np.concatenate(parts) if parts else np.zeros((0, model.output_shape[-1]), np.float32)


def run_batches(model: tf.keras.Model, images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the model's output for one batch of images, float32 [N, H, W, C], after the other."""
    for start in range(0, len(images), BATCH):
        yield model(images[start : start + BATCH], training=False).numpy()


def load_keras(path: Path) -> tf.keras.Model:
    """Return the model in a .keras or .h5 file. Raises UsageError, ModelError."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}", fix="bnngen train BACKBONE --data DATA writes model.keras")
    if path.suffix not in SUFFIXES:
        raise ModelError(
            f"{path.name} is not a Keras file",
            where=str(path),
            why=f"Keras files end in {', '.join(SUFFIXES)}",
            fix="save the model with model.save('model.keras')",
        )
    try:
        return tf.keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever its parts raise
        raise ModelError(
            f"{path.name} cannot be read as a Keras model",
            where=str(path),
            why=(str(error).splitlines() or [type(error).__name__])[0],
            fix="save it under TensorFlow 2.15 with model.save('model.keras'), with layers and quantizers of "
            "Keras and Larq alone, quantizers given by name",
        ) from error


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
    calls: list[LayerCall] = []
    output = _collect(model, {}, calls, "")
    shape = _fixed_shape(model.inputs[0], f"model {model.name}")
    if len(shape) != 3:
        raise ModelError(f"the model's input is {list(shape)}, not an image [H, W, C]", where=f"model {model.name}")
    return LayerList(tuple(calls), _key(model.inputs[0]), output, shape)


def _collect(model: tf.keras.Model, alias: dict[str, str], calls: list[LayerCall], prefix: str) -> str:
    """Append the model's layer calls; return the key of its output.

    A nested model has tensors of its own for its input and output: `alias` maps them to the outer ones.
    """
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            layer, inputs = node.layer, tuple(alias.get(key, key) for key in node.flat_input_ids)
            name = _free_name(layer.name, prefix, calls)
            _check_node(node, name, calls)
            (output,) = node.flat_output_ids
            if isinstance(layer, tf.keras.Model):
                _enter(layer, inputs[0], alias)
                alias[output] = _collect(layer, alias, calls, f"{name}/")
                continue
            calls.append(LayerCall(layer, name, inputs, output, _fixed_shape(node.outputs, f"layer {name}")))
    key = _key(model.outputs[0])
    return alias.get(key, key)


def _enter(model: tf.keras.Model, source: str, alias: dict[str, str]) -> None:
    """Let the input of a nested model stand for the outer tensor `source`."""
    if not getattr(model, "_is_graph_network", False):
        raise ModelError(
            "a nested model is not a graph of layers",
            where=f"layer {model.name} ({type(model).__name__})",
            fix="build it as tf.keras.Model(inputs, outputs)",
        )
    _check_ends(model)
    alias[_key(model.inputs[0])] = source


def _check_ends(model: tf.keras.Model) -> None:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs",
            where=f"model {model.name}",
            why=ONE_PATH,
            fix="make a model of the one path: tf.keras.Model(image, scores)",
        )


def _check_node(node: Any, name: str, calls: list[LayerCall]) -> None:
    """Raise ModelError for a layer that is used twice, has several outputs, or acts as in training."""
    where = f"layer {name} ({type(node.layer).__name__})"
    if any(call.layer is node.layer for call in calls):
        raise ModelError(
            "a layer is used more than once",
            where=where,
            why="one set of weights in two places is not supported",
            fix="give each place a layer of its own",
        )
    if len(node.flat_output_ids) != 1:
        raise ModelError("a layer has several outputs", where=where, why=ONE_PATH)
    if node.call_kwargs.get("training"):
        raise ModelError(
            "a layer is called with training=True",
            where=where,
            why="it would act at random, or on batch statistics, when the model is used",
            fix="call it without the argument",
        )


def _free_name(name: str, prefix: str, calls: list[LayerCall]) -> str:
    """Return the layer's name, with that of its model before it where two layers have one name."""
    return prefix + name if any(call.name == name for call in calls) else name


def _key(tensor: Any) -> str:
    """Return the key that Keras gives a symbolic tensor in its nodes."""
    return str(id(tensor))


def _fixed_shape(tensor: Any, where: str) -> tuple[int, ...]:
    shape = tuple(tensor.shape[1:])
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
    if getattr(last, "activation", None) is tf.keras.activations.softmax:
        last.activation = tf.keras.activations.linear
    return model
