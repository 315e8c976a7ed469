# SPDX-License-Identifier: Apache-2.0
"""The whole path on real images, and on a second model that nobody designed bnngen around."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.e2e.conftest import Shell, need_tools

TARGETS = ("host", "rpi4", "stm32f405")
ALL_DIGITS = 1797
SMALL_STREAM = ("--train-limit", "12", "--test-limit", "8", "--learn-epochs", "3")


def table_row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name))


@pytest.mark.parametrize("target", TARGETS)
def test_all_digits_are_equal_bit_for_bit(digits, target):
    """Interpreter == target for every image of the data set, and every layer for one of them."""
    need_tools(target)
    text = digits.good("validate", "--target", target, "--data", "digits", "--all")
    assert re.search(rf"{target}\s+{ALL_DIGITS}\s.*bit for bit", text), text
    assert "checksums of all" in text
    counts = [int(n) for n in re.findall(r"(\d+)(?:,|$)", table_row(text, "predicted:"))]
    assert sum(counts) == ALL_DIGITS and min(counts) > 100, "a saturated model proves nothing"


def test_keras_onnx_and_integers_agree_in_accuracy(digits):
    text = digits.good("validate", "--target", "host", "--keras", "model.keras")
    shares = {
        name: float(re.search(r"([\d.]+)%", table_row(text, name)).group(1))
        for name in ("Keras", "ONNX", "interpreter", "host")
    }
    assert min(shares.values()) > 97 and max(shares.values()) - min(shares.values()) < 1.1, shares


def test_reference_kernels_give_the_same_bits(digits):
    text = digits.good("validate", "--target", "host", "--kernels", "ref", "--limit", "100")
    assert "bit for bit" in text


def test_int8_stream_is_exact_too(digits):
    need_tools("stm32f405")
    text = digits.good(
        "validate", "--target", "host", "--target", "stm32f405", "--activation-bits", "8", "--limit", "60"
    )
    assert text.count("bit for bit") == 2


def test_every_target_learns_the_same_state(digits):
    """The learned state after every experience has the same checksums on all targets, and it learned."""
    need_tools(*TARGETS)
    states, accuracy = {}, {}
    for target in TARGETS:
        result = json.loads(digits.good("learn", "--target", target, "--json", *SMALL_STREAM))
        states[target] = [e["state"] for e in result["experiences"]]
        accuracy[target] = result["final_accuracy"]
        assert len(result["experiences"]) == 6, "0 to 4 together, then one at a time"
    assert states["host"] == states["rpi4"] == states["stm32f405"]
    assert len({tuple(s) for s in states["host"]}) == 6, "every experience changed something"
    assert min(accuracy.values()) > 0.7  # 0.7375 on 12 images a class


def test_learning_on_the_device_equals_the_twin_and_beats_forgetting(digits):
    text = digits.good("learn", "--target", "host", "--check", "--compare", "--seed", "3")
    assert "byte for byte" in text
    final = {
        name: float(re.search(r"([\d.]+)%", table_row(text, name)).group(1))
        for name in ("on the target", "CWR* float32, float", "plain SGD", "all data at once")
    }
    assert final["on the target"] > 85, final
    assert final["plain SGD"] < 40 < final["on the target"] < final["all data at once"], final
    assert "classes 0, 1, 2, 3, 4, and is frozen" in text
    picture = re.search(r"picture: (\S+)", text).group(1)
    assert (digits.folder / picture).read_bytes().startswith(b"\x89PNG")


def test_an_earlier_cut_learns_and_equals_its_twin(digits):
    digits.good("export", "model", "-o", "early.onnx", "--cut", "stage3_block1_add")
    text = digits.good("learn", "--model", "early", "--target", "host", "--check", *SMALL_STREAM)
    assert "x 256 bytes" in text and "byte for byte" in text


def test_same_input_same_bytes_out(digits, tmp_path):
    def everything(folder: Path) -> dict[str, bytes]:
        files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix in (".c", ".h", ".txt", ".json")]
        return {str(p.relative_to(folder)): p.read_bytes() for p in files}

    digits.good("build", "--target", "host")
    project = digits.folder / "build" / "model-host"
    before = everything(project)
    other = Shell(tmp_path)
    (tmp_path / "model.onnx").write_bytes((digits.folder / "model.onnx").read_bytes())
    other.good("build", "--target", "host")
    assert everything(tmp_path / "build" / "model-host") == before
    digits.good("export", "model", "-o", "again.onnx")
    assert (digits.folder / "again.onnx").read_bytes() == (digits.folder / "model.onnx").read_bytes()


def test_analyze_speaks_json(digits):
    result = json.loads(digits.good("analyze", "--target", "stm32f405", "--json"))
    assert result["fits"] and result["ram_bytes"] < result["ram_budget_bytes"] == 131072
    binary = sum(layer["binary_macs"] for layer in result["layers"])
    assert 13e6 < binary < 15e6  # six 3x3 convolutions of 2.36 M each


def test_run_classifies_image_files(digits, tmp_path):
    import numpy as np
    from PIL import Image

    from bnngen.data import load

    data = load("digits")
    names = []
    for digit in range(5):
        image = data.x_test[np.flatnonzero(data.y_test == digit)[0]]
        names.append(str(tmp_path / f"{digit}.png"))
        Image.fromarray(image[..., 0]).save(names[-1])
    text = digits.good("run", "--target", "host", *names)
    for digit, name in enumerate(names):
        assert re.search(rf"{re.escape(Path(name).name)}\s+{digit}\s", text), text


def test_a_plain_chain_with_zero_padding_takes_the_same_path(bnngen):
    """Binary conv, batch norm, sign; no residual; nothing in the generator knows of it."""
    need_tools(*TARGETS)
    pytest.importorskip("larq", reason="needs the extra bnngen[train]")
    bnngen.good("train", "binary-chain", "--data", "digits", "--epochs", "4", "-o", "chain.keras")
    bnngen.good("export", "chain")
    arguments = [part for target in TARGETS for part in ("--target", target)]
    text = bnngen.good("validate", "--model", "chain", "--keras", "chain.keras", "--all", *arguments)
    assert text.count("bit for bit") == 3
    counts = [int(n) for n in re.findall(r"(\d+)(?:,|$)", table_row(text, "predicted:"))]
    assert sum(c > 0 for c in counts) >= 6, "a saturated model proves nothing"
