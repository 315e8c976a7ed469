# SPDX-License-Identifier: Apache-2.0
"""The twin's held-back samples, judgement and threshold on the unknown (docs/numerics.md, section 5.12)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bnngen.continual.twin_replay import COUNT_LIMIT, Pcg32, TwinMemory
from bnngen.lower.learning import LearnConfig

Array = np.ndarray
NONE, ACCEPTED, REFUSED_DROP, REFUSED_LEAST, REFUSED_NEW = range(5)
NEVER_SEEN = -(2**31)
Scores = Callable[[Array], Array]  # latents [n, words] -> scores [n, C], -2^31 for classes that cannot win


def leads(scores: Array) -> Array:
    """Return how far the best of scores [n, C] is above the mean of those of known classes, floor; 0 where none is."""
    scores = np.asarray(scores, np.int64)
    below = np.where(scores > NEVER_SEEN, scores.max(axis=1, keepdims=True) - scores, 0).sum(axis=1)
    return below // np.maximum((scores > NEVER_SEEN).sum(axis=1), 1)


class Held:
    """Held-back samples: those kept, class-balanced, and those of the open experience, a reservoir."""

    def __init__(self, config: LearnConfig, capacity: int, words: int, random: Pcg32) -> None:
        self.config, self.random = config, random
        self.counts = np.zeros(capacity, np.int64)
        self.labels = np.zeros(config.hold_new, np.uint16)
        self.latents = np.zeros((config.hold_new, words), np.uint32)
        store = replace(config, replay=config.hold if config.hold_every else 0, policy="balanced")
        self.kept = TwinMemory(store, capacity, words, random)
        self.threshold = 0
        self.begin()

    def begin(self) -> None:
        """An experience opens."""
        self.counts[:] = 0
        self.filled = self.offered = 0
        self.verdict = NONE
        self.known = self.before = self.after = self.judged = self.new = 0

    def hold(self, latent: Array, label: int, added: int) -> bool:
        """Hold this sample back, number `added` of the experience, if it is its turn in its class."""
        if not self.config.hold_every or added == COUNT_LIMIT:
            return False
        self.counts[label] += 1
        if self.counts[label] % self.config.hold_every:
            return False
        self.offered += 1
        slot = self.filled if self.filled < len(self.labels) else self.random.below(self.offered)
        if slot < len(self.labels):
            self.latents[slot], self.labels[slot] = latent, label
            self.filled = max(self.filled, slot + 1)
        return True

    def samples(self) -> tuple[Array, Array]:
        """Return (latents, labels) of all held-back samples: first those kept."""
        n, m = self.kept.filled, self.filled
        latents = np.concatenate([self.kept.latents[:n], self.latents[:m]])
        return latents, np.concatenate([self.kept.labels[:n], self.labels[:m]]).astype(np.int64)

    def count_before(self, scores: Scores, past: Array) -> None:
        """Count what the kept rows get right of the kept samples of known classes."""
        n = self.kept.filled
        latents, labels = self.kept.latents[:n], self.kept.labels[:n]
        known = past[labels] > 0
        self.known = int(known.sum())
        if self.known:
            self.before = int((scores(latents[known]).argmax(axis=1) == labels[known]).sum())

    def accepts(self, scores: Scores, past: Array) -> bool:
        """Count what the trained rows get right, and judge."""
        latents, labels = self.samples()
        n = self.kept.filled
        self.judged = self.known + self.filled
        if self.judged:
            found = scores(latents)  # where no class is known, no answer is right
            right = (found.argmax(axis=1) == labels) & (found.max(axis=1) > NEVER_SEEN)
            self.after, self.new = int(right[:n][past[labels[:n]] > 0].sum()), int(right[n:].sum())
        if 100 * (self.before - self.after) > self.config.accept_drop * self.known:
            self.verdict = REFUSED_DROP
        elif 100 * (self.after + self.new) < self.config.accept_least * self.judged:
            self.verdict = REFUSED_LEAST
        elif 100 * self.new * self.known < self.config.accept_new * self.before * self.filled:
            self.verdict = REFUSED_NEW
        else:
            self.verdict = ACCEPTED
        return self.verdict == ACCEPTED

    def commit(self) -> None:
        """Offer the open experience's samples to the kept ones."""
        self.kept.refill(self.latents[: self.filled], self.labels[: self.filled], 0)

    def calibrate(self, scores: Scores, *sources: Array) -> None:
        """Set the threshold from the kept samples, or from the first of the other sources that has any."""
        self.threshold = 0
        latents = next((s for s in (self.kept.latents[: self.kept.filled], *sources) if len(s)), None)
        if self.config.reject and latents is not None:
            found = np.sort(leads(scores(latents)))
            self.threshold = int(found[len(found) * self.config.reject // 100])

    def block(self) -> bytes:
        """Return the part of the state block."""
        counts = (self.verdict, self.known, self.before, self.after, self.judged, self.new)
        return struct.pack("<10I", self.kept.filled, self.filled, self.offered, *counts, self.threshold)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the state items."""
        if not self.config.hold_every:
            return ()
        kept = ("hold seen", "hold labels", "hold latents") if self.config.hold else ()
        return ("hold counts", "hold new labels", "hold new latents", *kept)

    def items(self) -> list[bytes]:
        """Return the state items as bytes."""
        if not self.config.hold_every:
            return []
        new = (self.counts.astype("<u4"), self.labels.astype("<u2"), self.latents.astype("<u4"))
        seen = [self.kept.seen.astype("<u4").tobytes()] if self.config.hold else []
        return [*(array.tobytes() for array in new), *seen, *self.kept.items()]
