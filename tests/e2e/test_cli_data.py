# SPDX-License-Identifier: Apache-2.0
"""Commands over a data set, and the demo, as a user runs them: on the model of the digits 0 to 4."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import onnx
import pytest

from bnngen.data import load
from tests.e2e.conftest import Shell, need_tools

KNOWN_DIGITS = int((load("digits").y_test < 5).sum())


def test_run_classifies_the_test_images_of_a_data_set(digits):
    text = digits.good("run", "--data", "digits")
    found = re.search(r"predicted of (\d+) test images: 0 (\d+), 1 (\d+), 2 (\d+), 3 (\d+), 4 (\d+)\n", text)
    count, *classes = map(int, found.groups())
    assert count == sum(classes) == KNOWN_DIGITS and min(classes) > 20
    assert float(re.search(r"accuracy: ([\d.]+)%", text).group(1)) > 97
    header, *rows = text.splitlines()[:11]
    assert header.split() == ["image", "class", "right", "best", "scores"]
    assert sum(row.split()[1] == row.split()[2] for row in rows) >= 9


def test_run_takes_a_few_from_all_over_the_set(digits):
    text = digits.good("run", "--data", "digits", "--limit", "4")
    assert "predicted of 4 test images" in text
    assert [int(line.split()[0]) for line in text.splitlines()[1:5]] == [i * KNOWN_DIGITS // 4 for i in range(4)]


def test_run_claims_no_accuracy_on_data_of_other_classes(digits):
    """Ten numbered classes of the right shape, and yet not the digits."""
    x = np.random.default_rng(1).integers(0, 256, (30, 16, 16, 1), np.uint8)
    np.savez(digits.folder / "other.npz", x_train=x, y_train=np.arange(30) % 10, x_test=x, y_test=np.arange(30) % 10)
    assert "accuracy: unknown" in digits.good("run", "--data", "other.npz")
    assert "%" not in digits.good("validate", "--data", "other.npz").split("predicted")[0].replace("100.00%", "")


def test_validate_counts_the_images_whose_layers_it_compared(digits):
    assert "for 1 of the images the checksums of all" in digits.good("validate", "--random", "1")
    assert "for 3 of the images the checksums of all" in digits.good("validate", "--random", "5")


def test_run_wants_images_or_data(digits):
    digits("run").refused("image files, or --data")
    digits("run", "7.png", "--data", "digits").refused("one of the two")


@pytest.mark.parametrize("command", [
    ("learn", "--train-limit", "6", "--test-limit", "4", "--learn-epochs", "2", "--q-f", "6", "--q-b", "8", "--check"),
    ("analyze",), ("targets",),
], ids=lambda c: c[0])  # fmt: skip
def test_json_is_all_that_stands_on_stdout(digits, command):
    json.loads(digits.good(*command, "--json"))


def test_the_demo_tells_its_story_to_the_end(bnngen: Shell):
    """Few epochs: what the chapters do is tested, not how good the network gets."""
    pytest.importorskip("larq", reason="needs the extra bnngen[train]")
    need_tools("host", "rpi4", "stm32f405")
    text = bnngen.good("demo", "--epochs", "4")
    assert [int(n) for n in re.findall(r"^(\d)\. ", text, re.MULTILINE)] == [1, 2, 3, 4, 5, 6]
    for target in ("host", "rpi4", "stm32f405"):
        assert re.search(rf"{target}\s+\d+ images: every score equal, bit for bit", text), text
    learned = re.findall(r"of all ten digits ([\d.]+)% were right before, ([\d.]+)% after; 5 new classes", text)
    assert len(learned) == 2 and all(float(after) > float(before) + 15 for before, after in learned), text
    last = re.search(r"`bnngen (flash .*?)`", text).group(1)
    assert "build/digits-stm32f405/" in bnngen.good(*last.split())
    for picture in re.findall(r"picture: (\S+)", text):
        assert (bnngen.folder / picture).read_bytes().startswith(b"\x89PNG")


def test_a_model_of_ones_own_is_exported_with_images_alone(bnngen):
    """No meta file, no data set: an .npz of pictures, and the classes by name or by number."""
    larq = pytest.importorskip("larq", reason="needs the extra bnngen[train]")
    tf = pytest.importorskip("tensorflow")
    image = tf.keras.Input((8, 8, 3))
    x = larq.layers.QuantConv2D(4, 3, kernel_quantizer="ste_sign", kernel_constraint="weight_clip")(image)
    scores = tf.keras.layers.Dense(2)(tf.keras.layers.GlobalAveragePooling2D()(x))
    tf.keras.Model(image, scores).save(bnngen.folder / "own.keras")
    x = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    np.savez(bnngen.folder / "images.npz", x=x)
    base = ("export", "own", "--calibrate", "images.npz")
    bnngen(*base, "--classes", "cat,dog").refused("--input-scale S is missing", "own.meta.json", "--input-offset -1")
    base += ("--input-scale", "0.0078125")
    bnngen.good(*base, "--input-offset", "-1")
    assert '"classes": ["0", "1"]' in metadata(bnngen)
    bnngen.good(*base, "--classes", "cat, dog")
    assert '"classes": ["cat", "dog"]' in metadata(bnngen)
    bnngen(*base, "--classes", "cat").refused("2 outputs for 1", "--classes")
    bnngen(*base, "--classes", "cat,cat").refused("not a list of class names")
    bnngen("export", "own").refused("own.meta.json", "--input-scale")


def metadata(bnngen) -> str:
    return onnx.load(bnngen.folder / "own.onnx").metadata_props[0].value


def test_keras_is_read_as_the_exported_file_says(digits):
    """A model that bnngen did not train has nothing beside it: scale, offset and classes stand in the ONNX file."""
    shutil.copy(digits.folder / "model.keras", digits.folder / "alone.keras")
    assert not (digits.folder / "alone.meta.json").exists()
    document = json.loads(digits.good("validate", "--keras", "alone.keras", "--limit", "2", "--json"))
    assert [row["name"] for row in document["rows"]][:2] == ["Keras", "ONNX (onnxruntime)"]
    assert document["rows"][0]["accuracy"] > 0.97 and document["rows"][1]["agreement"] == 1
    text = digits.good("validate", "--layers", "--keras", "alone.keras", "--limit", "2")
    assert "Keras, dB" in text


def test_validate_refuses_before_it_builds(digits):
    shutil.copy(digits.folder / "model.onnx", digits.folder / "early.onnx")
    for arguments in (("--keras", "model.onnx"), ("--keras", "missing"), ("--random", "3", "--data", "digits"),
                      ("--random", "3", "--all"), ("--data", "nowhere.npz")):  # fmt: skip
        digits("validate", "--model", "early", "--target", "host", *arguments).refused()
    assert not (digits.folder / "build/early-host").exists()


def test_of_many_classes_the_most_frequent_are_told():
    from bnngen.cli.device import predicted

    assert predicted(["a", "b"], [0, 3]) == "a 0, b 3"
    names = [f"n{i}" for i in range(1000)]
    assert predicted(names, [0] * 998 + [5, 7]) == "n999 7, n998 5"
    text = predicted(names, list(range(1000)))
    assert text.startswith("n999 999, n998 998, ") and text.count(",") == 9
    assert text.endswith("n990 990; 999 of the 1000 classes in all")


OWN_LAYER = """
import tensorflow as tf

