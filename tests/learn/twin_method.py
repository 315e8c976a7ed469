# SPDX-License-Identifier: Apache-2.0
"""The integer learner as a method on float features: calibrate, quantize, pack, and let the twin learn."""

from __future__ import annotations

import numpy as np

from bnngen.continual.methods import Levels
from bnngen.continual.methods.interface import masked
from bnngen.continual.twin import MORE, Twin
from bnngen.ir import HeadInput
from bnngen.lower.learning import LearnConfig

Array = np.ndarray


def levels_of(x: Array) -> Levels:
    """Return levels calibrated on features [N, D]: threshold the mean, levels the means on either side."""
    threshold = x.mean(axis=0)
    below = x < threshold
    low = np.where(below, x, 0).sum(axis=0) / np.maximum(below.sum(axis=0), 1)
    high = np.where(below, 0, x).sum(axis=0) / np.maximum((~below).sum(axis=0), 1)
    return Levels.one_bit(threshold, low, high)


def pack(x: Array, levels: Levels) -> Array:
    """Return the latents of features [N, D], uint32 [N, ceil(D / 32)]; bit 1 where x is below the threshold."""
    bits = np.zeros((len(x), -(-x.shape[1] // 32) * 32), bool)
    bits[:, : x.shape[1]] = x < levels.thresholds[0]
    return np.packbits(bits, axis=1, bitorder="little").view("<u4")


class TwinMethod:
    """Interface of continual/methods. head: calibrated range of the features; the stream is int16."""

    def __init__(self, head: HeadInput, config: LearnConfig, levels: Levels, seed: int = 0) -> None:
        self.levels = levels
        self.scale = max(abs(head.lo), abs(head.hi)) / 32767
        size = levels.thresholds.shape[1]
        self.stream_levels = self.stream(levels.values[::-1])
        self.twin = Twin(head, self.scale, (size, -(-size // 32)), config, self._unpack, seed)

    def stream(self, x: Array) -> Array:
        """Return features as stream integers."""
        return np.clip(np.rint(x / self.scale), -32768, 32767).astype(np.int64)

    def learn(self, x: Array, y: Array) -> None:
        self.twin.begin()
        for latent, label in zip(pack(x, self.levels), y, strict=True):
            self.twin.add(latent, int(label))
        while self.twin.step() == MORE:
            pass
        self.twin.end()

    def scores(self, x: Array) -> Array:
        return masked(self.twin.scores(self.stream(x)), self.twin.past > 0)

    def _unpack(self, latents: Array) -> Array:
        bits = np.unpackbits(latents.astype("<u4").view(np.uint8), axis=1, bitorder="little")
        below = bits[:, : self.levels.thresholds.shape[1]].astype(np.int64)
        return np.take_along_axis(self.stream_levels, below, axis=0)
