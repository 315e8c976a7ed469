# SPDX-License-Identifier: Apache-2.0
"""The twin's random numbers and replay memory (docs/numerics.md, sections 5.8 and 5.9)."""

from __future__ import annotations

import numpy as np

from bnngen.lower.learning import LearnConfig

Array = np.ndarray
COUNT_LIMIT = 2**31 - 1
WORD = 2**64
INCREMENT = 1442695040888963407
FACTOR = 6364136223846793005


class Pcg32:
    """PCG32 with XSH-RR output; `state` is the whole of it."""

    def __init__(self, seed: int) -> None:
        self.state = (INCREMENT + seed) % WORD
        self.next()

    def next(self) -> int:
        """Return 32 random bits."""
        s = self.state
        self.state = (s * FACTOR + INCREMENT) % WORD
        word = ((s ^ (s >> 18)) >> 27) % 2**32
        doubled = word * (2**32 + 1)  # the word twice over: a rotation is a window on it
        return (doubled >> (s >> 59)) % 2**32

    def below(self, limit: int) -> int:
        """Return one draw from 0 .. limit - 1."""
        return self.next() * limit // 2**32


class TwinMemory:
    """Replay slots; 0 .. filled - 1 hold members."""

    def __init__(self, config: LearnConfig, capacity: int, words: int, random: Pcg32) -> None:
        self.slots, self.policy, self.random = config.replay, config.policy, random
        self.labels = np.zeros(self.slots, np.uint16)
        self.latents = np.zeros((self.slots, words), np.uint32)
        self.seen = np.zeros(capacity, np.int64)
        self.filled = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the state items; a memory without slots has none."""
        return ("replay labels", "replay latents") if self.slots else ()

    def items(self) -> list[bytes]:
        """Return the state items as bytes."""
        return [self.labels.astype("<u2").tobytes(), self.latents.astype("<u4").tobytes()] if self.slots else []

    def forget(self, label: int) -> None:
        """All members of the class leave, from the last slot down; the last filled slot moves into each gap."""
        if not self.slots:
            return
        for slot in self._members(label)[::-1]:
            self.filled -= 1
            self._move(self.filled, slot)
        self.seen[label] = 0

    def refill(self, latents: Array, labels: Array, experiences: int) -> None:
        """Offer all samples of the experience that ends, after `experiences` earlier ones."""
        if not self.slots:
            return
        if self.policy == "balanced":
            for latent, label in zip(latents, labels, strict=True):
                self._put_balanced(latent, int(label))
        else:
            self._refill_random(latents, labels, experiences)

    def counts(self) -> Array:
        """Return the members of every class [C]."""
        return np.bincount(self.labels[: self.filled], minlength=len(self.seen))

    def draw(self, count: int) -> tuple[Array, Array]:
        """Draw members with replacement: latents [count, words], labels [count]."""
        slots = np.array([self.random.below(self.filled) for _ in range(count)], np.int64)
        return self.latents[slots], self.labels[slots]

    def quotas(self) -> dict[int, int]:
        """Return the quota of every class seen."""
        classes = np.flatnonzero(self.seen)
        share, rest = divmod(self.slots, len(classes))
        return {int(c): share + (rank < rest) for rank, c in enumerate(classes)}

    def _members(self, label: int) -> Array:
        return np.flatnonzero(self.labels[: self.filled] == label)

    def _write(self, slot: int, latent: Array, label: int) -> None:
        self.latents[slot], self.labels[slot] = latent, label

    def _append(self, latent: Array, label: int) -> None:
        self._write(self.filled, latent, label)
        self.filled += 1

    def _move(self, source: int, target: int) -> None:
        self._write(target, self.latents[source].copy(), int(self.labels[source]))

    def _put_balanced(self, latent: Array, label: int) -> None:
        arrival = self.seen[label] == 0
        self.seen[label] = min(self.seen[label] + 1, COUNT_LIMIT)
        quotas = self.quotas()
        if arrival:
            for c, quota in quotas.items():
                self._cut(c, quota)
        mine = self._members(label)
        if len(mine) < quotas[label]:
            self._append(latent, label)
        elif quotas[label]:
            j = self.random.below(int(self.seen[label]))
            if j < len(mine):
                self._write(mine[j], latent, label)

    def _cut(self, label: int, quota: int) -> None:
        while len(members := self._members(label)) > quota:
            gone = members[self.random.below(len(members))]
            self.filled -= 1
            self._move(self.filled, gone)

    def _refill_random(self, latents: Array, labels: Array, experiences: int) -> None:
        wanted = min(self.slots // (experiences + 1), len(labels))
        old = self.filled
        for index, (latent, label) in enumerate(zip(latents, labels, strict=True)):
            self.seen[label] = min(self.seen[label] + 1, COUNT_LIMIT)
            if self.random.below(len(labels) - index) >= wanted:
                continue
            wanted -= 1
            if self.filled < self.slots:
                self._append(latent, int(label))
            else:
                victim = self.random.below(old)
                old -= 1
                self._move(old, victim)
                self._write(old, latent, int(label))
