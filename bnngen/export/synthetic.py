# SPDX-License-Identifier: Apache-2.0
"""Images that resemble photographs in what matters to a network: smooth areas, edges, colours, detail at every scale.

They stand in for a data set where there is none. The spectrum of natural images falls as 1/f (D. J. Field,
Relations between the statistics of natural images and the response properties of cortical cells, JOSA A 4(12),
1987); occlusion gives edges (A. B. Lee et al., Occlusion models for natural images, IJCV 41, 2001).
"""

from __future__ import annotations

import numpy as np

SCALES = (2, 4, 8, 16, 32, 64, 128)  # cells across the image; the weight falls with their number
DISCS = 12


def natural_images(count: int, shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Return uint8 [count, H, W, C], the same for the same arguments."""
    rng = np.random.default_rng(seed)
    return np.stack([_image(shape, rng) for _ in range(count)])


def _image(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Return one image: textures laid over each other in discs."""
    height, width, channels = shape
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j]
    image = _texture(shape, rng)
    for radius in np.sort(rng.uniform(0.05, 0.4, DISCS))[::-1]:
        centre = rng.uniform(0, 1, 2)
        inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
        image = np.where(inside[..., None], _texture(shape, rng), image)
    brightness, contrast = rng.uniform(90, 150), rng.uniform(35, 65)
    return np.clip(np.rint(brightness + contrast * image), 0, 255).astype(np.uint8)


def _texture(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Return smoothed noise of several scales around one colour, [H, W, C], of deviation near 1.

    The three colours share most of the brightness, as in photographs.
    """
    height, width, channels = shape
    roughness = rng.uniform(0.5, 1.5)
    grey = sum(_noise(n, (height, width, 1), rng) * (2 / n) ** roughness for n in SCALES)
    colour = 0.3 * _noise(4, shape, rng) + 0.5 * rng.standard_normal(channels)
    return rng.uniform(0.3, 1.0) * grey + rng.standard_normal() * 0.8 + colour


def _noise(cells: int, shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Return white noise of cells x cells, linearly interpolated to [H, W, C]."""
    height, width, channels = shape
    grid = rng.standard_normal((cells + 1, cells + 1, channels))
    rows, columns = _interpolation(cells, height), _interpolation(cells, width)
    return np.einsum("yi,ijc,xj->yxc", rows, grid, columns, optimize=True)


def _interpolation(cells: int, size: int) -> np.ndarray:
    """Return the matrix [size, cells + 1] that interpolates linearly."""
    place = np.linspace(0, cells, size)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(cells + 1)))
