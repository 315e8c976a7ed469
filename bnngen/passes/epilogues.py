# SPDX-License-Identifier: Apache-2.0
"""Turn a chain that stays real into integers: multipliers and shifts (docs/numerics.md, "Affine", "Piecewise")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.passes.curves import Accumulator
from bnngen.passes.forms import Form, compose

Array = np.ndarray
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
MAX_SHIFT = 30
MAX_SHIFT_UNWEIGHTED = 46  # of products and averages: no rounded weight is in front, and 2^15 * 2^46 is below 2^62
SUM_MAX = 2.0**62  # of a product and a bias, so that 64 bits hold them
NARROW_ERROR = 1 / 16  # of an output step: below this, 32-bit arithmetic is as good as 64-bit
SCORE_MAX = 2**30


@dataclass(frozen=True)
class Output:
    """Where an epilogue writes: the scale of every channel, float64 [C], the integers it may use, offsets in steps."""

    scales: Array
    lo: int
    hi: int
    offsets: Array | float = 0.0

    def clipped(self, clip: ir.Clip | None) -> Output:
        """Return the output narrowed to a clip. Raises ModelError where its limits differ from channel to channel."""
        if clip is None:
            return self
        lo, hi = (self._limit(value) for value in (clip.lo, clip.hi))
        return Output(self.scales, lo, hi, self.offsets)

    def _limit(self, value: float) -> int:
        limits = set(self.limits(value).tolist())
        if len(limits) != 1:
            raise ModelError(f"a clip at {value:g} has another integer in every channel")  # `scales` prevents it
        return int(limits.pop())

    def limits(self, value: float) -> Array:
        """Return a real limit as an integer of every channel: nearest, inside the type."""
        return np.clip(np.rint(value / self.scales - self.offsets), self.lo, self.hi)


def affine_rule(
    acc: Accumulator, form: Form, out: Output, limits: tuple[int, int] | None = None, most: int = MAX_SHIFT
) -> ir.Affine:
    """Return the epilogue that computes the chain into `out`.

    limits: of the accumulator, where a clip comes first. most: the largest shift, where precision asks for it.
    """
    gain, offset = compose(acc.unit, acc.bias, form.first)
    gain, offset, out = gain / out.scales, offset / out.scales - out.offsets, out.clipped(form.after)
    acc_lo, acc_hi = limits or (INT32_MIN, INT32_MAX)
    ends = np.clip(acc.lo, acc_lo, acc_hi), np.clip(acc.hi, acc_lo, acc_hi)
    gain, offset = _without_huge(gain, offset, ends, out)
    shift = _shift(gain, offset, np.maximum(*map(np.abs, ends)), most)
    mult, bias = _fixed(gain, offset, shift)
    return ir.Affine(mult.astype(np.int32), bias, shift, out.lo, out.hi, acc_lo, acc_hi)


def piecewise_rule(acc: Accumulator, form: Form, out: Output) -> ir.Piecewise:
    """Return the epilogue of a chain with one slope: an affine rule on each side of the slope's zero."""
    assert form.bend is not None
    negative = form.bend.negative.astype(np.float64)
    positive = np.ones_like(negative) if form.bend.positive is None else form.bend.positive.astype(np.float64)
    gain, offset = compose(acc.unit, acc.bias, form.first)
    knot, starts_below = _knot(acc, gain, offset)
    sides = []
    for factor in (np.where(starts_below, negative, positive), np.where(starts_below, positive, negative)):
        side, shift_by = compose(gain * factor, offset * factor, form.second)
        sides.append([side / out.scales, shift_by / out.scales - out.offsets])
    out = out.clipped(form.after)
    gains, offsets = (np.stack(parts) for parts in zip(*sides, strict=True))
    gains, offsets = _without_huge(gains, offsets, (acc.lo, acc.hi), out)
    shift = _shift(gains, offsets, np.maximum(np.abs(acc.lo), np.abs(acc.hi)))
    mult, bias = _fixed(gains, offsets, shift)
    rules = [ir.Affine(m.astype(np.int32), b, shift, out.lo, out.hi) for m, b in zip(mult, bias, strict=True)]
    return ir.Piecewise(knot, *rules)


