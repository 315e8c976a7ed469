# SPDX-License-Identifier: Apache-2.0
"""What calibration keeps of one tensor: per channel the extremes, and where 8 bits may saturate.

Memory is bounded: a histogram of absolute values in each channel, whose range doubles when a value does not fit.
"""

from __future__ import annotations

import numpy as np

from bnngen.errors import DataError

BINS = 512  # of nonzero absolute values; bin i holds ((i - 1) * width, i * width], bin 0 holds zeros
LEVELS = 127  # of an 8-bit tensor on either side of 0
SHARE = 0.9999  # of the absolute values that "percentile" does not saturate
LEAST_EXPONENT = -100  # of a histogram's range: a bin's width is then far below what a scale can be
DIGITS = 9  # decimal ones: a float32 is known by as many


class RangeMeter:
    """Sees values of one tensor, batch by batch, and says its range.

    method: one of config.METHODS; "minmax" keeps no histogram. together: one range for all channels.
    """

    def __init__(self, name: str, method: str, together: bool = False) -> None:
        self.name = name
        self._method = method
        self._together = together
        self._low = np.empty(0, np.float32)
        self._high = np.empty(0, np.float32)
        self._exponent = np.empty(0, np.int32)  # the range of a histogram is 2^exponent
        self._counts: np.ndarray | None = None

    def _start(self, channels: int) -> None:
        self._low = np.full(channels, np.inf, np.float32)
        self._high = np.full(channels, -np.inf, np.float32)
        self._exponent = np.full(channels, np.iinfo(np.int32).min, np.int32)
        if self._method != "minmax":
            self._counts = np.zeros((channels, BINS + 1), np.uint32)

    def see(self, value: np.ndarray) -> None:
        """Take in values, float32 [N, C, ...]. Raises DataError where one is not finite."""
        rows = value.reshape(1, 1, -1) if self._together else value.reshape(*value.shape[:2], -1)
        if not len(self._low):
            self._start(rows.shape[1])
        low, high = rows.min(axis=(0, 2)), rows.max(axis=(0, 2))
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise DataError(
                f"tensor {self.name} takes a value that is not finite",
                where="calibration",
                why="a range with infinity or NaN has no integer scale",
                fix="look for weights that have diverged, and for a wrong input scale",
            )
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
        if self._counts is not None:
            self._widen(np.maximum(-low, high))
            self._count(rows)

    def range(self) -> dict[str, list[float]]:
        """Return lo, hi and clip, as the metadata has them: one entry a channel, or one for all."""
        return {"lo": _numbers(self._low), "hi": _numbers(self._high), "clip": _numbers(self._clip())}

    def _widen(self, reach: np.ndarray) -> None:
        """Double the ranges of histograms until 2^exponent is not below `reach`; neighbours merge.

        The upper edges of bins stay edges: (i + 1) >> 1 is ceil(i / 2).
        """
        fraction, exponent = np.frexp(reach)  # reach = fraction * 2^exponent, fraction in [1/2, 1)
        exponent = np.maximum(exponent - (fraction == 0.5), LEAST_EXPONENT)
        wanted = np.where(reach > 0, np.maximum(self._exponent, exponent), self._exponent)
        doublings = wanted.astype(np.int64) - self._exponent
        self._exponent = wanted.astype(np.int32)
        counts = self._counts
        used = counts[:, 1:].any(axis=1)
        for step in range(BINS.bit_length() - 1):  # then all values are in bin 1, and stay there
            (grow,) = np.nonzero(used & (doublings > step))
            if not len(grow):
                return
            merged = np.zeros((len(grow), BINS + 1), np.uint32)
            merged[:, 0] = counts[grow, 0]
            merged[:, 1 : BINS // 2 + 1] = counts[grow, 1::2] + counts[grow, 2::2]
            counts[grow] = merged

    def _count(self, rows: np.ndarray) -> None:
        """Add the values of [N, C, positions] to the histograms."""
        channels = len(self._low)
        per_unit = np.ldexp(np.float32(BINS), -self._safe_exponent()).astype(np.float32)  # exact: a power of two
        bins = np.ceil(np.abs(rows) * per_unit[:, None]).astype(np.intp)
        bins += (np.arange(channels) * (BINS + 1))[:, None]
        found = np.bincount(bins.ravel(), minlength=channels * (BINS + 1))
        self._counts += found.reshape(channels, BINS + 1).astype(np.uint32)

    def _safe_exponent(self) -> np.ndarray:
        """The exponents; 0 for channels that have seen zeros alone."""
        return np.where(self._exponent == np.iinfo(np.int32).min, 0, self._exponent)

    def _clip(self) -> np.ndarray:
        """Return the absolute value at which 8 bits may saturate, float64; empty for "minmax".

        Within half a step of the largest value it is that value: what saturates there would be rounded as far.
        """
        if self._counts is None:
            return np.empty(0)
        width = np.ldexp(1.0 / BINS, self._safe_exponent())
        chosen = {"mse": least_error, "percentile": most_of_them}[self._method](self._counts)
        reach = np.maximum(np.abs(self._low), np.abs(self._high)).astype(np.float64)
        return np.where(chosen * width >= reach * (1 - 0.5 / LEVELS), reach, chosen * width)


def least_error(counts: np.ndarray) -> np.ndarray:
    """Return the edge i, 1..BINS, of each row of counts [C, BINS + 1] at which saturation costs least.

    With T the saturation, values up to T are rounded to multiples of T / 127, with an error of step^2 / 12 in the mean
    (B. Widrow, Statistical analysis of amplitude-quantized sampled-data systems, 1961), zeros without one;
    a value x above T becomes T and costs (x - T)^2. All in units of a bin's width; a bin's values stand at its middle.
    """
    edges = np.arange(1, BINS + 1, dtype=np.float64)
    middles = edges - 0.5
    weights = counts[:, 1:].astype(np.float64)
    inside = np.cumsum(weights, axis=1)
    number = inside[:, -1:] - inside
    first, second = _above(weights * middles), _above(weights * middles**2)
    cost = (edges / LEVELS) ** 2 / 12 * inside + second - 2 * edges * first + edges**2 * number
    return np.argmin(cost, axis=1) + 1


def _above(values: np.ndarray) -> np.ndarray:
    """Return the sums of what stands behind each element of a row."""
    sums = np.cumsum(values, axis=1)
    return sums[:, -1:] - sums


def most_of_them(counts: np.ndarray) -> np.ndarray:
    """Return the lowest edge i of each row of counts [C, BINS + 1] that 99.99 % of the values do not exceed."""
    reached = np.cumsum(counts, axis=1, dtype=np.float64)
    return np.argmax(reached >= SHARE * reached[:, -1:], axis=1)


def _numbers(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]
