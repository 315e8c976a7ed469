# SPDX-License-Identifier: Apache-2.0
"""CORe50 from the user's own copy: images in folders, experiences in lists of files (Lomonaco and Maltoni, 2017).

    IMAGES/sN/oM/C_SS_OO_FFF.png      session N, object M; IMAGES may be the folder above core50_128x128
    LISTS/runR/train_batch_BB_filelist.txt, LISTS/runR/test_filelist.txt (or one for all, LISTS/test_filelist.txt)

A list has a line "path label" for each image, paths below IMAGES, labels from 0. A run is an order of the experiences.
Images are read when they are asked for; 128 x 128 pixels are averaged to a smaller size that divides them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnngen.data.dataset import Dataset
from bnngen.data.image import open_image
from bnngen.errors import DataError

IMAGE_FOLDER = "core50_128x128"
RUN, BATCH = re.compile(r"run(\d+)", re.IGNORECASE), re.compile(r"train_batch_(\d+)_filelist\.txt")
TEST_LIST, NAMES = "test_filelist.txt", "core50_labels.txt"
LAYOUT = "LISTS/run0/train_batch_00_filelist.txt ... and LISTS/run0/test_filelist.txt"
Array = np.ndarray
Listed = list[tuple[str, int]]  # (path below the images, label)


@dataclass(frozen=True)
class FileImages:
    """Images in files as a sequence, uint8 [N, H, W, C]: a slice of it is read when it is asked for."""

    root: Path
    paths: tuple[str, ...]
    size: tuple[int, int, int]
    ndim = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[N, H, W, C]."""
        return (len(self.paths), *self.size)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, where: slice) -> Array:
        """Read the images of a slice. DataError: one cannot be read, or not be brought to the size."""
        return np.stack([_pixels(self.root / path, self.size) for path in self.paths[where]])


@dataclass(frozen=True)
class Core50:
    """The images that all runs show. places: (run, experience) -> int64 places in the training images."""

    root: Path
    train: tuple[tuple[str, int], ...]
    test: tuple[tuple[str, int], ...]
    places: dict[tuple[int, int], Array]
    classes: tuple[str, ...]
    sha256: str

    def dataset(self, shape: tuple[int, ...] | None) -> Dataset:
        """Return the images as a data set, scaled to `shape`, [H, W, C]; None leaves them as they are."""
        if shape is None:
            first = open_image(self.root / self.train[0][0])
            shape = (first.height, first.width, 3)
        parts = [FileImages(self.root, tuple(path for path, _ in part), shape) for part in (self.train, self.test)]
        labels = [np.array([label for _, label in part], np.int64) for part in (self.train, self.test)]
        return Dataset("core50", parts[0], labels[0], parts[1], labels[1], self.classes, self.sha256, "CORe50")


def load_core50(images: Path, lists: Path) -> Core50:
    """Read the lists of all runs. DataError: a list or an image is missing, or a line is not "path label"."""
    root = images / IMAGE_FOLDER if (images / IMAGE_FOLDER).is_dir() else images
    if not root.is_dir():
        raise DataError("there is no folder of CORe50's images", where=str(images), fix="--data FOLDER")
    runs = {int(match[1]): path for path in _children(lists) if path.is_dir() and (match := RUN.fullmatch(path.name))}
    if not runs:
        raise DataError("there is no run in the folder of lists", where=str(lists), fix=f"arrange it as {LAYOUT}")
    batches = {
        (run, number): _read(path) for run, folder in sorted(runs.items()) for number, path in _batches(folder)
    }
    test = _test_list(lists, runs)
    train = sorted({item for listed in batches.values() for item in listed})
    index = {item: place for place, item in enumerate(train)}
    places = {key: np.array([index[item] for item in listed], np.int64) for key, listed in batches.items()}
    classes = _class_names(lists, root, max(label for _, label in [*train, *test]) + 1)
    return Core50(root, tuple(train), tuple(test), places, classes, _checksum(root, (train, test)))


def _children(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError("there is no folder of lists", where=str(folder), fix=f"--lists FOLDER, arranged as {LAYOUT}")
    return sorted(folder.iterdir())


def _batches(folder: Path) -> list[tuple[int, Path]]:
    """Return a run's experiences, numbered from 0 in the order of their files."""
    found = sorted((int(match[1]), path) for path in folder.iterdir() if (match := BATCH.fullmatch(path.name)))
    if not found:
        raise DataError("this run has no batch", where=str(folder), fix=f"arrange it as {LAYOUT}")
    return [(number, path) for number, (_, path) in enumerate(found)]


def _test_list(lists: Path, runs: dict[int, Path]) -> Listed:
    """Return the test images: the same in every run."""
    files = [path for path in (lists / TEST_LIST, *(runs[r] / TEST_LIST for r in sorted(runs))) if path.is_file()]
    if not files:
        raise DataError("there is no list of test images", where=str(lists / TEST_LIST), fix=f"arrange it as {LAYOUT}")
    first = _read(files[0])
    for other in files[1:]:
        if sorted(_read(other)) != sorted(first):
            raise DataError(
                "the runs are tested on different images",
                where=str(other),
                why=f"it is not the list of {files[0]}",
                fix="use runs of one scenario, which share a test set",
            )
    return first


def _read(path: Path) -> Listed:
    items = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdigit():
            raise DataError(
                f"line {number} is not a path and a label",
                where=str(path),
                why=repr(line),
                fix='write "s1/o1/NAME.png 0"',
            )
        items.append((name.strip(), int(label)))
    if not items:
        raise DataError("the list is empty", where=str(path), why="an experience shows something", fix="delete it")
    return items


def _class_names(lists: Path, root: Path, count: int) -> tuple[str, ...]:
    for folder in (lists, lists.parent, root, root.parent):
        if (folder / NAMES).is_file():
            names = (folder / NAMES).read_text(encoding="utf-8").split("\n")
            if len([name for name in names if name.strip()]) >= count:
                return tuple(name.strip() for name in names[:count])
    return tuple(f"o{number + 1}" for number in range(count))


def _checksum(root: Path, parts: Sequence[Listed]) -> str:
    """Return a checksum over paths, labels and sizes of files; the pixels of 160,000 images are not read for it."""
    digest = hashlib.sha256()
    for part in parts:
        for name, label in part:
            try:
                size = (root / name).stat().st_size
            except OSError as error:
                raise DataError(
                    "a list names an image that is not there",
                    where=str(root / name),
                    fix="check the folder of the images, and that the lists are of this data set",
                ) from error
            digest.update(f"{name} {label} {size}\n".encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _pixels(path: Path, size: tuple[int, int, int]) -> Array:
    image = open_image(path)
    height, width, channels = size
    factor = image.height // height if height else 0
    if factor < 1 or (image.height, image.width) != (factor * height, factor * width):
        raise DataError(
            f"the image is {image.height} high and {image.width} wide",
            where=str(path),
            why=f"the model takes {height} x {width}, which does not divide it",
            fix="use a backbone for 128 x 128, 64 x 64 or 32 x 32 pixels",
        )
    mode = image.convert("L" if channels == 1 else "RGB")
    return np.asarray(mode.reduce(factor) if factor > 1 else mode, np.uint8).reshape(size)