@tf.keras.utils.register_keras_serializable("own")
class Shift(tf.keras.layers.Layer):
    def call(self, x):
        return x + 0.25
"""


def test_keras_with_layers_of_ones_own(bnngen):
    """What export needs to read the model, validate needs too, and offers by the same name."""
    larq = pytest.importorskip("larq", reason="needs the extra bnngen[train]")
    tf = pytest.importorskip("tensorflow")
    (bnngen.folder / "layers.py").write_text(OWN_LAYER)
    scope = {"__name__": "layers"}
    exec(OWN_LAYER, scope)
    image = tf.keras.Input((8, 8, 3))
    x = larq.layers.QuantConv2D(4, 3, kernel_quantizer="ste_sign", kernel_constraint="weight_clip")(image)
    x = tf.keras.layers.GlobalAveragePooling2D()(scope["Shift"]()(x))
    tf.keras.Model(image, tf.keras.layers.Dense(2)(x)).save(bnngen.folder / "own.keras")
    np.savez(bnngen.folder / "x.npz", x=np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)).astype(np.uint8))
    own = ("--import", "layers.py")
    bnngen.good("export", "own", "--calibrate", "x.npz", "--input-scale", "0.0078125", "--input-offset", "-1", *own)
    chain = ("validate", "--model", "own", "--random", "3")
    text = bnngen.good(*chain, "--keras", "own.keras", *own)
    assert "Keras" in text and "every score is equal" in text
    bnngen(*chain, "--keras", "own.keras").refused("own.keras")
    bnngen(*chain, *own).refused("--keras")
