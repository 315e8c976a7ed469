# SPDX-License-Identifier: Apache-2.0
"""What an export is asked for, what it returns, and the files that training leaves beside the model."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnngen.data import fitted, npz_fault
from bnngen.errors import DataError, ModelError, UsageError

Progress = Callable[[str, int, int], None]

FEATURES = "features"  # the cut at the input of the classifier
TAIL_CUT = "tail:"  # and a number of residual blocks: the cut in front of so many of the last ones
NO_CUT = "none"  # inference only: no latent, no learned head
METHODS = ("mse", "percentile", "minmax")  # how calibration proposes where an 8-bit tensor saturates
MEASURED = "the ranges of all tensors are measured on images"
SYNTHETIC = "synthetic images"  # the name of a calibration that bnngen made up
META_SCHEMA = 1
MAX_CALIBRATION_IMAGES = 512
LEAST_CALIBRATION_IMAGES = 16
MAX_CALIBRATION_PIXELS = 1 << 20  # of all images together: large ones have many positions each
LEAST_CAPACITY = 10  # of a head whose size nobody chose
MOST_CAPACITY = 16384  # docs/numerics.md, section 5


@dataclass(frozen=True)
class ModelInfo:
    """What a Keras file does not say itself.

    classes: names of all classes of the data set; trained_classes: those that the model's outputs stand for,
    in the order of the outputs. The model's input is scale * pixel + offset, pixel in 0..255.
    shape: [H, W, C] of the training images, None when unknown. data, data_sha256: what it was trained on,
    "" when unknown.
    """

    name: str
    classes: tuple[str, ...]
    trained_classes: tuple[int, ...]
    input_scale: float
    input_offset: float
    shape: tuple[int, ...] | None = None
    data: str = ""
    data_sha256: str = ""


@dataclass(frozen=True)
class Calibration:
    """Images to measure ranges on: x uint8 [N, H, W, C], [N, H, W] or [N, L, C], labels y [N] or None, a name.

    Where labels are given, images of classes that the model was not trained on are left out: a range
    measured on them would tell the device of classes that it meets only later.
    """

    x: np.ndarray
    y: np.ndarray | None = None
    name: str = ""


@dataclass(frozen=True)
class OwnCode:
    """Code of the user's own that a Keras file needs to be read.

    files: Python files, imported first. trust_lambdas: Lambda layers may be read without such a file; reading one runs
    code that the Keras file holds.
    """

    files: tuple[Path, ...] = ()
    trust_lambdas: bool = False


NO_CODE = OwnCode()


@dataclass(frozen=True)
class ExportConfig:
    """An export.

    model: a .keras or .h5 file, `zoo:NAME`, or an ONNX file of another tool; out: the ONNX file to write.
    calibration, info: None takes the files that `bnngen train` left beside the model (NAME.calib.npz,
    NAME.meta.json), or what the zoo brings. cut: "features", a layer's name, or "none"; None is "features" where
    the model ends in Dense, otherwise "none".
    capacity: most classes of the learned head; None is the number of classes, ten at least.
    weights: of a zoo model: "imagenet" (also None), "none" for random ones, or a file.
    method: how calibration proposes the saturation of 8-bit tensors, one of METHODS. own: code that the model needs.
    """

    model: str | Path
    out: Path
    calibration: Calibration | None = None
    info: ModelInfo | None = None
    cut: str | None = None
    capacity: int | None = None
    weights: str | None = None
    method: str = METHODS[0]
    own: OwnCode = NO_CODE


@dataclass(frozen=True)
class Check:
    """The model's own engine against onnxruntime on the calibration images, scores before softmax.

    agreement: share of the images on which both choose the same class. flipped: images on which a score differs
    by more than rounding explains, since a value within rounding of zero took the other sign.
    """

    images: int
    max_difference: float
    mean_difference: float
    agreement: float
    flipped: int


@dataclass(frozen=True)
class ExportResult:
    """What was written. cut, cut_shape, features are None, and latent_bytes and capacity 0, without a cut.

    latent_bytes: one packed 1-bit latent, in whole 32-bit words for each pixel. engine: what the exported file was
    compared with. note: a choice that was made for the user, "" without one.
    """

    path: Path
    nodes: int
    file_bytes: int
    check: Check
    cut: str | None
    cut_shape: tuple[int, ...] | None
    latent_bytes: int
    features: str | None
    capacity: int
    engine: str = "Keras"
    note: str = ""


def real_images(x: np.ndarray, info: ModelInfo) -> np.ndarray:
    """Return the model's input, float32: scale * pixel + offset, rounded once."""
    return (x.astype(np.float64) * info.input_scale + info.input_offset).astype(np.float32)


