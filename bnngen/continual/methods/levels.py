# SPDX-License-Identifier: Apache-2.0
"""Latents of 1 to 8 bits an element: thresholds and the values read back, per channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Levels:
    """Per channel, 2^b - 1 ascending thresholds [2^b - 1, D] and 2^b values [2^b, D].

    A code is the number of thresholds at or below the feature: at 1 bit, 0 reads back as `values[0]` (low) and
    1 as `values[1]` (high).
    """

    thresholds: Array
    values: Array

    @classmethod
    def one_bit(cls, threshold: Array, low: Array, high: Array) -> Levels:
        """Return 1-bit levels from vectors [D]."""
        return cls(np.asarray(threshold, np.float32)[None], np.stack([low, high]).astype(np.float32))

    @property
    def bits(self) -> int:
        return len(self.values).bit_length() - 1

    def encode(self, x: Array) -> Array:
        """Features [N, D] -> codes uint8 [N, D]."""
        codes = np.empty(x.shape, np.uint8)
        for d in range(x.shape[1]):
            codes[:, d] = np.searchsorted(self.thresholds[:, d], x[:, d], side="right")
        return codes

    def decode(self, codes: Array) -> Array:
        """Codes [N, D] -> features float32 [N, D]."""
        return self.values[codes, np.arange(codes.shape[1])]

    def round_trip(self, x: Array) -> Array:
        """Return what replay makes of features [N, D]."""
        return self.decode(self.encode(x))

    @property
    def bytes(self) -> int:
        """What the tables take as int16 numbers, the type of the feature stream."""
        return 2 * (self.thresholds.size + self.values.size)


def calibrate(x: Array, bits: int, spacing: str = "quantile") -> Levels:
    """Return levels of `bits` bits for features like x [N, D].

    quantile: each code is equally frequent. uniform: thresholds equally spaced between the 0.5 and 99.5 %
    quantiles. At one bit the threshold is the mean, which serves better than the median (docs/studies/heads.md).
    A value is the mean of the samples that fall to its code, or its interval's middle where none does.
    """
    count = 2**bits
    low, high = np.quantile(x, [0.005, 0.995], axis=0)
    edges = low + (high - low) * np.linspace(0, 1, count + 1)[:, None]
    if bits == 1:
        thresholds = x.mean(axis=0, keepdims=True)
    elif spacing == "quantile":
        thresholds = np.quantile(x, np.linspace(0, 1, count + 1)[1:-1], axis=0)
    else:
        thresholds = edges[1:-1]
    thresholds = thresholds.astype(np.float32)
    bounds = np.vstack([np.minimum(low, thresholds[0]), thresholds, np.maximum(high, thresholds[-1])])
    middles = (bounds[:-1] + bounds[1:]) / 2
    return Levels(thresholds, _means(x, thresholds, middles).astype(np.float32))


def _means(x: Array, thresholds: Array, empty: Array) -> Array:
    """Return the mean of the samples of each code [2^b, D]; `empty` where there is none."""
    codes = Levels(thresholds, empty).encode(x)
    values = empty.copy()
    for d in range(x.shape[1]):
        counts = np.bincount(codes[:, d], minlength=len(empty))
        sums = np.bincount(codes[:, d], weights=x[:, d], minlength=len(empty))
        values[:, d] = np.where(counts > 0, sums / np.maximum(counts, 1), empty[:, d])
    return values
