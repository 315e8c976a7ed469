# SPDX-License-Identifier: Apache-2.0
"""The functions of float.h and float_unary against double precision, and the rounding of scores."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bnngen import resources

SOURCE = """
#include <stdio.h>
#include "kernels/float_map_ref.h"
#include "kernels/float_unary_ref.h"
static const bnn_float_fn functions[] = {bnn_float_exp, bnn_float_expm1, bnn_float_sigmoid, bnn_float_tanh,
                                         bnn_float_swish, bnn_float_elu};
int main(int argc, char **argv)
{
    float x;
    while (fread(&x, 4, 1, stdin) == 1) {
        if (argc == 2) {
            const float y = functions[argv[1][0] - '0'](x);
            fwrite(&y, 4, 1, stdout);
        } else {
            const int32_t score = bnn_float_score(x);
            fwrite(&score, 4, 1, stdout);
        }
    }
    return 0;
}
"""
FUNCTIONS = {  # name: its number above, where it is tried, the same in double precision, its largest relative error
    "exp": (0, -87, 88, np.exp, 2.0**-22),
    "expm1": (1, -87, 88, np.expm1, 2.0**-20),
    "sigmoid": (2, -87, 87, lambda x: 1 / (1 + np.exp(-x)), 2.0**-19),
    "tanh": (3, -20, 20, np.tanh, 2.0**-19),
    "swish": (4, -87, 87, lambda x: x / (1 + np.exp(-x)), 2.0**-19),
    "elu": (5, -87, 20, lambda x: np.where(x < 0, np.expm1(x), x), 2.0**-19),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc not installed")
    folder, runtime = tmp_path_factory.mktemp("functions"), resources.runtime()
    (folder / "functions.c").write_text(SOURCE, encoding="utf-8")
    flags = ["-std=c99", "-O2", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-fsanitize=float-cast-overflow"]
    include = [f"-I{runtime}", f"-I{runtime / 'include'}"]
    made = folder / "functions"
    subprocess.run(["gcc", *flags, *include, str(folder / "functions.c"), "-o", str(made)], check=True, timeout=60)
    return made


def run(program: Path, x: np.ndarray, *which: str) -> bytes:
    return subprocess.run([str(program), *which], input=x.tobytes(), capture_output=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_stated_error_holds(program, name):
    number, lo, hi, exact, bound = FUNCTIONS[name]
    near = np.float32(10.0) ** np.linspace(-30, 0, 20_000, dtype=np.float32)
    x = np.concatenate([np.linspace(lo, hi, 300_001), near, -near, [-0.35, 0.35]]).astype(np.float32)
    x = x[x != 0]
    want = exact(x.astype(np.float64))
    error = np.abs(np.frombuffer(run(program, x, str(number)), "<f4") / want - 1)
    assert error.max() < bound, f"at {x[error.argmax()]}"


def test_at_the_ends_nothing_overflows(program):
    """Far outside: e^x stays finite, so do the others; tanh and sigmoid reach their limits."""
    x = np.float32([-3e38, -1000, 1000, 3e38])
    values = {name: np.frombuffer(run(program, x, str(row[0])), "<f4") for name, row in FUNCTIONS.items()}
    assert all(np.isfinite(v).all() for v in values.values())
    assert values["tanh"].tolist() == [-1, -1, 1, 1] and values["elu"][:2].tolist() == [-1, -1]
    assert values["sigmoid"][2:].tolist() == [1, 1] and values["sigmoid"][:2].max() < 1e-37


def test_scores_are_rounded_to_even_and_saturate(program):
    halves = (np.arange(-41, 42) / 2).astype(np.float32) / 2**16
    rng = np.random.default_rng(0)
    usual = np.concatenate([rng.normal(0, s, 2000) for s in (1e-5, 1, 1e3, 3e4)]).astype(np.float32)
    ends = np.float32([32767.998, 32768, 4e4, np.inf, -32768, -32767.998, -4e4, -np.inf])
    x = np.concatenate([halves, usual, ends]).astype(np.float32)
    want = np.clip(np.rint(x.astype(np.float64) * 2**16), -(2**31), 2**31 - 1).astype(np.int64)
    np.testing.assert_array_equal(np.frombuffer(run(program, x), "<i4"), want)
