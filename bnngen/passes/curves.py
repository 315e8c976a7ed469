# SPDX-License-Identifier: Apache-2.0
"""A chain of batch norms, clips and slopes as a function of its accumulator, and where it crosses a cut.

Crossings are exact. Values are first computed in float64 with a bound on the error; where that does not decide, as
at ties, the comparison is repeated in exact arithmetic (`surds`). All channels are searched at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from bnngen import ir
from bnngen.passes.surds import Field, Surd, plus, rational

Array = np.ndarray
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
STEP_ERROR = 2.0**-50  # relative, of the few float64 operations of one link
TINY = 1e-300  # what underflow can lose


@dataclass(frozen=True)
class Accumulator:
    """What an integer accumulator means, and the values it can take, per channel.

    unit, bias: float64 [C]; real value = unit * acc + bias. lo, hi: int64 [C], reachable range.
    """

    unit: Array
    bias: Array
    lo: Array
    hi: Array


def spread(norm: ir.BatchNorm) -> Array:
    """Return variance + epsilon, float64 [C]."""
    return norm.variance.astype(np.float64) + norm.epsilon


def slope(norm: ir.BatchNorm) -> Array:
    """Return what a batch norm multiplies by, float64 [C]."""
    return norm.gamma.astype(np.float64) / np.sqrt(spread(norm))


def falls(links: tuple[ir.Node, ...], channels: int) -> Array | None:
    """Return for each channel whether the chain falls where it does not stay; None unless all are monotone."""
    direction = np.ones(channels)
    floor = np.full(channels, -np.inf)  # what the value is known to be at least
    for link in links:
        if isinstance(link, ir.BatchNorm):
            direction = direction * np.where(link.gamma < 0, -1, 1)
            floor = np.full(channels, -np.inf)
        elif isinstance(link, ir.Clip):
            floor = np.maximum(floor, link.lo)
        elif isinstance(link, ir.PRelu):
            below = np.where(floor >= 0, 0, link.negative)
            above = np.ones(channels) if link.positive is None else link.positive
            if np.any((below < 0) & (above > 0) | (below > 0) & (above < 0)):
                return None
            direction = direction * np.where((below < 0) | (above < 0), -1, 1)
            floor = np.where((floor >= 0) & (above >= 0), 0, -np.inf)
    return direction < 0


@dataclass(frozen=True)
class Curve:
    """The links behind an accumulator; a final Sign or Levels is the caller's business."""

    acc: Accumulator
    links: tuple[ir.Node, ...]

    def compare(self, values: Array, cut: float) -> Array:
        """Return the sign of (chain at values[c]) - cut for every channel, exactly. values: int64 [C]."""
        with np.errstate(all="ignore"):
            y, error = self._bounded(values)
            distance = y - cut
            sure = np.abs(distance) > error + np.abs(distance) * STEP_ERROR + TINY
        result = np.where(sure, np.sign(distance), 0).astype(np.int8)
        for c in np.flatnonzero(~sure):
            result[c] = self._exactly(int(c), int(values[c]), cut)
        return result

    def _bounded(self, values: Array) -> tuple[Array, Array]:
        """Return float64 values of the chain, and how far they may be off."""
        y = self.acc.unit * values
        error = np.abs(y) * STEP_ERROR
        y, error = _shifted(y, error, self.acc.bias)
        for link in self.links:
            if isinstance(link, ir.BatchNorm):
                y, error = _shifted(y, error, -link.mean.astype(np.float64))
                y, error = _scaled(y, error, slope(link))
                y, error = _shifted(y, error, link.beta.astype(np.float64))
            elif isinstance(link, ir.Clip):
                low, high = y + error <= link.lo, y - error >= link.hi
                y = np.clip(y, link.lo, link.hi)
                error = np.where(low | high, 0, error)
            elif isinstance(link, ir.PRelu):
                y, error = _bent(y, error, link)
        return y, error

    def _exactly(self, c: int, value: int, cut: float) -> int:
        field = Field()
        y = rational(Fraction(float(self.acc.unit[c])) * value + Fraction(float(self.acc.bias[c])))
        for link in self.links:
            y = _exact_link(field, link, c, y)
        return field.sign(plus(y, rational(-Fraction(cut))))


def _scaled(y: Array, error: Array, factor: Array) -> tuple[Array, Array]:
    y = y * factor
    return y, error * np.abs(factor) * (1 + STEP_ERROR) + np.abs(y) * STEP_ERROR + TINY


