# SPDX-License-Identifier: Apache-2.0
"""Heads that read roots of the features, less what all images have in common (docs/numerics.md, 5.1)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnngen.continual.twin_constants import head_values, twin_constants
from bnngen.ir import HeadInput, HeadMap
from bnngen.lower.learning import LearnConfig, learning_constants
from bnngen.lower.learning.operands import centre
from tests.learn.script import Case, play

HEADS = [("cwr", 16), ("cwr", 32), ("cwr+", 8), ("sgd", 16), ("float32", 16), ("mean", 16), ("lda", 16), ("ridge", 16)]


def mapped_case(root: bool, dtype: type, options: dict, seed: int) -> Case:
    """Features of both signs that reach the ends of their type, and a map whose range they leave."""
    rng = np.random.default_rng(seed)
    table = np.clip(rng.normal(0.2, 0.4, (40, 11)) * np.iinfo(dtype).max, np.iinfo(dtype).min, np.iinfo(dtype).max)
    table = table.astype(dtype)
    table[0], table[1], table[2] = np.iinfo(dtype).max, np.iinfo(dtype).min, 0
    scale = 3.0 / np.iinfo(dtype).max
    real = table * scale
    values = np.sign(real) * np.sqrt(np.abs(real)) if root else real
    mean = values.mean(axis=0)
    lo, hi = np.quantile(values - mean, (0.05, 0.95))
    head = HeadInput("features", -3.0, 3.0, 6, HeadMap(root, tuple(mean.tolist()), float(lo), float(hi)))
    config = replace(LearnConfig(replay=13, buffer=17, batch=8, epochs=2, projections=None), **options)
    return Case(head, scale, 2, config, table, seed)


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize(("head", "q_b"), HEADS)
def test_c_and_twin_agree(check, head, q_b, root, dtype):
    case = mapped_case(root, dtype, {"head": head, "q_b": q_b}, 3)
    rng = np.random.default_rng(1)
    shows = [(rng.integers(0, 40, 23), rng.integers(0, 3, 23)), (rng.integers(0, 40, 19), rng.integers(2, 6, 19))]
    lines = check(case, play(case, shows))
    assert lines[-1] != lines[-2]


@given(st.integers(-32768, 32767))
@settings(deadline=None)
def test_roots_are_exact_floors(q):
    g = int(head_values(np.array([q]), True)[0])
    assert g * g <= abs(q) << 16 < (abs(g) + 1) ** 2 and (g >= 0) == (q >= 0 or g == 0)


@given(st.booleans(), st.floats(-9, -1e-3), st.floats(1e-3, 9), st.floats(1e-5, 0.05), st.integers(4, 8))
@settings(deadline=None, max_examples=200)
def test_both_derivations_agree(root, lo, hi, scale, q_f):
    mean = (0.7, -0.3, 1e-9, 0.0)
    head = HeadInput("features", 0.0, 3.0, 5, HeadMap(root, mean, lo, hi))
    config = LearnConfig(q_f=q_f)
    case = Case(head, scale, 1, config, np.zeros((1, 4), np.int16))
    program = learning_constants(case.graph, config)
    twin = twin_constants(head, scale, (q_f, 16), (config.lr, config.batch))
    assert (program.settings["x_mult"], program.settings["x_shift"]) == (twin.x_mult, twin.x_shift)
    assert centre(program.sizes) == tuple(twin.centre.tolist())
    assert program.settings["x_root"] == root == twin.root


def test_operands_are_the_nearest_to_the_real_values():
    """Within a unit: half of it by rounding, the rest by the roots' eight fraction bits."""
    case = mapped_case(True, np.int16, {}, 5)
    assert case.head.map is not None
    k = twin_constants(case.head, case.scale, (8, 16), (0.1, 64))
    real = case.table * case.scale
    step = (Fraction(case.head.map.hi) - Fraction(case.head.map.lo)) / 255
    wanted = (np.sign(real) * np.sqrt(np.abs(real)) - np.array(case.head.map.mean)) / float(step)
    got = k.operands(case.table)
    assert np.abs(got - np.clip(wanted, -k.zero, k.p - k.zero)).max() < 0.7
    assert got.min() == -k.zero and got.max() == k.p - k.zero
