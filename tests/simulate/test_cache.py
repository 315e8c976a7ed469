# SPDX-License-Identifier: Apache-2.0
"""Cached tensors: computed once, gone on with after an interruption, one file for each network and data set."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from bnngen.simulate.cache import CHUNK, Computing, Part, Tensors, cache_folder, cached

IMAGES = np.random.default_rng(1).integers(0, 256, (5 * CHUNK + 7, 4, 4, 1), np.uint8)
TENSORS = Tensors("cut", 2, {"model": "m", "data": "d"})


class Counting:
    """Computes two bytes of each image; stops working after `most` chunks."""

    def __init__(self, most: int = 1000) -> None:
        self.most, self.images = most, 0

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def cuts(self, images: np.ndarray) -> Iterator[bytes]:
        if self.most == 0:
            raise RuntimeError("stopped")
        self.most -= 1
        self.images += len(images)
        return (bytes([image.flat[0], image.flat[5]]) for image in images)


def run(folder, counting: Counting, tensors: Tensors = TENSORS) -> np.ndarray:
    how = Computing(lambda: counting, 1, lambda what, done, total: None)
    return np.load(cached(folder, tensors, Part("train", IMAGES), how))


def test_tensors_are_computed_once(tmp_path):
    counting = Counting()
    rows = run(tmp_path, counting)
    assert np.array_equal(rows, IMAGES.reshape(len(IMAGES), -1)[:, [0, 5]])
    assert np.array_equal(run(tmp_path, counting), rows)
    assert counting.images == len(IMAGES)
    run(tmp_path, counting, Tensors("cut", 2, {"model": "another", "data": "d"}))
    assert counting.images == 2 * len(IMAGES)


def test_an_interruption_costs_what_was_not_finished(tmp_path):
    stopped = Counting(most=3)
    with pytest.raises(RuntimeError):
        run(tmp_path, stopped)
    assert not list(tmp_path.rglob("*.npy"))
    rest = Counting()
    rows = run(tmp_path, rest)
    assert stopped.images == 3 * CHUNK and rest.images == len(IMAGES) - 3 * CHUNK
    assert np.array_equal(rows, IMAGES.reshape(len(IMAGES), -1)[:, [0, 5]])
    assert sorted(path.name for path in tmp_path.rglob("train*")) == ["train.lock", "train.npy"]


def test_a_part_of_something_else_is_not_gone_on_with(tmp_path):
    with pytest.raises(RuntimeError):
        run(tmp_path, Counting(most=3))
    next(tmp_path.rglob("train.partial")).write_bytes(b"no array")
    assert np.array_equal(run(tmp_path, Counting()), IMAGES.reshape(len(IMAGES), -1)[:, [0, 5]])


@pytest.mark.parametrize("content", [b"", b"no array", "cut off", "of other images"])
def test_damaged_tensors_are_computed_again(tmp_path, content):
    """Empty, as a kill can leave it, or damaged later; whole or still growing."""
    whole = run(tmp_path, Counting())
    path = next(tmp_path.rglob("train.npy"))
    if content == "of other images":
        np.save(path, whole[:-1])
    else:
        path.write_bytes(path.read_bytes()[:300] if content == "cut off" else content)
    path.with_name("train.partial").write_bytes(path.read_bytes())
    path.with_name("train.done").write_bytes(bytes([1] * 6))
    assert np.array_equal(run(tmp_path, Counting()), whole)


def test_where_tensors_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / "bnngen" / "simulate"
    assert cache_folder(tmp_path / "x") == tmp_path / "x"
