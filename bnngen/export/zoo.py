# SPDX-License-Identifier: Apache-2.0
"""The models of larq_zoo by name: `zoo:QuickNet`, with published, given or random weights.

Random weights behave like trained ones: see random_weights.py.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from bnngen.errors import ModelError, ToolError, UsageError
from bnngen.export.config import SYNTHETIC, Calibration, ModelInfo, Progress
from bnngen.export.random_weights import fill_randomly
from bnngen.export.synthetic import natural_images

LITERATURE = (
    "BinaryAlexNet",
    "BiRealNet",
    "BinaryResNetE18",
    "BinaryDenseNet28",
    "BinaryDenseNet37",
    "BinaryDenseNet37Dilated",
    "BinaryDenseNet45",
    "DoReFaNet",
    "RealToBinaryNet",
    "XNORNet",
    "MeliusNet22",
)
SOTA = ("QuickNetSmall", "QuickNet", "QuickNetLarge")
MODELS = LITERATURE + SOTA
PREFIX = "zoo:"

SHAPE = (224, 224, 3)
CLASSES = 1000
IMAGES = 16  # synthetic ones, for statistics and calibration
# larq_zoo's preprocess_input: (pixel - mean) / deviation in each of R, G, B; ImageNet's statistics times 255.
MEAN = np.array([0.485, 0.456, 0.406]) * 255
DEVIATION = np.array([0.229, 0.224, 0.225]) * 255
PIXEL_OFFSET = -128.0  # the model reads pixel - 128, which is exact in eight bits; "preprocess" does the rest
DOWNLOAD_SECONDS = 30.0  # without a byte


def open_zoo(
    name: str, weights: str, progress: Progress
) -> tuple[tf.keras.Model, ModelInfo, Calibration | None]:
    """Return a model of larq_zoo up to its scores, for images [224, 224, 3], its description and its calibration.

    name: one of MODELS, with or without the prefix `zoo:`. weights: "imagenet" (downloaded once, then kept by Keras),
    "none" (random, always the same) or a file of weights for this model. The calibration is None where the weights
    were trained: then real images are needed. The model subtracts larq_zoo's means itself, in a batch norm.

    Raises UsageError for a name or file that is not there, ToolError without larq_zoo, ModelError for a file that
    does not fit.
    """
    name = zoo_name(name)
    build = _builder(name)
    info = ModelInfo(
        name=name,
        classes=tuple(map(str, range(CLASSES))),
        trained_classes=tuple(range(CLASSES)),
        input_scale=1.0,
        input_offset=PIXEL_OFFSET,
        shape=SHAPE,
        data="ImageNet" if weights != "none" else SYNTHETIC,
    )
    if weights == "imagenet":
        return _with_preprocessing(_download(name, build, progress)), info, None
    zoo = build(weights=None, input_shape=SHAPE)
    if weights != "none":
        _load(zoo, name, Path(weights))
        return _with_preprocessing(zoo), info, None
    images = natural_images(IMAGES, SHAPE, seed=zlib.crc32(name.encode()))
    fill_randomly(zoo, preprocess(images), CLASSES, progress)
    return _with_preprocessing(zoo), info, Calibration(images, None, SYNTHETIC)


def zoo_name(name: str) -> str:
    """Return the model's name as larq_zoo spells it. Raises UsageError for a name that it does not have."""
    asked = name.removeprefix(PREFIX)
    known = {model.lower(): model for model in MODELS}
    if asked.lower() in known:
        return known[asked.lower()]
    near = difflib.get_close_matches(asked.lower(), known, n=1)
    hint = f"; did you mean {PREFIX}{known[near[0]]}?" if near else ""
    raise UsageError(
        f"larq_zoo has no model {asked!r}{hint}", where=name, fix="one of " + ", ".join(MODELS)
    )


def preprocess(images: np.ndarray) -> np.ndarray:
    """Return what larq_zoo feeds its models for images uint8 [N, H, W, 3]: float32, mean 0, deviation 1."""
    return ((images.astype(np.float64) - MEAN) / DEVIATION).astype(np.float32)


# ---------------------------------------------------------------------------------------- the package


def _builder(name: str) -> Callable[..., tf.keras.Model]:
    package = "larq_zoo.sota" if name in SOTA else "larq_zoo.literature"
    try:
        return getattr(importlib.import_module(package), name)
    except ImportError as error:
        raise ToolError(
            "larq_zoo cannot be imported",
            where=f"{PREFIX}{name}",
            why=str(error).splitlines()[0],
            fix="pip install 'bnngen[train,zoo]'",
        ) from error


def _download(name: str, build: Callable[..., tf.keras.Model], progress: Progress) -> tf.keras.Model:
    """Return the model with its published weights; Keras keeps the file. Raises UsageError without network."""
    progress(f"fetch the ImageNet weights of {name}", 0, 0)
    try:
        with _quiet(), _timeout(DOWNLOAD_SECONDS):
            model = build(weights="imagenet", input_shape=SHAPE)
    except Exception as error:  # Keras raises a bare Exception for a failed download
        raise UsageError(
            f"the ImageNet weights of {name} could not be fetched",
            where=f"{PREFIX}{name} --weights imagenet",
            why=(str(error).splitlines() or [type(error).__name__])[0],
            fix="connect to the network once; or give a file that was fetched elsewhere, --weights FILE.h5; "
            "or try without, --weights none",
        ) from error
    progress(f"fetch the ImageNet weights of {name}", 1, 1)
    _check_finite(model, f"{PREFIX}{name} --weights imagenet")
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Keras's progress bar off the console, which belongs to the command line."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Give up a connection on which nothing arrives; Keras itself would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _load(model: tf.keras.Model, name: str, path: Path) -> None:
    """Fill the model with a file's weights. Raises UsageError, ModelError."""
    if not path.is_file():
        raise UsageError(
            f"there is no file {path}", where="--weights", fix="--weights imagenet, none or a file of weights"
        )
    try:
        model.load_weights(path)
    except Exception as error:  # h5py and Keras raise whatever their parts raise
        raise ModelError(
            f"{path.name} does not hold the weights of {name}",
            where=str(path),
            why=(str(error).splitlines() or [type(error).__name__])[0],
            fix="give a file that model.save_weights('weights.h5') wrote for this model with 1000 classes",
        ) from error
    _check_finite(model, str(path))


def _check_finite(model: tf.keras.Model, where: str) -> None:
    for variable in model.weights:
        if not np.isfinite(variable.numpy()).all():
            raise ModelError(
                f"weight {variable.name} is not finite",
                where=where,
                why="infinity and NaN have no integer scale",
                fix="take weights of a training that did not diverge",
            )


def _with_preprocessing(zoo: tf.keras.Model) -> tf.keras.Model:
    """Return the zoo model up to its scores, behind the normalization of its input's three colours.

    Both are made by batch norms: variance and epsilon are chosen to sum to the square of the deviation.
    """
    epsilon = 1e-3
    scores = tf.keras.Model(zoo.inputs, zoo.layers[-1].input, name=zoo.name)  # without the softmax
    layer = tf.keras.layers.BatchNormalization(center=False, scale=False, epsilon=epsilon, name="preprocess")
    image = tf.keras.layers.Input(SHAPE, name="image")
    model = tf.keras.Model(image, scores(layer(image)), name=zoo.name)
    layer.set_weights([MEAN + PIXEL_OFFSET, DEVIATION**2 - epsilon])
    return model
