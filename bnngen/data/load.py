# SPDX-License-Identifier: Apache-2.0
"""What `--data` may say: a known name, a .npz file, or a folder of images."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bnngen.data.dataset import ARRAYS, Dataset, make_dataset
from bnngen.data.folder import load_folder
from bnngen.data.names import CLASS_NAMES
from bnngen.errors import DataError

FETCHED = tuple(CLASS_NAMES)
KNOWN = ("digits", *FETCHED)

DIGITS_TRAIN = 1400  # of 1797; the rest is the test set
DIGITS_SEED = 7

NPZ_FIX = "np.savez(FILE, x_train=..., y_train=..., x_test=..., y_test=...)"


class DataFetchNeeded(DataError):
    """A known data set that is not in the cache yet; `bnngen.train.keras_datasets.fetch` can bring it.

    A separate class because only the training part may download: the loader works without TensorFlow.
    """

    def __init__(self, name: str, file: Path) -> None:
        super().__init__(f"data set {name!r} is not on this machine", where=str(file),
                         why="bnngen ships no images; it keeps a copy here once they were downloaded",
                         fix=f"run `bnngen train ... --data {name}` with a network, or pass --data FILE.npz")
        self.name = name
        self.file = file


def load(spec: str, *, cache: Path | None = None) -> Dataset:
    """Load what `spec` names: "digits", "cifar10", "cifar100", "fashion_mnist", FILE.npz or a folder.

    cache: folder of the downloaded sets, ~/.cache/bnngen by default. Raises DataError that says what is
    wrong with the data, and DataFetchNeeded for a known set that must be downloaded first.
    """
    if spec == "digits":
        return _digits()
    if spec in FETCHED:
        file = cache_file(spec, cache)
        if not file.exists():
            raise DataFetchNeeded(spec, file)
        return _from_npz(file, spec, CLASS_NAMES[spec])
    path = Path(spec)
    if path.is_dir():
        arrays, classes = load_folder(path)
        return make_dataset(path.resolve().name, arrays, classes, f"image folder {path.resolve().name}")
    if path.is_file():
        return _from_npz(path, path.stem)
    raise DataError(f"no data set {spec!r}", why="it is neither a known name, nor a file, nor a folder",
                    fix=f"use {', '.join(KNOWN)}, a FILE.npz, or a folder with one sub-folder per class")


def npz_fault(error: Exception) -> str:
    """Say in words why NumPy did not read a file."""
    text = str(error)
    if "Object arrays" in text:
        return "an array of it holds Python objects (pickle), which are never loaded: their type must be a number's"
    if "pickle" in text or isinstance(error, zipfile.BadZipFile | EOFError):
        return "the file is of another kind, or cut off"
    return text


def cache_file(name: str, cache: Path | None = None) -> Path:
    """Where a downloaded data set is kept."""
    return (cache if cache is not None else Path.home() / ".cache" / "bnngen") / f"{name}.npz"


def _digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits (UCI, CC BY 4.0), every pixel doubled: uint8 [N, 16, 16, 1].

    The 16 grey levels 0..16 become rint(level * 255 / 16).
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("the digits need scikit-learn", why=str(error),
                        fix="pip install scikit-learn") from error
    images, labels = load_digits(return_X_y=True)
    x = np.rint(images.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    x = x.repeat(2, axis=1).repeat(2, axis=2)[..., np.newaxis]
    order = np.random.default_rng(DIGITS_SEED).permutation(len(x))
    train, test = order[:DIGITS_TRAIN], order[DIGITS_TRAIN:]
    arrays = {"x_train": x[train], "y_train": labels[train], "x_test": x[test], "y_test": labels[test]}
    return make_dataset("digits", arrays, [str(d) for d in range(10)],
                        "scikit-learn load_digits (UCI optical digits, CC BY 4.0)")


def _from_npz(path: Path, name: str, classes: Sequence[str] | None = None) -> Dataset:
    """Read a file; `classes`, where given, replaces the names that it holds."""
    try:
        # Opened here, because np.load leaves a file open that turns out to be no archive.
        with open(path, "rb") as stream:
            content = np.load(stream, allow_pickle=False)
            if isinstance(content, np.ndarray):
                raise ValueError("it holds a single array without a name")
            arrays = {key: content[key] for key in (*ARRAYS, "classes") if key in content.files}
            beside = {key: content[key] for key in content.files if _may_be_groups(key)}
            found = ", ".join(content.files) or "nothing"
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError("this is not a .npz file of plain arrays", where=str(path), why=npz_fault(error),
                        fix=NPZ_FIX) from error
    missing = [key for key in ARRAYS if key not in arrays]
    if missing:
        raise DataError(f"array {missing[0]!r} is missing", where=str(path), fix=NPZ_FIX,
                        why=f"a data set has a training and a test part; this file holds {found}")
    if classes is None and "classes" in arrays:
        classes = [str(c) for c in arrays["classes"]]
    made = make_dataset(name, arrays, classes, f"file {path.name}")
    groups = {key.removesuffix("_train"): values.astype(np.int64) for key, values in beside.items()
              if values.shape == made.y_train.shape and values.dtype.kind in "iu"}
    return replace(made, groups=groups)


def _may_be_groups(key: str) -> bool:
    """True for NAME_train beside the four arrays: an integer for each training image, such as its track."""
    return key.endswith("_train") and key not in ARRAYS
