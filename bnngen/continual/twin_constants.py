# SPDX-License-Identifier: Apache-2.0
"""The twin's own constants of the learned head, worked out from docs/numerics.md, sections 3 and 5, alone.

They are deliberately not those of lower/learning.py: two derivations that agree are the test of both.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import floor

import numpy as np

from bnngen.ir import HeadInput

GUARD_BITS = 8
HALF = Fraction(1, 2)


@dataclass(frozen=True)
class TwinConstants:
    """Section 5.1, 5.3 and 5.4 as numbers. `cut`: b_K, `share`: b_A; `table` is T of 5.4."""

    p: int
    f: int
    l: int  # noqa: E741 - the specification's name
    zero: int
    x_mult: int
    x_shift: int
    t_mult: int
    t_shift: int
    u_mult: int
    u_shift: int
    e_min: int
    e_max: int
    cut: int
    share: int
    table: np.ndarray
    root: bool = False
    centre: np.ndarray | None = None

    def operands(self, stream: np.ndarray) -> np.ndarray:
        """Return x of 5.1 for stream values [n, D]."""
        q = np.asarray(stream, np.int64)
        if self.centre is None:
            x = nearest_shift(q * self.x_mult, self.x_shift)
        else:
            away = nearest_shift(head_values(q, self.root) * self.x_mult, self.x_shift - 16) - self.centre
            x = nearest_shift(away, 16)
        return np.clip(x, -self.zero, self.p - self.zero)


def nearest_shift(values: np.ndarray, shift: int) -> np.ndarray:
    """Return floor(v / 2^shift + 1/2) of int64 values."""
    return values if shift == 0 else (values + (1 << (shift - 1))) >> shift


def head_values(q: np.ndarray, root: bool) -> np.ndarray:
    """Return g of stream values: themselves, or their roots with 8 fraction bits and their sign, towards 0."""
    if not root:
        return q
    square = np.abs(q) << 16
    guess = np.sqrt(square.astype(np.float64)).astype(np.int64)
    guess -= guess * guess > square
    guess += (guess + 1) * (guess + 1) <= square
    return np.sign(q) * guess


def twin_constants(
    head: HeadInput, scale: float, bits: tuple[int, int], rate: tuple[float, int]
) -> TwinConstants:
    """Return the constants; scale: of the feature tensor, bits: (q_f, q_b), rate: (lr, batch)."""
    q_f, q_b = bits
    p, f, largest = (1 << q_f) - 1, (1 << (q_f - 1)) - 1, (1 << (q_b - 1)) - 1
    ends = (head.lo, head.hi) if head.map is None else (head.map.lo, head.map.hi)
    low, high = Fraction(min(ends[0], 0.0)), Fraction(max(ends[1], 0.0))
    grid = ((high - low) or Fraction(1)) / p
    x_mult, x_shift, centre = operand_rule(head, Fraction(scale), grid)
    log2e = Fraction(0x171547652B82FE, 1 << 52)
    wide = q_b > 16
    t_mult, t_exponent = normalise(grid * log2e / f)
    u_mult, u_exponent = normalise(Fraction(rate[0]) * grid / rate[1] / largest, 15 if wide else 31)
    cut = 31 if wide else 15
    t_shift, u_shift = t_exponent - 16 - cut, u_exponent - GUARD_BITS
    return TwinConstants(
        p,
        f,
        largest,
        even(-low / grid),
        x_mult,
        x_shift,
        t_mult,
        t_shift,
        u_mult,
        u_shift,
        max(u_shift - 62, -t_shift),
        min(u_shift - 1, 63 - t_shift),
        cut,
        22 if wide else 30,
        exponential_table(),
        head.map is not None and head.map.root,
        centre,
    )


def operand_rule(head: HeadInput, scale: Fraction, grid: Fraction) -> tuple[int, int, np.ndarray | None]:
    """Return x_mult, x_shift and the centre, None for a head that reads plain features."""
    if head.map is None:
        x_shift = next(s for s in range(30, -1, -1) if scale / grid * (1 << s) < (1 << 31) - 1)
        return even(scale / grid * (1 << x_shift)), x_shift, None
    centre = np.array([even(Fraction(mean) / grid * (1 << 16)) for mean in head.map.mean], np.int64)
    return (*(root_mantissa(scale / grid**2 / 2**16) if head.map.root else normalise(scale / grid)), centre)


def root_mantissa(square: Fraction) -> tuple[int, int]:
    """Return the mantissa form of a square root: the m that is nearest at the s for which 2^30 <= m < 2^31."""
    shift = next(s for s in range(-64, 256) if square * Fraction(4) ** s >= 1 << 60)
    wanted = square * Fraction(4) ** shift
    m = bisect_left(range((1 << 31) + 1), wanted, key=lambda n: Fraction(2 * n + 1, 2) ** 2)
    return (m, shift) if m < 1 << 31 else (1 << 30, shift - 1)


def even(value: Fraction) -> int:
    """Return the nearest integer, ties to even."""
    below = floor(value)
    rest = value - below
    return below + (rest > HALF or (rest == HALF and below % 2 == 1))


def normalise(value: Fraction, bits: int = 31) -> tuple[int, int]:
    """Return (m, s) with value close to m / 2^s and m of `bits` bits."""
    s = 0
    while value < 1 << (bits - 1):
        value, s = value * 2, s + 1
    while value >= 1 << bits:
        value, s = value / 2, s - 1
    m = even(value)
    return (m >> 1, s - 1) if m == 1 << bits else (m, s)


@cache
def exponential_table() -> np.ndarray:
    """Return T[i], the integer nearest to 2^(16 - i/64), i = 0..64, by comparing 64th powers: no rounding."""
    table = []
    for i in range(65):
        power = 1 << (17 * 64 - i)  # (2 * T)^64, were T not rounded
        table.append(bisect_left(range(1 << 16), power, key=lambda n: (2 * n + 1) ** 64))
    return np.array(table, np.int64)