def sibling(keras: Path, suffix: str) -> Path:
    """Return the file of that suffix that training leaves beside the model."""
    return keras.with_suffix(suffix)


# ------------------------------------------------------------------------------------ model.meta.json


def read_info(keras: Path) -> ModelInfo:
    """Return what NAME.meta.json beside the model says. Raises ModelError."""
    path = sibling(keras, ".meta.json")
    if not path.is_file():
        raise ModelError(
            f"there is no {path.name} beside {keras.name}",
            where=str(keras),
            why="it says what the outputs stand for and how pixels are scaled; bnngen train writes it",
            fix="bnngen export MODEL --calibrate DATA --input-scale S --input-offset O [--classes cat,dog]",
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path.name} is not JSON", where=str(path), fix="train the model again") from error
    if not isinstance(data, dict) or data.get("schema") != META_SCHEMA:
        raise ModelError(
            f"{path.name} does not have schema {META_SCHEMA}",
            where=str(path),
            fix="train the model again with this version",
        )
    try:
        info = _info(data, keras.stem)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path.name} lacks a field, or has one of another type: {error}",
            where=str(path),
            fix="train the model again with this version",
        ) from error
    return check_info(info, str(path))


def _info(data: dict[str, Any], name: str) -> ModelInfo:
    image = data["input"]
    if image["dtype"] != "uint8":
        raise ValueError(f"input.dtype is {image['dtype']}, not uint8")
    return ModelInfo(
        name=str(data.get("name", name)),
        classes=tuple(str(c) for c in data.get("data_classes", data["classes"])),
        trained_classes=tuple(int(c) for c in data["trained_classes"]),
        input_scale=float(image["scale"]),
        input_offset=float(image["offset"]),
        shape=tuple(int(size) for size in image["shape"]),
        data=str(data.get("data", "")),
        data_sha256=str(data.get("data_sha256", "")),
    )


def check_info(info: ModelInfo, where: str) -> ModelInfo:
    """Return `info`. Raises ModelError unless scaling and class numbers can be."""
    if not 0 < info.input_scale < math.inf or not math.isfinite(info.input_offset):
        raise ModelError(
            f"input scale {info.input_scale} and offset {info.input_offset} cannot be",
            where=where,
            why="a pixel 0..255 becomes scale * pixel + offset; the scale is positive",
            fix="for a model on values in 0..1: scale 0.00392156862745098, offset 0",
        )
    trained = info.trained_classes
    if not trained or len(set(trained)) != len(trained) or not set(trained) <= set(range(len(info.classes))):
        raise ModelError(
            f"trained classes {list(trained)} are not distinct numbers of the {len(info.classes)} classes",
            where=where,
            why="every output of the model stands for one class",
            fix="list one class number, counted from 0, for each output",
        )
    return info


# -------------------------------------------------------------------------------------- calibration


def read_calibration(path: Path) -> Calibration:
    """Return the arrays x and y of an .npz file. Raises DataError."""
    if not path.is_file():
        raise DataError(
            "no calibration sample",
            where=str(path),
            why="the ranges of all tensors are measured on images; bnngen train keeps some beside the model",
            fix="name a data set: bnngen export model.keras --calibrate DATA",
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            return Calibration(archive["x"], archive["y"] if "y" in archive.files else None, path.name)
    except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path.name} is not a calibration sample",
            where=str(path),
            why=f"{_sample_fault(error)}; it is an .npz file with images x, uint8 [N, H, W, C], and perhaps labels y",
            fix="name a data set: bnngen export model.keras --calibrate DATA",
        ) from error


