# SPDX-License-Identifier: Apache-2.0
"""Turn the element-wise end of a chain into integers: multipliers and shifts, or thresholds.

An accumulator `acc` stands for the real value `unit[c] * acc + bias[c]`. What follows it, relu and batch
norm in the orders that `fuse_chains` lets through, is monotone in acc for every channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError

Array = np.ndarray
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
MAX_SHIFT = 30
NARROW_ERROR = 1 / 16  # of an output step: below this, 32-bit arithmetic is as good as 64-bit


@dataclass(frozen=True)
class Accumulator:
    """What an integer accumulator means, and the values it can take, per channel.

    unit, bias: float64 [C]; real value = unit * acc + bias. lo, hi: int64 [C], reachable range.
    """

    unit: Array
    bias: Array
    lo: Array
    hi: Array


@dataclass(frozen=True)
class Tail:
    """The links behind an accumulator: relu before the batch norm, batch norm, relu after it."""

    relu_before: bool
    norm: ir.BatchNorm | None
    relu_after: bool

    @classmethod
    def of(cls, links: tuple[ir.Node, ...]) -> Tail:
        """Read the links of a chain after its first; a final Sign is the caller's business."""
        kinds = [type(link) for link in links if not isinstance(link, ir.Sign)]
        norm = next((link for link in links if isinstance(link, ir.BatchNorm)), None)
        if norm is None:
            return cls(False, None, ir.Clip in kinds)
        place = kinds.index(ir.BatchNorm)
        return cls(ir.Clip in kinds[:place], norm, ir.Clip in kinds[place:])


# ------------------------------------------------------------------------------------------- affine


def affine_rule(acc: Accumulator, tail: Tail, out: ir.Tensor) -> ir.Affine:
    """Return the epilogue that computes the chain into `out` (docs/numerics.md, "Affine")."""
    assert out.scale is not None
    gain, offset = _real_affine(acc, tail)
    gain, offset = gain / out.scale, offset / out.scale
    lo, hi = ir.TYPE_RANGE[out.dtype]
    lowest = np.maximum(acc.lo, 0) if tail.relu_before else acc.lo
    shift = _shift(gain, offset, np.maximum(np.abs(lowest), np.abs(acc.hi)))
    mult, bias = _fixed(gain, offset, shift)
    rule = ir.Affine(mult.astype(np.int32), bias, shift, 0 if tail.relu_after else lo, hi)
    return replace(rule, acc_lo=0) if tail.relu_before else rule


def _real_affine(acc: Accumulator, tail: Tail) -> tuple[Array, Array]:
    """Return (gain, offset), float64 [C]: the chain is gain * acc + offset, clamps apart."""
    if tail.norm is None:
        return acc.unit, acc.bias
    norm = tail.norm
    slope = norm.gamma.astype(np.float64) / np.sqrt(norm.variance.astype(np.float64) + norm.epsilon)
    return acc.unit * slope, (acc.bias - norm.mean.astype(np.float64)) * slope + norm.beta.astype(np.float64)


def _fixed(gain: Array, offset: Array, shift: int) -> tuple[Array, Array]:
    """Scale by 2^shift and round, ties to even; the half that makes ties go up joins the bias."""
    half = 1 << (shift - 1) if shift else 0
    return np.rint(gain * 2.0**shift).astype(np.int64), np.rint(offset * 2.0**shift).astype(np.int64) + half


def _shift(gain: Array, offset: Array, reach: Array) -> int:
    """Return the shift: the largest that keeps everything in 32 bits where that is precise enough."""
    wide = next((s for s in range(MAX_SHIFT, -1, -1) if np.abs(gain).max() * 2.0**s < INT32_MAX), None)
    if wide is None:
        raise ModelError(
            f"a batch norm multiplies by {np.abs(gain).max():.3g}, more than integers can carry",
            fix="look for a channel with a variance near zero, or a calibration range that is far too small",
        )
    for shift in range(wide, -1, -1):
        mult, bias = _fixed(gain, offset, shift)
        if np.all(reach * np.abs(mult) + np.abs(bias) <= INT32_MAX):
            precise = (reach.max() + 1) / 2.0 ** (shift + 1) <= NARROW_ERROR
            return shift if precise else wide
    return wide


# ---------------------------------------------------------------------------------------- threshold


def threshold_rule(acc: Accumulator, tail: Tail) -> ir.Threshold:
    """Return the exact integer thresholds of a chain that ends in a sign (docs/numerics.md, "Threshold").

    The chain is monotone in the accumulator, so one bisection over the reachable values finds where the
    sign changes. The predicate is exact: rational arithmetic, and squares instead of square roots.
    Levels are int64: reachable values may lie beyond int32 here, where only the type of the input is known.
    `int32_levels` is the last step.
    """
    channels = len(acc.unit)
    level = np.zeros(channels, np.int64)
    flip = np.zeros(channels, np.int8)
    for c in range(channels):
        level[c], flip[c] = _level(_negative(acc, tail, c), int(acc.lo[c]), int(acc.hi[c]))
    return ir.Threshold(level, flip)


def int32_levels(rule: ir.Threshold) -> ir.Threshold:
    """Return the rule with int32 levels, which mean the same for every accumulator below 2^31 - 1.

    Lowering proves that a sum stays in int32, and refuses one in front of a sign that reaches 2^31 - 1; so a
    level above 2^31 - 1 means "always" and may be 2^31 - 1, one below -2^31 means "never" and may be -2^31.
    """
    return replace(rule, level=np.clip(rule.level, INT32_MIN, INT32_MAX).astype(np.int32))


def _level(negative: Callable[[int], bool], lo: int, hi: int) -> tuple[int, int]:
    """Return (level, flip) of one channel whose accumulator lies in [lo, hi]."""
    first, last = negative(lo), negative(hi)
    if first == last:
        return (hi + 1 if first else lo), 0
    below, above = lo, hi  # negative(below) == first, negative(above) == last
    while above - below > 1:
        middle = (below + above) // 2
        if negative(middle) == first:
            below = middle
        else:
            above = middle
    return above, 0 if first else 1


def _negative(acc: Accumulator, tail: Tail, c: int) -> Callable[[int], bool]:
    """Return the exact predicate "the chain's value is below 0" for channel c."""
    unit, bias, norm = Fraction(float(acc.unit[c])), Fraction(float(acc.bias[c])), tail.norm
    if norm is not None:
        gamma, beta = Fraction(float(norm.gamma[c])), Fraction(float(norm.beta[c]))
        mean = Fraction(float(norm.mean[c]))
        variance = Fraction(float(norm.variance[c])) + Fraction(norm.epsilon)

    def predicate(value: int) -> bool:
        x = unit * value + bias
        if tail.relu_before:
            x = max(x, Fraction(0))
        if tail.relu_after:
            return False
        return x < 0 if norm is None else _sum_negative(gamma * (x - mean), beta, variance)

    return predicate


def _sum_negative(a: Fraction, b: Fraction, v: Fraction) -> bool:
    """True when a + b * sqrt(v) < 0, without taking the root."""
    if a < 0 and b <= 0 or a <= 0 and b < 0:
        return not (a == 0 and v == 0)
    if a >= 0 and b >= 0:
        return False
    return a * a > b * b * v if a < 0 else a * a < b * b * v
