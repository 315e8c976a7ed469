# SPDX-License-Identifier: Apache-2.0
"""Means over seeds, with 95 % confidence intervals by Student's t distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

STEPS = 2000  # of Simpson's rule; errors below 1e-9 for the quantiles used here


def t_cdf(t: float, freedom: int) -> float:
    """Return the probability that Student's t with `freedom` degrees of freedom is at most t.

    With t = sqrt(freedom) * tan(a) the density becomes cos(a)^(freedom - 1), smooth on a bounded interval.
    """
    angle = math.atan(t / math.sqrt(freedom))
    points = np.cos(np.linspace(0, angle, 2 * STEPS + 1)) ** (freedom - 1)
    weights = np.ones(2 * STEPS + 1)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    integral = float(points @ weights) * angle / (6 * STEPS)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return 0.5 + scale * integral


def t_quantile(probability: float, freedom: int) -> float:
    """Return the t below which Student's t lies with that probability, by bisection; 0.5 <= probability < 1."""
    low, high = 0.0, 1.0
    while t_cdf(high, freedom) < probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation; the deviation of one value is 0."""
    array = np.asarray(values, float)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else 0.0


def half_width(values: Sequence[float], confidence: float = 0.95) -> float | None:
    """Return half the width of the confidence interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    return t_quantile((1 + confidence) / 2, len(values) - 1) * mean_std(values)[1] / math.sqrt(len(values))


def paired(values: Sequence[float], baseline: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean of the differences value - baseline, seed by seed, and half the width of its interval."""
    differences = np.asarray(values, float) - np.asarray(baseline, float)
    return float(differences.mean()), half_width(differences.tolist())
