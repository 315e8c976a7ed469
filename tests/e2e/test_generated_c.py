# SPDX-License-Identifier: Apache-2.0
"""The generated C of a real model: warnings, compilers, sanitizers, and nothing it should not call."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bnngen import interp
from bnngen.data import load
from bnngen.device.compile import open_build
from bnngen.device.session import connect
from bnngen.pipeline import BuildOptions, compile_model
from bnngen.targets import load_target

STRICT = ["-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Werror"]
SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all"


def make(project: Path, *arguments: str) -> None:
    done = subprocess.run(["make", "-C", str(project), "-j2", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(digits, tmp_path_factory) -> Path:
    """A private copy of the generated host project, without objects."""
    digits.good("build", "--target", "host")
    copy = tmp_path_factory.mktemp("generated") / "project"
    shutil.copytree(digits.folder / "build" / "model-host", copy)
    make(copy, "clean")
    return copy


def tools(*names: str) -> None:
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"missing: {name}")


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_it_compiles_without_a_warning(project, compiler):
    tools(compiler)
    make(project, f"CC={compiler}")
    make(project, "clean")


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_it_is_cplusplus_too(project, compiler):
    tools(compiler)
    sources = [
        *project.glob("*.c"),
        *(project / "bnn" / "learn").glob("*.c"),
        *(project / "bnn" / "protocol").glob("*.c"),
    ]
    for source in sources:
        argv = [
            compiler,
            "-x",
            "c++",
            "-std=c++11",
            *STRICT,
            "-march=x86-64-v2",
            "-fsyntax-only",
            "-I.",
            "-Ibnn/include",
        ]
        done = subprocess.run([*argv, str(source)], cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_library_calls_nothing_but_memory_functions(project):
    """No heap, no stdio: undefined symbols of the library are its own, or mem*."""
    tools("nm")
    make(project, "clean")
    make(project, "lib", "CFLAGS=-O2 -march=x86-64-v2 -fno-pie")  # else const structs with pointers are relocated
    library = str(next(project.glob("lib*.a")))
    listing = subprocess.run(["nm", "-g", library], capture_output=True, text=True, check=True).stdout.split("\n")
    rows = [line.split() for line in listing if line.strip() and not line.endswith(":")]
    defined = {row[-1] for row in rows if len(row) == 3}
    wanted = {row[-1] for row in rows if row[0] == "U"} - defined
    assert wanted <= {"memcpy", "memset", "memmove", "memcmp", "_GLOBAL_OFFSET_TABLE_"}, wanted
    assert not [row for row in rows if len(row) == 3 and row[1] in "BDC"], "the library has a writable global"


def test_all_digits_and_a_stream_under_sanitizers(project, digits):
    """Every image of the data set, then learning, with address and undefined-behaviour checks; same bits."""
    make(project, "clean")
    make(project, f"CFLAGS=-O1 -g -march=x86-64-v2 {SANITIZE}", f"LDFLAGS={SANITIZE}")
    target = load_target("host")
    compiled = compile_model(digits.folder / "model.onnx", target, BuildOptions())
    data = load("digits")
    images = np.concatenate([data.x_train, data.x_test])
    want = interp.run(compiled.graph, images)
    with connect(open_build(project, target), timeout_s=120) as client:
        got = np.stack([client.infer(image) for image in images])
        np.testing.assert_array_equal(got, want)
        client.learn_init(5)
        for first in (0, 5):
            client.begin()
            for label in range(first, first + 5):
                for image in data.x_train[data.y_train == label][:20]:
                    client.add(label, image)
            more = True
            while more:
                _, more = client.step(8)
            client.end()
        right = [np.argmax(client.classify(x)) == y for x, y in zip(data.x_test[:100], data.y_test[:100], strict=True)]
    assert np.mean(right) > 0.6


def test_the_manifest_says_what_was_built(project):
    manifest = json.loads((project / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["trained_classes"] == [0, 1, 2, 3, 4] and len(manifest["classes"]) == 10
    assert len(manifest["hash"]) == 32
