# SPDX-License-Identifier: Apache-2.0
"""Downloaded sets: what Keras brings ends in the cache, and a missing network is explained.

No test needs a network: Keras finds the files where it keeps its downloads, or is led to a closed port.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from bnngen.data import load  # noqa: E402
from bnngen.errors import DataError  # noqa: E402
from bnngen.train.keras_datasets import fetch  # noqa: E402


def write_idx(folder: Path, images: str, labels: str, count: int) -> np.ndarray:
    """Write `count` images and labels in the gzipped IDX format of Fashion-MNIST; returns the images."""
    x = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    y = (np.arange(count) % 10).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / images).write_bytes(gzip.compress(bytes(16) + x.tobytes()))
    (folder / labels).write_bytes(gzip.compress(bytes(8) + y.tobytes()))
    return x


def test_what_keras_brings_is_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    downloads = tmp_path / ".keras" / "datasets" / "fashion-mnist"
    x_train = write_idx(downloads, "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", 30)
    write_idx(downloads, "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", 20)
    fetch("fashion_mnist")
    data = load("fashion_mnist")
    assert data.shape == (28, 28, 1) and len(data.classes) == 10
    assert data.classes[1] == "Trouser" and data.classes[9] == "Ankle boot"
    with np.load(tmp_path / ".cache" / "bnngen" / "fashion_mnist.npz") as file:
        assert tuple(file["classes"]) == data.classes
    assert np.array_equal(data.x_train[..., 0], x_train) and len(data.x_test) == 20
    assert [p.name for p in (tmp_path / '.cache' / 'bnngen').iterdir()] == ["fashion_mnist.npz"]


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(DataError, match="'cifar10' could not be downloaded") as caught:
        fetch("cifar10", tmp_path / "cifar10.npz")
    assert "--data FILE.npz" in caught.value.fix and not (tmp_path / "cifar10.npz").exists()
