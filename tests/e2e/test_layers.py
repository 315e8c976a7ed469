# SPDX-License-Identifier: Apache-2.0
"""`bnngen validate --layers`: the table, its JSON, its picture, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.e2e.conftest import good, in_process

SMALL = ("--data", "digits", "--limit", "20")


@pytest.fixture
def here(digits, monkeypatch, capsys):
    """Run a command in this process, in the folder of the digits: a process and its imports cost a second."""
    monkeypatch.chdir(digits.folder)

    return in_process(capsys)


def test_the_table_names_keras_layers(here):
    text = good(here("validate", "--layers", "--activation-bits", "8", *SMALL))
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    for layer in ("stem_bn", "stage1_block1_bn", "transition1_pool", "head_relu", "pool", "logits"):
        assert layer in lines, text
    assert lines["image"].count("exact") == 2, "alone and accumulated"
    assert "20 images" in text and "same class for" in text
    assert "<- worst" not in text, "of a healthy model no layer's own error is larger than its type explains"


def test_the_document_agrees_with_keras(digits):
    """The integer graph is as far from Keras as from the float graph: both mean the same network."""
    arguments = ("--activation-bits", "16", "--json", "-o", "layers.png", *SMALL)
    document = json.loads(digits.good("validate", "--layers", "--keras", "model.keras", *arguments))
    layers = {layer["name"]: layer for layer in document["layers"]}
    assert document["activation_bits"] == 16 and document["images"] == 20 and set(document["worst"]) <= set(layers)
    compared = [layer for layer in layers.values() if layer["outside"] is not None]
    assert len(compared) > 10
    for layer in compared:
        assert abs(layer["outside"] - layer["accumulated"]["snr"]) < 3, layer
    assert layers["image"]["alone"] == {"snr": None, "exact": True, "signs": None, "upward": None, "wrong": 0}
    assert (digits.folder / "layers.png").read_bytes().startswith(b"\x89PNG")


def test_int8_turns_signs_in_both_directions(here):
    """Rounded to nearest, all wrong signs of the first layer would be +1, two thirds of the next (docs/adr/0008)."""
    document = json.loads(good(here("validate", "--layers", "--activation-bits", "8", "--json", "--data", "digits")))
    wrong = {
        layer["name"]: layer["accumulated"]["upward"]
        for layer in document["layers"]
        if layer["accumulated"]["signs"] is not None and layer["accumulated"]["signs"] < 0.99
    }
    assert len(wrong) >= 4 and all(0.4 < upward < 0.6 for upward in wrong.values()), wrong
    assert abs(document["accuracy"]["float"] - document["accuracy"]["integer"]) < 0.011


def test_the_chain_as_a_document(here):
    document = json.loads(good(here("validate", "--json", *SMALL)))
    assert document["passed"] and [row["exact"] for row in document["rows"]] == [None, True]


def test_options_that_would_not_be_heard(here):
    here("validate", "--layers", "--target", "host").refused("--layers runs on no target")
    here("validate", "--layers", "--on", "process").refused()
    here("validate", "-o", "layers.png").refused("only --layers draws a picture")
    here("validate", "--layers", "-o", "missing/layers.png").refused("there is no folder")
    here("validate", "--layers", "--model", "missing").refused("there is no missing.onnx")
    here("validate", "--layers", "--keras", "missing").refused("there is no missing.keras")


def test_images_of_another_shape(here):
    x = np.zeros((4, 8, 9, 3), np.uint8)
    np.savez("other_shape.npz", x_train=x, y_train=np.arange(4), x_test=x, y_test=np.arange(4))
    here("validate", "--layers", "--data", "other_shape.npz").refused("8x9x3", "16x16x1")
