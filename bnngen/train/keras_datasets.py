# SPDX-License-Identifier: Apache-2.0
"""Download the known data sets with keras.datasets, once, into bnngen's cache."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from bnngen.data import CLASS_NAMES, cache_file
from bnngen.errors import DataError


def fetch(name: str, file: Path | None = None) -> None:
    """Download the data set `name` and write it to `file` atomically, in the layout that FILE.npz has.

    file: None for its place in the cache, where `bnngen.data.load(name)` looks.
    Raises DataError without a network, or when what came is not what was asked for.
    """
    file = file or cache_file(name)
    try:
        (x_train, y_train), (x_test, y_test) = getattr(tf.keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception for every failed download
        raise DataError(f"data set {name!r} could not be downloaded", where=str(file), why=str(error),
                        fix="connect to a network, or pass --data FILE.npz with x_train, y_train, x_test, "
                        "y_test") from error
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    with open(partial, "wb") as stream:
        np.savez(stream, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test,
                 classes=np.array(CLASS_NAMES[name]))
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, file)
