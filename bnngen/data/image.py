# SPDX-License-Identifier: Apache-2.0
"""One image file as pixels of a given shape. Nothing is scaled: a resized image is another image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from bnngen.errors import DataError


def load_image(path: str | Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Read an image file as uint8 [H, W, C], grey for C = 1 and RGB for C = 3.

    Raises DataError when it cannot be read or has another height or width than `shape` says.
    """
    image = open_image(Path(path))
    height, width, channels = shape
    if (image.height, image.width) != (height, width):
        raise DataError(f"the image is {image.height} high and {image.width} wide", where=str(path),
                        why=f"the model takes {height} x {width}, and a scaled image is another image",
                        fix=f"crop or scale it to {height} x {width} beforehand")
    if channels not in (1, 3):
        raise DataError(f"a model with {channels} input channels takes no image files", where=str(path),
                        why="image files are grey or RGB", fix="pass the pixels as a .npz file")
    return np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.uint8).reshape(shape)


def open_image(path: Path) -> Image.Image:
    """Open and decode an image file; raises DataError that names it."""
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                raise DataError(f"the image has pixels of more than 8 bits (mode {image.mode})", where=str(path),
                                why="a model takes bytes, and cutting the rest off would saturate the image",
                                fix="save it with 8 bits a pixel")
            return image
    except FileNotFoundError as error:
        raise DataError("no such image file", where=str(path), fix="check the path") from error
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise DataError("this is not a readable image", where=str(path), why=str(error),
                        fix="give a PNG or JPEG file") from error