def _sample_fault(error: Exception) -> str:
    return "there is no array x in it" if isinstance(error, KeyError | AttributeError) else npz_fault(error)


def choose_images(calibration: Calibration, info: ModelInfo, shape: tuple[int, ...]) -> np.ndarray:
    """Return images [N, H, W, C] of the trained classes, evenly spread. Raises DataError.

    shape: [H, W, C] that the model takes. Images are at most 512, and of large ones fewer, 16 at least.
    """
    x, where = fitted(calibration.x, shape), calibration.name or "calibration sample"
    if not len(x):
        raise DataError(f"{where} holds no images", where=where, why=MEASURED, fix="look for what left it empty")
    check_images(x, shape, where)
    if calibration.y is not None:
        x = x[_is_trained(calibration.y, len(x), info, where)]
    if not len(x):
        raise DataError(
            "no calibration sample is left",
            where=where,
            why=f"it has no image of the trained classes {list(info.trained_classes)}",
            fix="calibrate with the data that the model was trained on",
        )
    fitting = MAX_CALIBRATION_PIXELS // (shape[0] * shape[1])
    count = min(len(x), max(LEAST_CALIBRATION_IMAGES, min(MAX_CALIBRATION_IMAGES, fitting)))
    return x[np.arange(count) * len(x) // count]


def check_images(x: np.ndarray, shape: tuple[int, ...], where: str) -> None:
    """Raise DataError unless x is uint8 [N, *shape]."""
    if x.dtype != np.uint8:
        raise DataError(
            f"images are {x.dtype}, not uint8",
            where=where,
            why="scaling is part of the model: images are pixels, 0..255",
            fix="for values in 0..1: x = (x * 255).round().astype('uint8')",
        )
    if x.shape[1:] != shape or x.ndim != 4:
        raise DataError(
            f"images have shape {list(x.shape)}, the model takes [N, {', '.join(map(str, shape))}]",
            where=where,
            fix="take images of the size and channels that the model was trained on",
        )


def _is_trained(y: np.ndarray, count: int, info: ModelInfo, where: str) -> np.ndarray:
    if y.shape != (count,) or y.dtype.kind not in "iu":
        raise DataError(
            f"labels are {y.dtype} {list(y.shape)}, the images are {count}",
            where=where,
            why="every image has one label: the number of its class",
            fix="store one class number for each image",
        )
    if count and (y.min() < 0 or y.max() >= len(info.classes)):
        raise DataError(
            f"label {int(y.max() if y.min() >= 0 else y.min())} is not a class of the model",
            where=where,
            why=f"its classes are 0 to {len(info.classes) - 1}",
            fix="calibrate with the data that the model was trained on",
        )
    return np.isin(y, info.trained_classes)


def check_method(method: str) -> str:
    """Return the calibration method. Raises UsageError for one that is unknown."""
    if method not in METHODS:
        raise UsageError(
            f"there is no calibration method {method}",
            where="--calibration-method",
            fix=f"choose one of {', '.join(METHODS)}",
        )
    return method


def head_capacity(config: ExportConfig, info: ModelInfo) -> int:
    """Return the most classes of the learned head. Raises UsageError when too small."""
    if config.capacity is None:
        return max(LEAST_CAPACITY, len(info.classes))
    if not 2 <= config.capacity <= MOST_CAPACITY:
        raise UsageError(
            f"a capacity of {config.capacity} is not possible",
            where="--capacity",
            why=f"a head holds 2 to {MOST_CAPACITY} classes; it may be less than the backbone was trained on, "
            "since the head is learned anew on the device",
            fix="choose the number of classes that the device will meet",
        )
    return config.capacity
