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


def affine_rule(acc: Accumulator, form: Form, out: Output, limits: tuple[int, int] | None = None) -> ir.Affine:
    """Return the epilogue that computes the chain into `out`. limits: of the accumulator, where a clip comes first."""
    gain, offset = compose(acc.unit, acc.bias, form.first)
    gain, offset, out = gain / out.scales, offset / out.scales - out.offsets, out.clipped(form.after)
    acc_lo, acc_hi = limits or (INT32_MIN, INT32_MAX)
    ends = (np.clip(acc.lo, acc_lo, acc_hi), np.clip(acc.hi, acc_lo, acc_hi)) if limits else (acc.lo, acc.hi)
    shift = _shift(gain, offset, np.maximum(*(np.abs(end) for end in ends)))
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
