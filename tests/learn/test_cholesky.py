# SPDX-License-Identifier: Apache-2.0
"""The factorisation against its bounds and against float64, and the analytic heads against their float references."""

from __future__ import annotations

import ctypes
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnngen.continual.methods import METHODS, MethodSetting, Tuning
from bnngen.continual.twin import MORE, Twin
from bnngen.continual.twin_analytic import cholesky, triangular
from bnngen.data import load
from bnngen.ir import HeadInput
from bnngen.lower.learning import LearnConfig
from tests.learn.script import RUNTIME, WARNINGS

SPEC = 2.0**30


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """cholesky.c as a shared library."""
    out = tmp_path_factory.mktemp("cholesky") / "cholesky.so"
    source = RUNTIME / "learn" / "cholesky.c"
    flags = ["-O2", "-shared", "-fPIC", f"-I{RUNTIME / 'include'}"]
    subprocess.run(["gcc", *WARNINGS, *flags, str(source), "-o", str(out)], check=True, timeout=60)
    return ctypes.CDLL(str(out))


def pointer(array: np.ndarray, kind: type) -> object:
    return array.ctypes.data_as(ctypes.POINTER(kind))


def factor_of(library: ctypes.CDLL, matrix: np.ndarray) -> np.ndarray:
    """Return L of an integer matrix with 30 fraction bits, int64 [n, n], by the C code."""
    size = len(matrix)
    packed = np.zeros(size * (size + 1) // 2, np.int16)
    for i in range(size):
        row = np.ascontiguousarray(matrix[i, : i + 1], np.int64)
        library.bnn_cholesky_row(pointer(packed, ctypes.c_int16), ctypes.c_uint32(i), pointer(row, ctypes.c_int64))
    factor = np.zeros((size, size), np.int64)
    factor[np.tril_indices(size)] = packed
    return factor


def definite(size: int, share: float, seed: int, rank: int | None = None) -> np.ndarray:
    """A diagonal in [1/4, 1), 30 fraction bits: the scatter of `rank` samples and a share of the identity."""
    rng = np.random.default_rng(seed)
    count = rank or 3 * size
    samples = rng.normal(0, 1, (count, size)) * rng.uniform(0.05, 3, size) + rng.normal(0, 1, (count, 1))
    scatter = samples.T @ samples
    scatter += share / (1 - share) * np.trace(scatter) / size * np.eye(size)
    scale = 2.0 ** -np.ceil(np.log2(np.diag(scatter)) / 2 + 1e-9)
    return np.rint(scatter * scale * scale[:, None] * SPEC).astype(np.int64)


@given(st.integers(1, 40), st.floats(0.05, 0.9), st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
def test_backward_error_stays_in_its_bound_and_the_twin_agrees(library, size, share, seed):
    matrix = definite(size, share, seed)
    factor = factor_of(library, matrix)
    assert (factor == cholesky(matrix)).all()
    error = np.abs(np.tril(factor @ factor.T - matrix)) / SPEC
    assert error[~np.eye(size, dtype=bool)].max(initial=0) <= 2.0**-16
    assert np.diag(error).max() < 2.0**-14


@pytest.mark.parametrize(("size", "rank"), [(128, None), (128, 40), (384, 200)])
def test_solutions_are_those_of_float64(library, size, rank):
    """At the usual shrinkage the rows point where float64's do, to better than one part in a hundred."""
    matrix = definite(size, max(0.05, 2 * size / (2 * size + (rank or 3 * size))), 7, rank)
    factor = factor_of(library, matrix)
    packed = factor[np.tril_indices(size)].astype(np.int16)
    rng = np.random.default_rng(1)
    for _ in range(4):
        side = rng.integers(-(2**22), 2**22, size, endpoint=True)
        x = side.copy()
        library.bnn_cholesky_solve(pointer(packed, ctypes.c_int16), ctypes.c_uint32(size), pointer(x, ctypes.c_int64))
        assert (x == triangular(factor, side)).all()
        exact = np.linalg.solve((np.tril(matrix) + np.tril(matrix, -1).T) / SPEC, side.astype(float))
        assert np.linalg.norm(x - exact) < 0.01 * np.linalg.norm(exact)


@pytest.mark.parametrize("value", [0, -(2**30), 2**30])
def test_a_matrix_that_is_not_definite_gives_a_factor_all_the_same(library, value):
    """Pivots stop at 2^-8, elements at their ends, solutions at 2^36: defined, and the same in the twin."""
    matrix = np.full((20, 20), value, np.int64)
    factor = factor_of(library, matrix)
    assert (factor == cholesky(matrix)).all() and np.diag(factor).min() >= 128
    packed = factor[np.tril_indices(20)].astype(np.int16)
    x = np.full(20, 2**22, np.int64)
    library.bnn_cholesky_solve(pointer(packed, ctypes.c_int16), ctypes.c_uint32(20), pointer(x, ctypes.c_int64))
    assert (x == triangular(factor, np.full(20, 2**22, np.int64))).all() and np.abs(x).max() <= 2**36


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, ...]:
    """The digits as 64 features: the mean of each 2x2 block of pixels; int16 stream of scale 1/64."""
    data = load("digits")
    images = [x.reshape(len(x), 8, 2, 8, 2).mean(axis=(2, 4)).reshape(len(x), -1) for x in (data.x_train, data.x_test)]
    return np.rint(images[0]).astype(np.int64), data.y_train, np.rint(images[1]).astype(np.int64), data.y_test


REFERENCES = [
    ({"head": "mean"}, "nearest-mean", {}),
    ({"head": "lda"}, "slda", {}),
    ({"head": "lda", "projections": 128}, "slda-projections", {"projections": 128}),
    ({"head": "ridge", "projections": 128}, "ridge", {"projections": 128}),
]


@pytest.mark.parametrize(("options", "name", "tuning"), REFERENCES, ids=str)
@pytest.mark.parametrize("per_class", [5, 100])
def test_integers_are_as_accurate_as_the_float_reference(digits, options, name, tuning, per_class):
    """On the same features; the random projections differ, so that those heads have more room."""
    x, y, x_test, y_test = digits
    rows = np.concatenate([np.flatnonzero(y == c)[:per_class] for c in range(10)])
    scale = 1 / 64
    twin = Twin(HeadInput("x", 0.0, float(x.max() * scale), 10), scale, (64, 2), LearnConfig(**options), np.zeros)
    twin.begin()
    for row in rows:
        twin.add(np.zeros(2, np.uint32), int(y[row]), x[row])
    while twin.step() == MORE:
        pass
    twin.end()
    got = (twin.scores(x_test).argmax(axis=1) == y_test).mean()
    setting = MethodSetting(10, 64, np.float32(x * scale), y, tuning=Tuning(root=False, **tuning))
    method = METHODS[name](setting)
    method.learn(np.float32(x[rows] * scale), y[rows])
    wanted = (method.scores(np.float32(x_test * scale)).argmax(axis=1) == y_test).mean()
    room = 0.03 if "projections" in options else 0.005
    assert got >= wanted - room and got > 0.75, (got, wanted)


