# SPDX-License-Identifier: Apache-2.0
"""Image files: one at a time, and a folder of them as a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bnngen.data import load, load_image
from bnngen.errors import DataError


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def random_pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_rgb_image_is_read_as_it_is(tmp_path: Path) -> None:
    pixels = random_pixels(0, 6, 5, 3)
    assert np.array_equal(load_image(write(tmp_path / "a.png", pixels), (6, 5, 3)), pixels)


def test_grey_image_serves_a_grey_model_and_a_colour_one(tmp_path: Path) -> None:
    pixels = random_pixels(1, 6, 5)
    path = write(tmp_path / "a.png", pixels)
    assert np.array_equal(load_image(path, (6, 5, 1)), pixels[..., np.newaxis])
    assert np.array_equal(load_image(path, (6, 5, 3)), np.repeat(pixels[..., np.newaxis], 3, axis=2))


def test_wrong_size_is_refused_not_scaled(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", random_pixels(2, 6, 5, 3))
    with pytest.raises(DataError, match="6 high and 5 wide") as caught:
        load_image(path, (5, 6, 3))
    assert "5 x 6" in caught.value.why and caught.value.fix and caught.value.where == str(path)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such image file"):
        load_image(tmp_path / "none.png", (6, 5, 3))
    broken = tmp_path / "broken.png"
    broken.write_bytes(write(tmp_path / "a.png", random_pixels(3, 40, 40, 3)).read_bytes()[:900])
    with pytest.raises(DataError, match="not a readable image") as caught:
        load_image(broken, (40, 40, 3))
    assert caught.value.where == str(broken)


def test_folder_with_both_parts(tmp_path: Path) -> None:
    for i, (part, name) in enumerate([("train", "bee"), ("train", "ant"), ("test", "ant")]):
        write(tmp_path / part / name / "0.png", random_pixels(i, 6, 5, 3))
    data = load(str(tmp_path))
    assert data.classes == ("ant", "bee") and data.name == tmp_path.name
    assert data.y_train.tolist() == [0, 1] and data.y_test.tolist() == [0]
    assert np.array_equal(data.x_train, np.stack([random_pixels(1, 6, 5, 3), random_pixels(0, 6, 5, 3)]))
    assert np.array_equal(data.x_test[0], random_pixels(2, 6, 5, 3))


def test_folder_without_parts_is_split_the_same_way_each_time(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        for i in range(10):
            write(tmp_path / name / f"{i}.png", random_pixels(i + 10 * (name == "bee"), 6, 5))
    data, again = load(str(tmp_path)), load(str(tmp_path))
    assert data.shape == (6, 5, 1)
    assert data.y_train.tolist() == [0] * 8 + [1] * 8 and data.y_test.tolist() == [0] * 2 + [1] * 2
    assert data.sha256 == again.sha256
    seen = {image.tobytes() for image in (*data.x_train, *data.x_test)}
    assert len(seen) == 20


def test_folder_with_an_image_of_another_size_names_it(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / "ant" / f"{i}.png", random_pixels(i, 6, 5, 3))
    odd = write(tmp_path / "ant" / "odd.png", random_pixels(9, 7, 5, 3))
    with pytest.raises(DataError, match="7x5, the first one 6x5") as caught:
        load(str(tmp_path))
    assert caught.value.where == str(odd)


def test_folder_that_lacks_a_part_or_any_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class folders"):
        load(str(tmp_path))
    write(tmp_path / "train" / "ant" / "0.png", random_pixels(0, 6, 5, 3))
    with pytest.raises(DataError, match="only one of train/ and test/"):
        load(str(tmp_path))
    write(tmp_path / "test" / "bee" / "0.png", random_pixels(1, 6, 5, 3))
    with pytest.raises(DataError, match="'bee' is tested but never trained"):
        load(str(tmp_path))
