# SPDX-License-Identifier: Apache-2.0
"""`bnngen validate --layers`: the table, its JSON, its picture, and what it refuses."""

from __future__ import annotations

import json

SMALL = ("--data", "digits", "--limit", "40")


def test_the_table_names_keras_layers_and_the_worst(digits):
    text = digits.good("validate", "--layers", "--keras", "model.keras", "--activation-bits", "8", *SMALL)
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    for layer in ("stem_bn", "stage1_block1_bn", "transition1_pool", "head_relu", "pool", "logits"):
        assert layer in lines, text
    assert lines["image"].count("exact") == 3, "alone, accumulated, and against Keras"
    assert text.count("<- worst") >= 1 and "40 images" in text and "same class for" in text


def test_the_document_agrees_with_keras(digits):
    """The integer graph is as far from Keras as from the float graph: both mean the same network."""
    arguments = ("--activation-bits", "16", "--json", "-o", "layers.png", *SMALL)
    document = json.loads(digits.good("validate", "--layers", "--keras", "model.keras", *arguments))
    layers = {layer["name"]: layer for layer in document["layers"]}
    assert document["activation_bits"] == 16 and document["images"] == 40 and set(document["worst"]) <= set(layers)
    compared = [layer for layer in layers.values() if layer["outside"] is not None]
    assert len(compared) > 10
    for layer in compared:
        assert abs(layer["outside"] - layer["accumulated"]["snr"]) < 3, layer
    assert layers["image"]["alone"] == {"snr": None, "exact": True, "signs": None, "upward": None}
    assert (digits.folder / "layers.png").read_bytes().startswith(b"\x89PNG")


def test_int8_turns_signs_in_both_directions(digits):
    """Rounded to nearest, all wrong signs of the first layer would be +1, two thirds of the next (docs/adr/0008)."""
    document = json.loads(digits.good("validate", "--layers", "--activation-bits", "8", "--json", "--data", "digits"))
    wrong = {
        layer["name"]: layer["accumulated"]["upward"]
        for layer in document["layers"]
        if layer["accumulated"]["signs"] is not None and layer["accumulated"]["signs"] < 0.99
    }
    assert len(wrong) >= 4 and all(0.4 < upward < 0.6 for upward in wrong.values()), wrong
    assert abs(document["accuracy"]["float"] - document["accuracy"]["integer"]) < 0.011


def test_the_chain_as_a_document(digits):
    document = json.loads(digits.good("validate", "--json", *SMALL))
    assert document["passed"] and [row["exact"] for row in document["rows"]] == [None, True]


def test_options_that_would_not_be_heard(digits):
    digits("validate", "--layers", "--target", "host").refused("--layers runs on no target")
    digits("validate", "--layers", "--on", "process").refused()
    digits("validate", "-o", "layers.png").refused("only --layers draws a picture")
    digits("validate", "--layers", "-o", "missing/layers.png").refused("there is no folder")
    digits("validate", "--layers", "--model", "missing").refused("there is no missing.onnx")
    digits("validate", "--layers", "--keras", "missing").refused("there is no missing.keras")


def test_images_of_another_shape(digits):
    import numpy as np

    x = np.zeros((4, 8, 9, 3), np.uint8)
    np.savez(digits.folder / "other_shape.npz", x_train=x, y_train=np.arange(4), x_test=x, y_test=np.arange(4))
    digits("validate", "--layers", "--data", "other_shape.npz").refused("8x9x3", "16x16x1")