def _shifted(y: Array, error: Array, by: Array) -> tuple[Array, Array]:
    y = y + by
    return y, error * (1 + STEP_ERROR) + np.abs(y) * STEP_ERROR


def _bent(y: Array, error: Array, link: ir.PRelu) -> tuple[Array, Array]:
    negative = link.negative.astype(np.float64)
    positive = np.ones_like(negative) if link.positive is None else link.positive.astype(np.float64)
    factor = np.where(y < 0, negative, positive)
    worst = np.maximum(np.abs(negative), np.abs(positive))
    unsure = np.abs(y) <= error  # either slope: the value lies within twice the error of 0
    return _scaled(y, np.where(unsure, 2 * error, error), np.where(unsure, worst, factor))


def _exact_link(field: Field, link: ir.Node, c: int, y: Surd) -> Surd:
    if isinstance(link, ir.BatchNorm):
        v = Fraction(float(link.variance[c])) + Fraction(link.epsilon)
        centred = plus(y, rational(-Fraction(float(link.mean[c]))))
        scaled = field.times(centred, rational(Fraction(float(link.gamma[c])) / v))
        return plus(field.times(scaled, field.root(v)), rational(float(link.beta[c])))  # 1 / sqrt(v) = sqrt(v) / v
    if isinstance(link, ir.PRelu):
        positive = 1.0 if link.positive is None else float(link.positive[c])
        return field.times(y, rational(float(link.negative[c]) if field.sign(y) < 0 else positive))
    assert isinstance(link, ir.Clip)
    if np.isfinite(link.lo) and field.sign(plus(y, rational(-Fraction(link.lo)))) < 0:
        return rational(link.lo)
    if np.isfinite(link.hi) and field.sign(plus(y, rational(-Fraction(link.hi)))) > 0:
        return rational(link.hi)
    return y


# ---------------------------------------------------------------------------------------- crossings


def threshold_rule(acc: Accumulator, links: tuple[ir.Node, ...]) -> ir.Threshold:
    """Return the exact integer thresholds of a monotone chain before a sign (docs/numerics.md, "Threshold").

    Levels are int64: reachable values may lie beyond int32 here, where only the type of the input is known.
    `int32_levels` is the last step.
    """
    curve = Curve(acc, links)
    level, same, first = _crossing(acc, lambda values: curve.compare(values, 0.0) < 0)
    level = np.where(same, np.where(first, acc.hi + 1, acc.lo), level)
    return ir.Threshold(level, (~same & ~first).astype(np.int8))


def steps_rule(acc: Accumulator, links: tuple[ir.Node, ...], levels: ir.Levels) -> ir.Steps:
    """Return the exact integer levels of a monotone chain before a quantizer (docs/numerics.md, "Steps")."""
    curve, down = Curve(acc, links), falls(links, len(acc.unit))
    assert down is not None, "a chain that is not monotone was cut before its quantizer"
    columns = []
    for cut, closed in zip(levels.cuts, levels.closed, strict=True):
        least = 0 if closed else 1
        passed = lambda values, cut=float(cut), least=least: curve.compare(values, cut) >= least  # noqa: E731
        level, same, first = _crossing(acc, passed)
        columns.append(np.where(same, np.where(first != down, acc.lo, acc.hi + 1), level))
    table = np.sort(np.stack(columns, axis=1), axis=1)
    return ir.Steps(np.clip(table, INT32_MIN, INT32_MAX).astype(np.int32), down.astype(np.int8), int(levels.start))


def _crossing(acc: Accumulator, holds: Callable[[Array], Array]) -> tuple[Array, Array, Array]:
    """Bisect where a monotone predicate changes: (first value behind the change, it never changes, it holds at lo)."""
    below, above = acc.lo.astype(np.int64), acc.hi.astype(np.int64)
    first = holds(below)
    same = first == holds(above)
    while np.any(above - below > 1):
        middle = (below + above) // 2
        before = holds(middle) == first
        below, above = np.where(before, middle, below), np.where(before, above, middle)
    return above, same, first


def int32_levels(rule: ir.Threshold) -> ir.Threshold:
    """Return the rule with int32 levels, which mean the same for every accumulator below 2^31 - 1.

    Lowering proves that a sum stays in int32, and refuses one in front of a sign that reaches 2^31 - 1; so a
    level above 2^31 - 1 means "always" and may be 2^31 - 1, one below -2^31 means "never" and may be -2^31.
    """
    return replace(rule, level=np.clip(rule.level, INT32_MIN, INT32_MAX).astype(np.int32))
