# SPDX-License-Identifier: Apache-2.0
"""Error bounds that docs/numerics.md, section 5, states, against float64 and exact arithmetic."""

from __future__ import annotations

import subprocess
import zlib
from fractions import Fraction
from math import isqrt, log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnngen.continual.twin_constants import even, exponential_table, normalise
from bnngen.continual.twin_float import exponential, square_root
from bnngen.continual.twin_replay import Pcg32
from tests.learn.script import HERE, RUNTIME, WARNINGS
from tests.learn.test_equality import overflow_case, random_case


def test_exponential_is_within_two_units():
    """Every t from 0 to 18 octaves: 1.2 million values against float64."""
    t = np.arange((18 << 16) + 1)
    error = random_case((1, 2), (8, 16), 8, {}, 1).twin().head.exponential(t) - 65536 * np.exp2(-t / 65536)
    assert np.abs(error).max() < 2
    assert np.abs(error).max() > 0.5  # the bound is not idle


def test_table_is_nearest():
    exact = [2 ** (16 - i / 64) for i in range(65)]
    assert np.abs(exponential_table() - exact).max() < 0.5


@pytest.mark.parametrize("classes", [2, 10, 50, 200])
@pytest.mark.parametrize("q_f", [4, 8])
@pytest.mark.parametrize("q_b", [16, 32])
def test_softmax_is_within_its_bound(classes, q_f, q_b):
    """p against the float64 softmax of the same logits, over weights of every size."""
    case = random_case((40, classes), (q_f, q_b), 16, {}, 1)
    twin, rng = case.twin().head, np.random.default_rng(classes)
    bound = 0.5 + 2 * twin.k.p * (classes + 1) / 2**16
    step = Fraction(case.head.hi) - Fraction(case.head.lo)
    for exponent in range(q_b - 8, q_b + 4):
        r = int(rng.integers(2 ** (q_b - 2), 2 ** (q_b - 1)))
        acc = rng.integers(-40 * twin.k.p * twin.k.f, 40 * twin.k.p * twin.k.f, (200, classes))
        unit = float(step / twin.k.p * r / twin.k.f) * 2.0**-exponent
        z = (acc - acc.max(axis=1, keepdims=True)) * unit
        exact = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        # t is cut to 2^-16 octaves and its scale to 16 bits: both far below a step of p
        assert np.abs(twin.softmax(acc, r, exponent) - twin.k.p * exact).max() < bound + 0.02


@pytest.mark.parametrize("q_b", [8, 16, 32])
def test_softmax_of_the_largest_logits_does_not_wrap(q_b):
    """u reaches 2^32 - 1 when acc spans all of int32, and K its largest value; their product fits 64 bits."""
    twin = overflow_case(1, q_b).twin().head
    largest = 2 ** (q_b - 1) - 1
    assert (2**32 - 1) * (twin.k.t_mult * largest >> twin.k.cut) < 2**63
    p = twin.softmax(np.array([[2**31 - 1, -(2**31), 2**31 - 1]]), largest, twin.k.e_min)
    assert p.tolist() == [[128, 0, 128]]


def test_small_weights_of_32_bits_lose_little_of_their_logits():
    """K drops 31 bits: where the exponent is at its top, and weights are small, t is at most 2^8 + 1 units short."""
    for rate in (0.001, 0.1, 20.0, 600.0):
        twin = random_case((40, 10), (8, 32), 16, {"lr": rate}, 1).twin().head
        shift = twin.k.t_shift + twin.k.e_max
        assert shift >= 24
        for r in (1, 3, 1000, 2**20, 2**31 - 1):
            for u in (1, 2**20, 2**32 - 1):
                exact = Fraction(u * twin.k.t_mult * r, 2 ** (twin.k.cut + shift))
                assert 0 <= exact - (u * (twin.k.t_mult * r >> twin.k.cut) >> shift) <= 257


def test_float_exponential_and_root_are_within_their_bounds():
    """Every 2^-10 from -87 to 0, and below; roots of what past / cur can be."""
    x = -np.arange(0, 87 * 1024 + 1, dtype=np.float32) / 1024
    found, exact = exponential(x).astype(np.float64), np.exp(x.astype(np.float64))
    assert np.abs(found / exact - 1).max() < 2**-20
    assert exponential(np.float32([0])) == 1 and exponential(np.float32([-87.1, -1e30])).tolist() == [0, 0]
    v = np.concatenate([np.float32([0, 1]), np.geomspace(2**-31, 2**31, 5000).astype(np.float32)])
    exact = np.sqrt(v.astype(np.float64))
    assert np.abs(square_root(v) - exact).max(initial=0, where=v < 4) < 2**-22
    assert np.abs(square_root(v) / np.maximum(exact, 1e-30) - 1)[1:].max() < 2**-22


