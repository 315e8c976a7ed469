# SPDX-License-Identifier: Apache-2.0
"""Images that a command line names: data sets, fetched when the training extra is there, and single files."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bnngen.cli.console import err
from bnngen.data import DataFetchNeeded, Dataset, fitted, load, load_image
from bnngen.errors import DataError
from bnngen.ir import ModelMeta


def load_data(spec: str) -> Dataset:
    """Load a data set; one that is known but not on this machine is downloaded where TensorFlow is installed."""
    try:
        return load(spec)
    except DataFetchNeeded:
        if importlib.util.find_spec("tensorflow") is None:
            raise
        from bnngen.train.keras_datasets import fetch

        err.print(f"downloading {spec}", markup=False)  # stdout may be one JSON document
        fetch(spec)
        return load(spec)


def load_images(paths: Sequence[Path], shape: tuple[int, int, int]) -> np.ndarray:
    """Return the images of the given files, uint8 [N, H, W, C]."""
    return np.stack([load_image(path, shape) for path in paths])


def same_data(meta: ModelMeta, shape: Sequence[int], data: Dataset) -> bool:
    """True when a model's class numbers mean the classes of `data`: it was trained on these very images.

    Where the model does not say on which, its class names and its image shape must be those of the data.
    """
    known = meta.source.get("data_sha256")
    if known:
        return known == data.sha256
    return tuple(meta.classes) == tuple(data.classes) and tuple(shape) == tuple(data.shape)


def fit_data(data: Dataset, shape: Sequence[int]) -> Dataset:
    """Return a data set with images as the model takes them: [N, A, B] may be grey images or sequences.

    Raises DataError where they are others.
    """
    x_train, x_test = (fitted(x, tuple(shape)) for x in (data.x_train, data.x_test))
    if x_train.shape[1:] != tuple(shape):
        raise DataError(
            f"the images of {data.name} are {'x'.join(map(str, data.shape))}, the model takes "
            f"{'x'.join(map(str, shape))}",
            why="a backbone is generated for one size of image",
            fix="use the data set that the model was trained on, or images of the same size",
        )
    return replace(data, x_train=x_train, x_test=x_test)
