# SPDX-License-Identifier: Apache-2.0
"""Data sets on the command line: which are a model's own, and what loading one may print."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnngen.cli import data as cli_data
from bnngen.data import load
from bnngen.data.dataset import make_dataset
from bnngen.ir import ModelMeta

SHAPE = (4, 4, 1)


def images(seed: int):
    rng = np.random.default_rng(seed)
    arrays = {f"x_{part}": rng.integers(0, 256, (6, *SHAPE), np.uint8) for part in ("train", "test")}
    return make_dataset("some", arrays | {f"y_{part}": np.arange(6) % 3 for part in ("train", "test")}, None, "a test")


def meta(**source: str) -> ModelMeta:
    return ModelMeta("m", ("0", "1", "2"), (0, 1), 1.0, 0.0, source=source)


def test_data_are_a_models_own_by_their_checksum():
    mine, other = images(1), images(2)
    assert mine.classes == other.classes, "what made them look the same"
    trained = meta(data_sha256=mine.sha256)
    assert cli_data.same_data(trained, SHAPE, mine)
    assert cli_data.same_data(trained, SHAPE, replace(mine, name="renamed"))
    assert not cli_data.same_data(trained, SHAPE, other)


@pytest.mark.parametrize("source", [{}, {"data_sha256": ""}])
def test_without_a_checksum_names_and_shape_decide(source):
    unknown = meta(**source)
    assert cli_data.same_data(unknown, SHAPE, images(1))
    assert not cli_data.same_data(unknown, (8, 8, 1), images(1))
    assert not cli_data.same_data(replace(unknown, classes=("a", "b", "c")), SHAPE, images(1))


def test_a_download_says_so_beside_the_output(tmp_path, monkeypatch, capsys):
    """stdout may be one JSON document."""
    keras_datasets = pytest.importorskip("bnngen.train.keras_datasets", reason="needs the extra bnngen[train]")
    monkeypatch.setenv("HOME", str(tmp_path))
    digits = load("digits")

    def fetch(name: str) -> None:
        file = tmp_path / ".cache" / "bnngen" / f"{name}.npz"
        file.parent.mkdir(parents=True)
        np.savez(file, **{key: getattr(digits, key) for key in ("x_train", "y_train", "x_test", "y_test")})

    monkeypatch.setattr(keras_datasets, "fetch", fetch)
    assert cli_data.load_data("cifar10").name == "cifar10"
    said = capsys.readouterr()
    assert said.out == "" and "downloading cifar10" in said.err
