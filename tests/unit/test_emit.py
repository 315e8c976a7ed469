# SPDX-License-Identifier: Apache-2.0
"""What is written: complete, deterministic, whole or not at all; numbers and names as C wants them."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from bnngen import resources
from bnngen.emit import emit_project, render
from bnngen.emit.arrays import array_view
from bnngen.emit.view import RUNTIME_ABI, shape_values, wrap
from bnngen.lower import lower
from bnngen.lower.program import Const
from bnngen.lower.shapes import MapShape
from bnngen.plan import make_plan
from bnngen.targets import load_target
from tests.golden import big, tiny


def emit(folder: Path, target: str = "host") -> Path:
    graph, latent = tiny.small()
    facts = load_target(target)
    program = lower(graph, frozenset(facts.features), "auto", latent)
    return emit_project(program, make_plan(program), None, facts, folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_abi_number_is_the_header_s():
    header = (resources.runtime() / "include/bnn/bnn.h").read_text(encoding="utf-8")
    assert f"#define BNN_RUNTIME_ABI {RUNTIME_ABI}\n" in header


def test_the_same_input_gives_the_same_bytes(tmp_path):
    assert contents(emit(tmp_path / "a")) == contents(emit(tmp_path / "b"))


def test_a_project_is_complete(tmp_path):
    files = contents(emit(tmp_path / "project", "stm32f405"))
    expected = {
        "small.c",
        "small.h",
        "small_weights.c",
        "small_weights.h",
        "main.c",
        "memory.ld",
        "Makefile",
        "CMakeLists.txt",
        "manifest.json",
        "plan.txt",
        "bnn/include/bnn/bnn.h",
        "bnn/kernels/map_ref.h",
    }
    assert expected <= set(files)
    makefile = files["Makefile"].decode()
    for source in re.findall(r"^\t(\S+\.c)", makefile, re.MULTILINE):
        assert source in files, source


@pytest.mark.parametrize("target", ["host", "stm32f405"])
def test_everything_is_compiled_without_strict_aliasing(tmp_path, target):
    """The flag does not stand in CFLAGS, which a user may replace."""
    folder = emit(tmp_path / "project", target)
    argv = ["make", "-n", "-C", str(folder), "CFLAGS=-O2"]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    compiled = [line for line in lines if " -c " in line]
    assert len(compiled) > 5 and all("-fno-strict-aliasing" in line for line in compiled)
    cmake = (folder / "CMakeLists.txt").read_text(encoding="utf-8")
    assert cmake.count("target_compile_options") == cmake.count("PRIVATE ${MEMORY}") > 1


def test_nothing_generated_knows_where_or_when_it_was_made(tmp_path):
    for name, data in contents(emit(tmp_path / "project")).items():
        text = data.decode()
        assert str(tmp_path) not in text and str(resources.runtime().parent) not in text, name
        assert not re.search(r"\b20\d\d-\d\d-\d\d\b", text), name


def test_an_old_project_is_replaced_whole(tmp_path):
    folder = emit(tmp_path / "project")
    (folder / "left_over.o").write_text("old")
    (folder / "main.c").write_text("of another version")
    emit(folder)
    assert not (folder / "left_over.o").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["project"]


def test_a_failure_leaves_the_old_project(tmp_path, monkeypatch):
    folder = emit(tmp_path / "project")
    before = contents(folder)

    def full_disk(to: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(render, "copy_runtime", full_disk)
    with pytest.raises(OSError, match="no space"):
        emit(folder)
    assert contents(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["project"]


def test_the_manifest_describes_every_step(tmp_path):
    manifest = json.loads((emit(tmp_path / "project") / "manifest.json").read_text())
    assert manifest["model"] == "small" and manifest["target"] == "host"
    assert [step["tensor"] for step in manifest["steps"]] == ["input", "stem", "sign", "block", "sum", "pool", "logits"]
    assert manifest["steps"][2] == {
        "number": 2,
        "layer": "sign",
        "kernel": "binarize_ref",
        "tensor": "sign",
        "dtype": "bits",
        "shape": [4, 4, 2],
        "bytes": 64,
        "title": "sign: binarize [4,4,2] s8 -> bits",
    }


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.array([-(2**31), 2**31 - 1], np.int32), "INT32_MIN, 2147483647,"),
        (np.array([-(2**63), 2**40, -7], np.int64), "INT64_MIN, INT64_C(1099511627776), -7,"),
        (np.array([1, 2**32 - 1], np.uint32), "0x00000001u, 0xFFFFFFFFu,"),
        (np.array([-128], np.int8), "-128,"),
    ],
)
def test_numbers_are_c_literals(values, text):
    assert array_view("bnn_m", Const("x", values)).lines == (text,)


def test_arrays_are_few_long_lines():
    view = array_view("bnn_m", Const("x", np.zeros(1000, np.int8)))
    assert view.size == 1000 and max(map(len, view.lines)) <= 120
    assert sum(line.count("0") for line in view.lines) == 1000 and len(view.lines) < 30


@pytest.mark.parametrize("dtype", ["int8", "uint32"])
@pytest.mark.parametrize("size", [1024, 1025, 1031, 5000])
def test_large_weights_are_words_that_hold_the_same_bytes(dtype, size):
    limits = np.iinfo(dtype)
    values = np.random.default_rng(size).integers(limits.min, limits.max + 1, (size, 1), dtype)
    values[0] = limits.min
    view = array_view("bnn_m", Const("x", values))
    words = re.findall(r"0x([0-9A-F]{16})u,", "".join(view.lines))
    assert view.ctype == "uint64_t" and view.size == len(words) and max(map(len, view.lines)) <= 116
    held = b"".join(int(word, 16).to_bytes(8, "little") for word in words)
    assert held == values.tobytes() + bytes(-values.nbytes % 8)
    assert view.shape == f"{dtype}_t [{size}][1] as 64-bit words"


@pytest.mark.parametrize(("size", "dtype"), [(1023, "int8"), (255, "uint32"), (600, "int32"), (600, "int64")])
def test_small_arrays_and_those_of_an_affine_stay_numbers(size, dtype):
    assert array_view("bnn_m", Const("x", np.zeros(size, dtype))).ctype == f"{dtype}_t"


def test_a_model_as_large_as_published_ones_is_generated_and_compiled_in_time(tmp_path):
    """12.5 million binary weights, 0.6 million int8 ones. The limits are several times what it takes on two cores."""
    facts = load_target("host")
    graph = big.medium()
    start = time.monotonic()
    program = lower(graph, frozenset(facts.features))
    plan = make_plan(program)
    folder = emit_project(program, plan, None, facts, tmp_path / "project")
    assert time.monotonic() - start < 5 and program.const_bytes > 2_000_000
    subprocess.run(["make", "-s", "-C", str(folder), "medium_weights.o"], check=True, timeout=10)


def test_long_calls_are_broken_behind_a_comma():
    text = wrap("call(", [f"argument_number_{i}" for i in range(12)], ");", 4)
    assert max(map(len, text.splitlines())) <= 116 and len(text.splitlines()) == 3
    assert text.splitlines()[1].startswith(" " * 9 + "argument")


def test_types_are_printed_by_name():
    assert shape_values(MapShape(1, 2, 3, 1, 2, 0)) == "1, 2, 3, BNN_S8, BNN_S16, BNN_WIDE"


def test_an_equal_project_is_left_alone_and_a_changed_one_replaced(tmp_path):
    """Objects of the last build survive a second generation; an edited or stale source does not."""
    directory = emit(tmp_path / "project")
    (directory / "model.o").write_bytes(b"object")
    emit(directory)
    assert (directory / "model.o").exists()
    (directory / "main.c").write_text("edited", encoding="utf-8")
    emit(directory)
    assert "edited" not in (directory / "main.c").read_text(encoding="utf-8")
    assert not (directory / "model.o").exists()
    (directory / "stale.c").write_text("left over", encoding="utf-8")
    emit(directory)
    assert not (directory / "stale.c").exists()