def _knot(acc: Accumulator, gain: Array, offset: Array) -> tuple[Array, Array]:
    """Return the first integer not below the slope's zero, and whether integers below it are negative values."""
    with np.errstate(divide="ignore", invalid="ignore"):
        zero = np.where(gain == 0, acc.lo, np.ceil(-offset / gain))
    knot = np.clip(zero, acc.lo, acc.hi + 1).astype(np.int32)
    return knot, np.where(gain == 0, offset >= 0, gain > 0)  # a constant is on the side of `above`


def score_rule(acc: Accumulator, form: Form, limits: tuple[int, int] | None = None) -> tuple[ir.Affine, float]:
    """Return the rule that makes int32 scores, all of one scale, and that scale: the largest reaches 2^30."""
    gain, offset = compose(acc.unit, acc.bias, form.first)
    lo, hi = limits or (INT32_MIN, INT32_MAX)
    ends = [np.abs(gain * np.clip(end, lo, hi) + offset) for end in (acc.lo, acc.hi)]
    scale = float(np.max(ends)) / SCORE_MAX or 1.0
    out = Output(np.full(len(gain), scale), INT32_MIN, INT32_MAX)
    return affine_rule(acc, form, out, limits), scale


def _fixed(gain: Array, offset: Array, shift: int) -> tuple[Array, Array]:
    """Scale by 2^shift and round, ties to even; the half that makes ties go up joins the bias."""
    half = 1 << (shift - 1) if shift else 0
    return np.rint(gain * 2.0**shift).astype(np.int64), np.rint(offset * 2.0**shift).astype(np.int64) + half


def _without_huge(gain: Array, offset: Array, ends: tuple[Array, Array], out: Output) -> tuple[Array, Array]:
    """Make channels constants that saturate everywhere by an offset beyond int32: the same result, in few bits.

    What is left of such offsets is at most the product of gain and accumulator, and fits with it.
    """
    values = np.stack([gain * end + offset for end in ends])
    margin = 1 + np.abs(offset) * 2.0**-40  # far above what float64 loses
    huge = np.abs(offset) >= 2.0**31
    above, below = huge & (values.min(axis=0) >= out.hi + margin), huge & (values.max(axis=0) <= out.lo - margin)
    gain = np.where(above | below, 0.0, gain)
    return gain, np.where(above, float(out.hi), np.where(below, float(out.lo), offset))


def _shift(gain: Array, offset: Array, reach: Array, most: int = MAX_SHIFT) -> int:
    """Return the shift: the largest that keeps everything in 32 bits where that is precise enough."""
    largest, total = np.abs(gain).max(), (np.abs(gain) * reach + np.abs(offset)).max()
    fits = [s for s in range(most + 1) if largest * 2.0**s < INT32_MAX and total * 2.0**s < SUM_MAX]
    if not fits:
        raise ModelError(
            f"a batch norm multiplies by {largest:.3g} steps of its output and adds {np.abs(offset).max():.3g}, "
            "more than integers can carry",
            fix="look for a channel with a variance near zero, or a calibration range that is far too small",
        )
    wide = min(fits[-1], MAX_SHIFT)
    if not _precise(reach, wide):
        return fits[-1]
    for shift in range(wide, -1, -1):
        mult, bias = _fixed(gain, offset, shift)
        if np.all(reach * np.abs(mult) + np.abs(bias) <= INT32_MAX):
            return shift if _precise(reach, shift) else wide
    return wide


def _precise(reach: Array, shift: int) -> bool:
    return bool((reach.max() + 1) / 2.0 ** (shift + 1) <= NARROW_ERROR)
