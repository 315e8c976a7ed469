# SPDX-License-Identifier: Apache-2.0
"""The twin's generative replay memory: mixtures of Bernoulli distributions in counts (docs/numerics.md, 5.14)."""

from __future__ import annotations

import numpy as np

from bnngen.continual.twin_replay import COUNT_LIMIT, Pcg32
from bnngen.lower.learning import LearnConfig

Array = np.ndarray
FULL = 255


def bits_of(latents: Array) -> Array:
    """Return the bits of packed latents [n, words], int64 [n, 32 * words], bit 0 of word 0 first."""
    packed = np.ascontiguousarray(latents, "<u4").view(np.uint8)
    return np.unpackbits(packed, axis=-1, bitorder="little").astype(np.int64)


class GenerativeMemory:
    """Per class `components` counts of samples, and for each of its bits how many of them had it set.

    It has the methods of TwinMemory. latents: it keeps none.
    """

    def __init__(self, config: LearnConfig, capacity: int, words: int, random: Pcg32) -> None:
        self.slots, self.random = config.replay, random
        self.seen = np.zeros(capacity, np.int64)
        self.n = np.zeros((capacity, config.components), np.int64)
        self.ones = np.zeros((capacity, config.components, 32 * words), np.int64)
        self.latents = np.zeros((0, words), np.uint32)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the state items; a memory of size 0 has none."""
        return ("mixture counts", "mixture ones") if self.slots else ()

    def items(self) -> list[bytes]:
        """Return the state items as bytes."""
        return [self.n.astype(np.uint8).tobytes(), self.ones.astype(np.uint8).tobytes()] if self.slots else []

    def counts(self) -> Array:
        """Return how many samples each class stands for [C]: an equal part of the size, as far as it has had them."""
        classes = np.flatnonzero(self.seen)
        parts = np.zeros_like(self.seen)
        if len(classes):
            parts[classes] = self.slots // len(classes)
            parts[classes[: self.slots % len(classes)]] += 1
        return np.minimum(parts, self.seen)

    @property
    def filled(self) -> int:
        """Samples that the whole memory stands for."""
        return int(self.counts().sum())

    def forget(self, label: int) -> None:
        """The class was never seen."""
        if self.slots:
            self.seen[label] = 0
            self.n[label], self.ones[label] = 0, 0

    def refill(self, latents: Array, labels: Array, experiences: int) -> None:
        """Take in all samples of the experience that ends, in order."""
        if self.slots:
            for bits, label in zip(bits_of(latents), labels, strict=True):
                self._take_in(bits, int(label))

    def distances(self, bits: Array, label: int) -> Array:
        """Return n times the expected Hamming distance to each component of a class [K]."""
        ones = self.ones[label]
        return np.where(bits == 1, self.n[label][:, None] - ones, ones).sum(axis=1)

    def _take_in(self, bits: Array, label: int) -> None:
        n, ones = self.n[label], self.ones[label]
        empty = np.flatnonzero(n == 0)
        if len(empty):
            k = empty[0]
            n[k], ones[k] = 2, 1
        else:
            far = self.distances(bits, label)
            k = 0
            for other in range(1, len(n)):
                if far[other] * n[k] < far[k] * n[other]:
                    k = other
        if n[k] == FULL:
            n[k], ones[k] = (n[k] + 1) // 2, (ones[k] + 1) // 2
        n[k] += 1
        ones[k] += bits
        self.seen[label] = min(self.seen[label] + 1, COUNT_LIMIT)

    def draw(self, count: int) -> tuple[Array, Array]:
        """Draw pseudo-samples: latents [count, words], labels [count]."""
        latents, labels = np.zeros((count, self.latents.shape[1]), np.uint32), np.zeros(count, np.int64)
        for i in range(count):
            latents[i], labels[i] = self._draw()
        return latents, labels

    def _draw(self) -> tuple[Array, int]:
        ends = np.cumsum(self.counts())
        label = int(np.searchsorted(ends, self.random.below(int(ends[-1])), side="right"))
        ends = np.cumsum(self.n[label])
        k = int(np.searchsorted(ends, self.random.below(int(ends[-1])), side="right"))
        ones = self.ones[label, k]
        words = np.array([self.random.next() for _ in range(len(ones) // 4)], "<u4")
        random = words.view(np.uint8).astype(np.int64)
        bits = random * self.n[label, k] // 256 < ones
        return np.packbits(bits, bitorder="little").view("<u4"), label
