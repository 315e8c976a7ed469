# SPDX-License-Identifier: Apache-2.0
"""The one form every data set takes, the check that makes it so, and its two ways of being cut."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from bnngen.errors import DataError

HOLDOUT_SEED = 20  # any fixed number: the validation images must be the same in every run
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class Dataset:
    """Labelled images, split in training and test.

    x_train, x_test: uint8 [N, H, W, C], C = 1 being grey and 3 RGB; y_train, y_test: int64 [N],
    indices into `classes`. sha256 is over the bytes of x_train, y_train, x_test, y_test, in this order
    (labels as little-endian int64), as loaded: a subset keeps the sum of the whole. source says where
    the images came from, in words. groups: by name, an integer for each training image: the track, speaker or session
    that it belongs to (docs/simulate.md); not part of the checksum.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]
    sha256: str
    source: str
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """[H, W, C] of every image."""
        return tuple(self.x_train.shape[1:])


def make_dataset(name: str, arrays: Mapping[str, np.ndarray], classes: Iterable[str] | None,
                 source: str) -> Dataset:
    """Check and normalise the four arrays; class names are made from the labels where `classes` is None.

    Arrays [N, A, B] gain a channel axis, as grey images; for a model of sequences `fitted` reads them as [A, 1, B].
    Labels [N, 1] lose an axis. Raises DataError.
    """
    x_train, x_test = (_images(arrays[f"x_{split}"], f"x_{split} of {name}") for split in ("train", "test"))
    if x_train.shape[1:] != x_test.shape[1:]:
        shapes = [list(x.shape[1:]) for x in (x_train, x_test)]
        raise DataError(f"training images are {shapes[0]}, test images {shapes[1]}", where=name,
                        why="one network has one input shape",
                        fix="bring all images to the same height, width and channels")
    y_train, y_test = (_labels(arrays[f"y_{split}"], len(x), f"y_{split} of {name}")
                       for split, x in (("train", x_train), ("test", x_test)))
    highest = int(max(y_train.max(), y_test.max()))
    names = tuple(str(c) for c in (range(highest + 1) if classes is None else classes))
    if highest >= len(names):
        raise DataError(f"label {highest} has no name: `classes` has {len(names)} entries", where=name,
                        why="labels are indices into `classes`, counted from 0",
                        fix="add the missing names, or leave `classes` out of the file")
    digest = hashlib.sha256()
    for part in (x_train, y_train.astype("<i8"), x_test, y_test.astype("<i8")):
        digest.update(part.tobytes())
    return Dataset(name, x_train, y_train, x_test, y_test, names, digest.hexdigest(), source)


def subset(dataset: Dataset, classes: Iterable[int]) -> Dataset:
    """Return the images of the given class ids alone; labels and class names keep their numbers.

    Raises DataError for an id that the data set does not have, a class without training images, or a choice
    of classes without a test image.
    """
    wanted = tuple(int(c) for c in classes)
    for c in wanted:
        if not 0 <= c < len(dataset.classes):
            raise DataError(f"there is no class {c}", where=dataset.name,
                            why=f"its classes are 0 to {len(dataset.classes) - 1}",
                            fix="choose class ids in this range")
        if not np.any(dataset.y_train == c):
            raise DataError(f"class {c} ({dataset.classes[c]}) has no training image", where=dataset.name,
                            fix="leave the class out")
    train, test = np.isin(dataset.y_train, wanted), np.isin(dataset.y_test, wanted)
    if not test.any():
        raise DataError(f"no test image of the chosen classes: {', '.join(map(str, wanted))}",
                        where=dataset.name, why="the accuracy is measured on them at the end",
                        fix="choose at least one class that has test images, or add some")
    groups = {name: values[train] for name, values in dataset.groups.items()}
    return replace(dataset, x_train=dataset.x_train[train], y_train=dataset.y_train[train],
                   x_test=dataset.x_test[test], y_test=dataset.y_test[test], groups=groups)


def holdout(count: int, fraction: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Split `count` training images in (training, validation) indices: the last tenth of a fixed permutation.

    At least one image is held out. The choice of an epoch is made on the validation images, never on the
    test set. Raises DataError for less than two images.
    """
    if count < 2:
        raise DataError(f"too few training images: {count}",
                        why="one is held out to choose the best epoch, and one at least is trained on",
                        fix="give at least two training images, better some hundred of each class")
    order = np.random.default_rng(HOLDOUT_SEED).permutation(count)
    kept = count - max(1, round(count * fraction))
    return order[:kept], order[kept:]


def _images(x: np.ndarray, where: str) -> np.ndarray:
    if x.dtype != np.uint8:
        raise DataError(f"images are {x.dtype}, not uint8", where=where,
                        why="a board's camera gives bytes, and scaling is part of the model",
                        fix="for values in 0..1: x = (x * 255).round().astype('uint8')")
    if x.shape[:1] == (0,):
        raise DataError(f"there are no images: the shape is {list(x.shape)}", where=where,
                        why="the first number of the shape counts the images; each part has some",
                        fix="look for what left the array empty when the file was written")
    if x.ndim == 3:
        x = x[..., np.newaxis]
    if x.ndim != 4 or 0 in x.shape or _is_channels_first(x.shape[1:]):
        raise DataError(f"shape {list(x.shape)} is not a set of images", where=where,
                        why="images are [N, H, W, C] or, grey, [N, H, W], and sequences [N, L, C]: channels last",
                        fix="for [N, C, H, W]: x = x.transpose(0, 2, 3, 1)")
    return np.ascontiguousarray(x)


def _is_channels_first(shape: tuple[int, ...]) -> bool:
    """True for what is surely [3, H, W], or a grey square [1, H, H]: no image has so many channels for its height."""
    return shape[2] not in (1, 3) and (shape[0] == 3 or (shape[0] == 1 and shape[1] == shape[2]))


def fitted(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return images as a model of input `shape`, [H, W, C], takes them, where they only lack an axis, or as they are.

    [N, A, B] and [N, A, B, 1] are grey images [A, B, 1], or for a model of sequences, whose width is 1, [A, 1, B].
    """
    bare = x.shape[1:3] if x.ndim == 3 or (x.ndim == 4 and x.shape[3] == 1) else None
    is_fitting = bare is not None and len(shape) == 3 and shape in ((*bare, 1), (bare[0], 1, bare[1]))
    return x.reshape(len(x), *shape) if is_fitting else x


def _labels(y: np.ndarray, count: int, where: str) -> np.ndarray:
    if y.dtype.kind not in "iu":
        raise DataError(f"labels are {y.dtype}, not integers", where=where,
                        why="a label is the number of its class, counted from 0",
                        fix="for one-hot labels: y = y.argmax(axis=1)")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (count,):
        raise DataError(f"labels have shape {list(y.shape)}, the images are {count}", where=where,
                        why="every image has one label", fix="store one class number for each image")
    if y.min() < 0:
        raise DataError(f"label {int(y.min())} is negative", where=where,
                        why="a label is the number of its class, counted from 0", fix="renumber the classes")
    return y.astype(np.int64)