def test_float_scores_keep_their_order():
    """Rows from tiny to huge: the largest lies in the range of int32, and larger logits have no smaller scores."""
    case = random_case((16, 6), (8, 16), 16, {"head": "float32"}, 3)
    head, rng = case.twin().head, np.random.default_rng(3)
    for size in (1e-30, 1e-3, 1.0, 1e12):
        head.cw = (rng.standard_normal((6, 16)) * size).astype(np.float32).clip(-(2.0**40), 2.0**40)
        z, scores = head.logits(case.table, head.cw), head.scores(case.table)
        order = np.argsort(z, axis=1, kind="stable")
        assert (np.diff(np.take_along_axis(scores, order, axis=1), axis=1) >= 0).all()
        assert 2**20 < np.abs(scores).max() < 2**31
        assert np.abs(scores / 2.0**30 - z / z.max() * (scores.max() / 2.0**30)).max() < 2**-20


@given(st.fractions(Fraction(1, 10**12), Fraction(10**12)))
@settings(deadline=None)
def test_mantissa_form(value):
    m, s = normalise(value)
    assert 2**30 <= m < 2**31
    assert abs(m - value * Fraction(2) ** s) <= Fraction(1, 2)


def test_even_is_round_half_to_even():
    assert [even(Fraction(n, 2)) for n in (-3, -1, 1, 3, 5)] == [-2, 0, 0, 2, 2]


@pytest.mark.parametrize("q_b", [8, 16, 32])
@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=20), st.integers(0, 40), st.integers(0, 30))
@settings(deadline=None)
def test_stored_exponent_is_the_largest_that_fits(q_b, values, above, least):
    twin = random_case((1, 2), (8, q_b), 8, {}, 1).twin().head
    exponent = twin.k.e_min + least + above
    stored, e = twin._store(np.array(values, np.int64), exponent, least)
    if not any(values):
        assert e == twin.k.e_max
        return
    shift, largest = exponent - e, max(map(abs, values))
    assert shift >= least and twin.k.e_min <= e <= twin.k.e_max and np.abs(stored).max() <= twin.k.l
    if e > twin.k.e_min:  # nothing was clamped: half a unit of the new exponent is the whole error
        pairs = zip(values, stored, strict=True)
        assert max(abs(Fraction(v, 2**shift) - int(w)) for v, w in pairs) <= Fraction(1, 2)
    if shift > max(least, exponent - twin.k.e_max):
        assert Fraction(largest, 2 ** (shift - 1)) >= Fraction(2 * twin.k.l + 1, 2)  # one bit more does not fit


@pytest.mark.parametrize("q_b", [16, 32])
def test_share_of_past_is_the_square_root_rule(q_b):
    """A = w / (w + 1) for w = sqrt(past / cur), to 16 fraction bits of w."""
    twin = random_case((1, 2), (8, q_b), 8, {}, 1).twin().head
    for past, cur in [(0, 1), (1, 1), (60, 50), (2**31 - 1, 1), (1, 2**31 - 1), (12345, 678)]:
        w = (past / cur) ** 0.5
        assert twin._share(past, cur) / 2**twin.k.share == pytest.approx(w / (w + 1), abs=2**-15)


def test_c_helpers(tmp_path):
    """isqrt, rounding shift, generator and every exponential of the C, against Python's integers."""
    program = tmp_path / "helpers"
    compiler = ["gcc", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all", *WARNINGS]
    paths = [f"-I{RUNTIME / 'include'}", f"-I{RUNTIME / 'learn'}", str(HERE / "helpers.c")]
    subprocess.run([*compiler, *paths, "-o", str(program)], check=True, timeout=60)
    rng = np.random.default_rng(4)
    edges = [0, 1, 2, 3, 4, 2**32 - 1, 2**32, 2**63, 2**64 - 1, (2**32 - 1) ** 2, (2**32 - 1) ** 2 - 1]
    drawn = rng.integers(0, 2**63, 500, dtype=np.uint64) >> rng.integers(0, 60, 500, dtype=np.uint64)
    values = edges + [int(v) for v in drawn]
    out = subprocess.run(
        [str(program)],
        input="\n".join(map(str, values)),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    pcg, wanted = Pcg32(values[0]), []
    for value in values:
        signed = value - 2**64 if value >= 2**63 else value
        shift = value % 62
        v = signed >> 2
        wanted += [isqrt(value), (v + (1 << (shift - 1)) >> shift) if shift else v, pcg.below(value % 2**32)]
    t = np.arange((18 << 16) + 1)
    exponentials = random_case((1, 2), (8, 16), 8, {}, 1).twin().head.exponential(t).astype("<u4")
    assert [int(word) for word in out] == [*wanted, zlib.crc32(exponentials.tobytes())]


def test_generator_is_uniform():
    """Chi-square over 64 bins of 64,000 draws: 63 degrees of freedom, five sigma."""
    pcg = Pcg32(2024)
    counts = np.bincount([pcg.below(64) for _ in range(64000)], minlength=64)
    assert abs(((counts - 1000) ** 2 / 1000).sum() - 63) < 5 * (2 * 63) ** 0.5
    assert log2(len({pcg.next() for _ in range(4096)})) > 11.99
