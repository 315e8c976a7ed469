# SPDX-License-Identifier: Apache-2.0
"""Augmentation moves and mirrors images, and does nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from bnngen.train.augment import NO_AUGMENTATION, Augmentation, augment, augmentation_for


def one_pixel(count: int) -> np.ndarray:
    """Black images with one white pixel at row 3, column 2 of 8x8."""
    x = np.zeros((count, 8, 8, 1), np.uint8)
    x[:, 3, 2] = 255
    return x


def places(x: np.ndarray) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for _, i, j, _ in np.argwhere(x == 255)}


def test_shift_reaches_every_place_in_range_and_no_other() -> None:
    moved = augment(one_pixel(400), Augmentation(shift=2), np.random.default_rng(0))
    assert places(moved) == {(i, j) for i in range(1, 6) for j in range(5)}
    assert np.all(moved.sum(axis=(1, 2, 3)) == 255)


def test_flip_mirrors_about_half_of_the_images() -> None:
    mirrored = augment(one_pixel(1000), Augmentation(flip=True), np.random.default_rng(0))
    assert places(mirrored) == {(3, 2), (3, 5)}
    assert 450 < np.count_nonzero(mirrored[:, 3, 5]) < 550


def test_uncovered_pixels_repeat_the_edge() -> None:
    x = np.arange(4, dtype=np.uint8).reshape(1, 1, 4, 1)
    seen = {tuple(augment(x, Augmentation(shift=1), np.random.default_rng(s)).ravel()) for s in range(50)}
    assert seen == {(0, 0, 1, 2), (0, 1, 2, 3), (1, 2, 3, 3)}


def test_same_generator_state_gives_the_same_images_and_input_is_untouched() -> None:
    x = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    before = x.copy()
    first, second = (augment(x, Augmentation(2, True), np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, second) and np.array_equal(x, before)
    assert np.array_equal(augment(x, NO_AUGMENTATION, np.random.default_rng(5)), x)


@pytest.mark.parametrize(("shape", "expected"), [
    ((32, 32, 3), Augmentation(4, True)), ((28, 28, 1), Augmentation(1, False)),
    ((16, 16, 1), Augmentation(1, False)),
])
def test_digits_are_never_mirrored(shape: tuple[int, int, int], expected: Augmentation) -> None:
    assert augmentation_for(shape) == expected
