# SPDX-License-Identifier: Apache-2.0
"""Images that a command line names: data sets, fetched when the training extra is there, and single files."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bnngen.cli.console import say
from bnngen.data import DataFetchNeeded, Dataset, load, load_image
from bnngen.errors import DataError


def load_data(spec: str) -> Dataset:
    """Load a data set; one that is known but not on this machine is downloaded where TensorFlow is installed."""
    try:
        return load(spec)
    except DataFetchNeeded:
        if importlib.util.find_spec("tensorflow") is None:
            raise
        from bnngen.train.keras_datasets import fetch

        say(f"downloading {spec}")
        fetch(spec)
        return load(spec)


def load_images(paths: Sequence[Path], shape: tuple[int, int, int]) -> np.ndarray:
    """Return the images of the given files, uint8 [N, H, W, C]."""
    return np.stack([load_image(path, shape) for path in paths])


def check_shape(data: Dataset, shape: Sequence[int]) -> None:
    """Raise DataError when a data set's images are not what the model takes."""
    if tuple(data.shape) != tuple(shape):
        raise DataError(
            f"the images of {data.name} are {'x'.join(map(str, data.shape))}, the model takes "
            f"{'x'.join(map(str, shape))}",
            why="a backbone is generated for one size of image",
            fix="use the data set that the model was trained on, or images of the same size",
        )
