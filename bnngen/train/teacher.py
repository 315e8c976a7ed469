# SPDX-License-Identifier: Apache-2.0
"""Knowledge distillation: a trained model's scores as a second thing to learn (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from bnngen.errors import UsageError
from bnngen.train.config import INPUT_OFFSET, INPUT_SCALE

LEAST_PROBABILITY = 1e-30


@dataclass(frozen=True)
class Teacher:
    """scale, offset: the model's input is scale * pixel + offset; probabilities: it ends in a softmax."""

    model: tf.keras.Model
    scale: float
    offset: float
    probabilities: bool

    def logits(self, x: tf.Tensor) -> tf.Tensor:
        """Return its scores before softmax, but for a constant of each image: float32 [N, classes].

        x: uint8 [N, H, W, C].
        """
        scores = self.model(tf.cast(x, tf.float32) * self.scale + self.offset, training=False)
        scores = tf.cast(scores, tf.float32)
        return tf.math.log(tf.maximum(scores, LEAST_PROBABILITY)) if self.probabilities else scores


def load_teacher(path: Path, shape: tuple[int, int, int], classes: list[str]) -> Teacher:
    """Load a teacher for images [H, W, C] of these classes, in the order of the outputs.

    What `bnngen train` wrote beside it says its input's scale and its classes; without it the scale is taken to be
    that of our models. Raises UsageError for a file that is no model, or one for other images or classes.
    """
    try:
        model = tf.keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError("the teacher cannot be read", where=str(path), why=str(error),
                         fix="give a .keras file, for example one that `bnngen train --float` wrote") from error
    _check_shapes(model, path, shape, len(classes))
    meta = _meta(path)
    if meta and meta["classes"] != classes:
        raise UsageError("the teacher knows other classes", where=str(path),
                         why=f"its outputs are {_few(meta['classes'])}, those to be trained {_few(classes)}",
                         fix="train the teacher with the same --data and --classes")
    scaling = meta["input"] if meta else {"scale": INPUT_SCALE, "offset": INPUT_OFFSET}
    return Teacher(model, scaling["scale"], scaling["offset"], _ends_in_softmax(model))


def distillation(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)) of each image, in nats: float32 [N].

    T^2 keeps the gradient's size when T changes. teacher, student: logits [N, classes].
    """
    teacher, student = (tf.nn.log_softmax(logits / temperature) for logits in (teacher, student))
    return temperature**2 * tf.reduce_sum(tf.exp(teacher) * (teacher - student), axis=1)


def _check_shapes(model: tf.keras.Model, path: Path, shape: tuple[int, int, int], classes: int) -> None:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UsageError("the teacher has several inputs or outputs", where=str(path),
                         why="it gets an image, and gives the scores that are to be learned", fix="give a classifier")
    takes, gives = tuple(model.inputs[0].shape[1:]), tuple(model.outputs[0].shape[1:])
    fits = len(takes) == 3 and all(have in (None, want) for have, want in zip(takes, shape, strict=True))
    if not fits:
        raise UsageError("the teacher takes other images", where=str(path),
                         why=f"it takes {list(takes)}, the data are {list(shape)}",
                         fix="train the teacher with the same --data")
    if gives != (classes,):
        raise UsageError("the teacher has another number of classes", where=str(path),
                         why=f"it gives {list(gives)}, {classes} classes are to be trained",
                         fix="train the teacher with the same --data and --classes")


def _ends_in_softmax(model: tf.keras.Model) -> bool:
    last = next(layer for layer in reversed(model.layers) if layer.output is model.outputs[0])
    softmax = tf.keras.activations.softmax
    return isinstance(last, tf.keras.layers.Softmax) or getattr(last, "activation", None) is softmax


def _meta(path: Path) -> dict | None:
    """Return what stands beside the teacher, or None."""
    file = path.with_suffix(".meta.json")
    if not file.exists():
        return None
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
        return {"classes": list(meta["classes"]), "input": {k: float(meta["input"][k]) for k in ("scale", "offset")}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError("what stands beside the teacher cannot be read", where=str(file), why=str(error),
                         fix="restore the file, or remove it where the input is pixel / 128 - 1") from error


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", .." if len(names) > 5 else "")
