# SPDX-License-Identifier: Apache-2.0
"""Square roots compared exactly."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from bnngen import ir
from bnngen.passes.curves import Accumulator, Curve, threshold_rule
from bnngen.passes.surds import Field, plus, rational


def test_dependent_roots_cancel():
    """sqrt 2 sqrt 3 = sqrt 6, sqrt 8 = 2 sqrt 2, sqrt(3/4) = sqrt 3 / 2: all differences are exactly 0."""
    field = Field()
    two, three, six, eight = (field.root(Fraction(n)) for n in (2, 3, 6, 8))
    quarter = field.root(Fraction(3, 4))
    minus = rational(-1)
    assert field.sign(plus(field.times(two, three), field.times(minus, six))) == 0
    assert field.sign(plus(eight, field.times(rational(-2), two))) == 0
    assert field.sign(plus(quarter, field.times(rational(Fraction(-1, 2)), three))) == 0
    assert len(field.radicands) == 2


@pytest.mark.parametrize("digits", [5, 30, 200])
def test_a_difference_of_any_size_is_seen(digits):
    """sqrt 2 + sqrt 3 against a rational just below and just above."""
    field = Field()
    total = plus(field.root(Fraction(2)), field.root(Fraction(3)))
    scale = 10**digits
    low = 0
    for bit in range(digits * 4 + 4, -1, -1):
        trial = low + (1 << bit)
        if field.sign(plus(total, rational(Fraction(-trial, scale)))) > 0:
            low = trial
    assert field.sign(plus(total, rational(Fraction(-low, scale)))) == 1
    assert field.sign(plus(total, rational(Fraction(-low - 1, scale)))) == -1
    assert abs(low / scale - (2**0.5 + 3**0.5)) < 10.0 ** -min(digits - 1, 14)


def norm(gamma, beta, mean, variance):
    one = [np.array([v], np.float32) for v in (gamma, beta, mean, variance)]
    return ir.BatchNorm("bn", ("x",), "y", *one, 0.0)


def test_two_norms_with_irrational_roots_meet_in_an_exact_tie():
    """(x / sqrt 2 - 3 + 3) / sqrt 2 - 2 is 0 at x = 4: no rounding of the roots finds that."""
    acc = Accumulator(*(np.array([v]) for v in (1.0, 0.0, -9, 9)))
    links = (norm(1, -3, 0, 2), norm(1, -2, -3, 2))
    rule = threshold_rule(acc, links)
    assert (rule.level[0], rule.flip[0]) == (4, 0)
    assert Curve(acc, links).compare(np.array([4]), 0.0)[0] == 0


@pytest.mark.parametrize("seed", range(5))
def test_float_and_exact_comparisons_agree(seed):
    """The float64 shortcut decides only what exact arithmetic decides in the same way."""
    rng = np.random.default_rng(seed)
    c = 60
    norms = [
        ir.BatchNorm("bn", ("x",), "y", *(rng.normal(0, 1, (3, c)).astype(np.float32)),
                     rng.uniform(0.1, 3, c).astype(np.float32), 1e-3)
        for _ in range(2)
    ]  # fmt: skip
    bend = ir.PRelu("p", ("x",), "y", rng.normal(0, 1, c).astype(np.float32), rng.normal(0, 1, c).astype(np.float32))
    acc = Accumulator(rng.uniform(0.01, 1, c), rng.normal(0, 1, c), np.full(c, -500), np.full(c, 500))
    curve = Curve(acc, (norms[0], bend, ir.Clip("c", ("x",), "y", -0.5, 2.0), norms[1]))
    values = rng.integers(-500, 501, c)
    want = [curve._exactly(i, int(values[i]), 0.25) for i in range(c)]
    np.testing.assert_array_equal(curve.compare(values, 0.25), want)
    assert len(set(want)) > 1
