# SPDX-License-Identifier: Apache-2.0
"""The data loader: what it accepts, what it makes of it, and that its errors name place and remedy."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bnngen.data import DataFetchNeeded, cache_file, holdout, load, subset
from bnngen.errors import DataError


def arrays(**changed: object) -> dict[str, object]:
    """Four arrays of a good data set of three classes, some of them changed."""
    rng = np.random.default_rng(0)
    good = {"x_train": rng.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8), "y_train": np.arange(12) % 3,
            "x_test": rng.integers(0, 256, (6, 6, 5, 3), dtype=np.uint8), "y_test": np.arange(6) % 3}
    return {key: value for key, value in (good | changed).items() if value is not None}


def npz(folder: Path, **changed: object) -> str:
    path = folder / "things.npz"
    np.savez(path, **arrays(**changed))
    return str(path)


def test_digits_are_doubled_and_split_with_every_class_in_both_parts() -> None:
    data = load("digits")
    assert data.shape == (16, 16, 1)
    assert (len(data.x_train), len(data.x_test)) == (1400, 397)
    assert set(data.y_train) == set(data.y_test) == set(range(10))
    assert data.classes == tuple("0123456789")
    assert np.array_equal(data.x_train[:, ::2, ::2], data.x_train[:, 1::2, 1::2])
    levels = {round(level * 255 / 16) for level in range(17)}
    assert set(np.unique(data.x_train).tolist()) == levels
    assert data.sha256 == "7b27e7d3c2d3e53b17d2226f4d198fcfe45321d0bf2554093745a9a39acc706a"


def test_npz_keeps_images_names_and_makes_labels_int64(tmp_path: Path) -> None:
    given = arrays(y_train=(np.arange(12) % 3).astype(np.uint8)[:, np.newaxis])
    data = load(npz(tmp_path, **given, classes=np.array(["ant", "bee", "cat"])))
    assert data.name == "things" and data.classes == ("ant", "bee", "cat")
    assert np.array_equal(data.x_train, given["x_train"]) and np.array_equal(data.x_test, given["x_test"])
    assert data.y_train.dtype == np.int64 and data.y_train.tolist() == [0, 1, 2] * 4
    parts = (data.x_train, data.y_train, data.x_test, data.y_test)
    assert data.sha256 == hashlib.sha256(b"".join(p.tobytes() for p in parts)).hexdigest()


def test_npz_without_names_counts_the_classes(tmp_path: Path) -> None:
    assert load(npz(tmp_path)).classes == ("0", "1", "2")


def test_grey_images_gain_a_channel(tmp_path: Path) -> None:
    data = load(npz(tmp_path, x_train=np.zeros((12, 6, 5), np.uint8), x_test=np.zeros((6, 6, 5), np.uint8)))
    assert data.shape == (6, 5, 1)


@pytest.mark.parametrize(("changed", "message", "where"), [
    ({"x_test": None}, "array 'x_test' is missing", "things.npz"),
    ({"x_train": np.zeros((12, 6, 5, 3), np.float32)}, "images are float32, not uint8", "x_train of things"),
    ({"x_test": np.zeros((6, 6, 5, 3), np.int64)}, "images are int64, not uint8", "x_test of things"),
    ({"x_train": np.zeros((12, 3, 6, 5), np.uint8)}, "shape [12, 3, 6, 5] is not a set of images", "x_train"),
    ({"x_train": np.zeros((12, 90), np.uint8)}, "shape [12, 90] is not a set of images", "x_train"),
    ({"x_train": np.zeros((0, 6, 5, 3), np.uint8)}, "there are no images", "x_train"),
    ({"x_train": np.zeros((12, 0, 5, 3), np.uint8)}, "shape [12, 0, 5, 3] is not a set of images", "x_train"),
    ({"x_test": np.zeros((6, 7, 5, 3), np.uint8)}, "images are [6, 5, 3], test images [7, 5, 3]", "things"),
    ({"y_train": np.zeros(12)}, "labels are float64, not integers", "y_train of things"),
    ({"y_train": np.zeros(11, int)}, "labels have shape [11], the images are 12", "y_train of things"),
    ({"y_test": np.eye(6, 3, dtype=int)}, "labels have shape [6, 3], the images are 6", "y_test of things"),
    ({"y_test": np.array([0, 1, 2, 0, 1, -1])}, "label -1 is negative", "y_test of things"),
    ({"classes": np.array(["ant", "bee"])}, "label 2 has no name", "things"),
])
def test_bad_npz_is_refused_with_place_and_remedy(
        tmp_path: Path, changed: dict, message: str, where: str) -> None:
    with pytest.raises(DataError) as caught:
        load(npz(tmp_path, **changed))
    assert message in caught.value.message
    assert where in caught.value.where
    assert caught.value.why and caught.value.fix


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a .npz file of plain arrays"):
        load(npz(tmp_path, classes=np.array([{"a": 1}, None, 3], dtype=object)))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut off"])
def test_files_that_are_no_archives_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a .npz file") as caught:
        load(str(path))
    assert caught.value.where == str(path)


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.npy"
    np.save(path, np.zeros(3))
    with pytest.raises(DataError, match="not a .npz file"):
        load(str(path))


def test_unknown_spec_names_the_choices() -> None:
    with pytest.raises(DataError, match="no data set 'mnist3000'") as caught:
        load("mnist3000")
    assert "digits" in caught.value.fix and "FILE.npz" in caught.value.fix


def test_known_set_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataFetchNeeded) as caught:
        load("cifar10", cache=tmp_path)
    assert caught.value.name == "cifar10" and caught.value.file == tmp_path / "cifar10.npz"
    assert "--data FILE.npz" in caught.value.fix


def test_known_set_in_the_cache_is_used(tmp_path: Path) -> None:
    np.savez(cache_file("fashion_mnist", tmp_path), **arrays())
    data = load("fashion_mnist", cache=tmp_path)
    assert data.name == "fashion_mnist" and len(data.x_train) == 12


@pytest.mark.parametrize(("name", "count", "some"), [
    ("cifar10", 10, {0: "airplane", 1: "automobile", 9: "truck"}),
    ("cifar100", 100, {0: "apple", 1: "aquarium_fish", 41: "lawn_mower", 70: "rose", 99: "worm"}),
    ("fashion_mnist", 10, {0: "T-shirt/top", 1: "Trouser", 8: "Bag", 9: "Ankle boot"}),
])
def test_a_known_set_has_its_names_whatever_the_file_in_the_cache_says(
        tmp_path: Path, name: str, count: int, some: dict[int, str]) -> None:
    for classes in (None, np.array([str(i) for i in range(count)])):
        np.savez(cache_file(name, tmp_path), **arrays(classes=classes))
        names = load(name, cache=tmp_path).classes
        assert len(names) == len(set(names)) == count
        assert {i: names[i] for i in some} == some


def test_names_are_those_of_the_shipped_checkpoint(tmp_path: Path) -> None:
    """The same images under other names would count as another data set."""
    meta = Path(__file__).parents[2] / "bnngen/train/checkpoints/quicknet-nano-cifar100.meta.json"
    np.savez(cache_file("cifar100", tmp_path), **arrays())
    assert list(load("cifar100", cache=tmp_path).classes) == json.loads(meta.read_text())["data_classes"]


def test_subset_keeps_numbers_names_and_checksum(tmp_path: Path) -> None:
    whole = load(npz(tmp_path))
    part = subset(whole, (2, 0))
    assert set(part.y_train) == set(part.y_test) == {0, 2}
    assert (len(part.x_train), len(part.x_test)) == (8, 4)
    assert np.array_equal(part.x_train, whole.x_train[whole.y_train != 1])
    assert part.classes == whole.classes and part.sha256 == whole.sha256


def test_subset_refuses_classes_that_are_not_there(tmp_path: Path) -> None:
    data = load(npz(tmp_path, classes=np.array(["ant", "bee", "cat", "dog"])))
    with pytest.raises(DataError, match="no class 4"):
        subset(data, (0, 4))
    with pytest.raises(DataError, match=r"class 3 \(dog\) has no training image"):
        subset(data, (0, 3))


def test_subset_refuses_classes_that_are_never_tested(tmp_path: Path) -> None:
    data = load(npz(tmp_path, y_test=np.array([0, 0, 0, 0, 0, 1])))
    assert subset(data, (1, 2)).y_test.tolist() == [1]  # some of them is enough for an accuracy
    with pytest.raises(DataError, match="no test image of the chosen classes: 2") as caught:
        subset(data, (2,))
    assert caught.value.where == "things" and caught.value.why and caught.value.fix


def test_an_empty_array_of_images_is_not_taken_for_a_transposed_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no images") as caught:
        load(npz(tmp_path, x_train=np.zeros((0, 16, 16, 1), np.uint8), y_train=np.zeros(0, int)))
    assert caught.value.where == "x_train of things" and "transpose" not in caught.value.fix


def test_holdout_is_a_fixed_tenth_without_overlap() -> None:
    kept, held = holdout(1000)
    assert (len(kept), len(held)) == (900, 100)
    assert sorted([*kept, *held]) == list(range(1000))
    assert np.array_equal(held, holdout(1000)[1])
    assert held[:4].tolist() == [522, 206, 729, 350]


@pytest.mark.parametrize("count", range(2, 12))
def test_a_small_set_holds_out_one_image(count: int) -> None:
    kept, held = holdout(count)
    assert (len(kept), len(held)) == (count - 1, 1)


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_can_be_held_out_of_less_than_two_images(count: int) -> None:
    with pytest.raises(DataError, match="too few training images") as caught:
        holdout(count)
    assert caught.value.why and caught.value.fix


def test_loader_needs_no_tensorflow() -> None:
    program = "import sys, bnngen.data as d; d.load('digits'); assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2], timeout=120)
