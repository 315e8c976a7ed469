# SPDX-License-Identifier: Apache-2.0
"""A folder of image files as a data set: FOLDER/train/CLASS/* with FOLDER/test/CLASS/*, or FOLDER/CLASS/*."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bnngen.data.image import open_image
from bnngen.errors import DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".webp"}
SPLIT_SEED = 11
TEST_SHARE = 0.2  # of each class, where the folder has no test part

LAYOUT = "FOLDER/train/CLASS/*.png with FOLDER/test/CLASS/*.png, or FOLDER/CLASS/*.png"


def load_folder(folder: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the four arrays of a data set and the class names, in the order of the sorted folder names.

    Without train/ and test/ a fixed fifth of each class is the test set. Raises DataError that names
    the file that cannot be read or has another size than the first.
    """
    if (folder / "train").is_dir() != (folder / "test").is_dir():
        raise DataError("only one of train/ and test/ is there", where=str(folder),
                        why="a data set has a training and a test part", fix=f"arrange it as {LAYOUT}")
    if (folder / "train").is_dir():
        classes = _class_names(folder / "train")
        unknown = sorted(set(_class_names(folder / "test")) - set(classes))
        if unknown:
            raise DataError(f"class {unknown[0]!r} is tested but never trained", where=str(folder / "test"),
                            fix="add its training images or remove its test images")
        parts = {split: _files(folder / split, classes) for split in ("train", "test")}
    else:
        classes = _class_names(folder)
        parts = _split(_files(folder, classes))
    grey = all(_is_grey(path) for part in parts.values() for path, _ in part)
    first = parts["train"][0][0] if parts["train"] else None
    if first is None or not parts["test"]:
        raise DataError("too few images", where=str(folder), fix="give every class at least two images")
    shape = (*open_image(first).size[::-1], 1 if grey else 3)
    arrays: dict[str, np.ndarray] = {}
    for split, part in parts.items():
        arrays[f"x_{split}"] = np.stack([_pixels(path, shape, first) for path, _ in part])
        arrays[f"y_{split}"] = np.array([label for _, label in part], dtype=np.int64)
    return arrays, classes


def _class_names(folder: Path) -> list[str]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise DataError("no class folders", where=str(folder), why="the folder's name is the class's name",
                        fix=f"arrange it as {LAYOUT}")
    return names


def _files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """All image files of a part with their labels, sorted by class, then by name."""
    return [(path, label) for label, name in enumerate(classes) if (folder / name).is_dir()
            for path in sorted((folder / name).iterdir()) if path.suffix.lower() in SUFFIXES]


def _split(files: list[tuple[Path, int]]) -> dict[str, list[tuple[Path, int]]]:
    """Draw a fifth of each class, at least one image where it has two, for the test part."""
    rng = np.random.default_rng(SPLIT_SEED)
    parts: dict[str, list[tuple[Path, int]]] = {"train": [], "test": []}
    for label in sorted({label for _, label in files}):
        own = [f for f in files if f[1] == label]
        tested = max(round(len(own) * TEST_SHARE), 1) if len(own) > 1 else 0
        drawn = set(rng.permutation(len(own))[:tested].tolist())
        for i, file in enumerate(own):
            parts["test" if i in drawn else "train"].append(file)
    return parts


def _is_grey(path: Path) -> bool:
    return open_image(path).mode in ("1", "L", "I", "I;16", "F", "LA")


def _pixels(path: Path, shape: tuple[int, int, int], first: Path) -> np.ndarray:
    image = open_image(path)
    if image.size[::-1] != shape[:2]:
        raise DataError(f"the image is {image.height}x{image.width}, the first one {shape[0]}x{shape[1]}",
                        where=str(path), why=f"all images have one size, here that of {first.name}",
                        fix="scale or crop the images to one size beforehand")
    return np.asarray(image.convert("L" if shape[2] == 1 else "RGB"), dtype=np.uint8).reshape(shape)
