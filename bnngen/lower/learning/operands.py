# SPDX-License-Identifier: Apache-2.0
"""Constants that turn stream values into a head's operands (docs/numerics.md, section 5.1), and their arithmetic."""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

from bnngen.errors import ModelError
from bnngen.lower.learning.config import INT32_END, Sizes


def operand_constants(sizes: Sizes) -> dict[str, int]:
    """Return p_max, x_lo, x_hi, x_shift, x_mult, x_root of section 5.1."""
    step, zero = operand_grid(sizes)
    p_max = 2**sizes.config.q_f - 1
    root = sizes.map is not None and sizes.map.root
    if sizes.map is None:
        mult, shift = _affine(Fraction(sizes.scale) / step)
    else:
        mult, shift = value_unit(sizes, step)
        if not 16 <= shift <= 62 or max(map(abs, centre(sizes))) >= INT32_END:
            raise ModelError(
                "the range of the learned head does not fit the scale of its features",
                why="both were calibrated when the model was exported",
                fix="export the model again with a calibration sample",
            )
    return {
        "p_max": p_max,
        "x_lo": -zero,
        "x_hi": p_max - zero,
        "x_shift": shift,
        "x_mult": mult,
        "x_root": int(root),
    }


def value_unit(sizes: Sizes, step: Fraction) -> tuple[int, int]:
    """Return (m, s): one unit of what the head reads, a feature or its root with 8 fraction bits, is m * 2^-s steps."""
    assert sizes.map is not None
    if not sizes.map.root:
        return mantissa(Fraction(sizes.scale) / step)
    square = Fraction(sizes.scale) / step**2 / 2**16
    shift = 0
    while square * Fraction(4) ** shift < 2**60:
        shift += 1
    while square * Fraction(4) ** shift >= 2**62:
        shift -= 1
    found = (isqrt(int(square * Fraction(4) ** (shift + 1))) + 1) // 2  # nearest: half of the root of four times
    return (found, shift) if found < 2**31 else (2**30, shift - 1)


def centre(sizes: Sizes) -> tuple[int, ...]:
    """Return what is taken away from each operand, with 16 fraction bits; empty where the head reads plain features."""
    if sizes.map is None:
        return ()
    step, _ = operand_grid(sizes)
    return tuple(round(Fraction(mean) / step * 2**16) for mean in sizes.map.mean)


def operand_grid(sizes: Sizes) -> tuple[Fraction, int]:
    """Return (step, zero point) of the head's operands, for 2^q_f - 1 steps over a range that contains 0."""
    lo, hi = min(Fraction(sizes.lo), Fraction(0)), max(Fraction(sizes.hi), Fraction(0))
    if lo == hi:
        hi = Fraction(1)
    step = (hi - lo) / (2**sizes.config.q_f - 1)
    return step, round(-lo / step)


def _affine(factor: Fraction) -> tuple[int, int]:
    """Return (mult, shift) of the Affine rule for one factor."""
    shift = 30
    while factor * 2**shift >= INT32_END - 1:
        shift -= 1
        if shift < 0:
            raise ModelError(
                "the features are far larger than the range of the learned head",
                why="their calibrated range does not fit their scale",
                fix="export the model again with a calibration sample",
            )
    return round(factor * 2**shift), shift


def mantissa(value: Fraction, bits: int = 30) -> tuple[int, int]:
    """Return (m, s) with value = m * 2^-s nearly, 2^bits <= m < 2^(bits + 1)."""
    digits = bits + value.denominator.bit_length() - value.numerator.bit_length()
    if value * Fraction(2) ** digits < 2**bits:  # it lies above half of that and below twice
        digits += 1
    found = round(value * Fraction(2) ** digits)
    return (found, digits) if found < 2 ** (bits + 1) else (2**bits, digits - 1)
