# SPDX-License-Identifier: Apache-2.0
"""Replay memories of stored latents: `balanced` and `random`, never above their size (docs/numerics.md, 5.8)."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from bnngen.continual.methods.interface import COUNTER_BYTES, LABEL_BYTES, MethodSetting
from bnngen.continual.methods.levels import Levels, calibrate

Array = np.ndarray
FLOAT_BITS = 32


class Replay(Protocol):
    """What training draws from. counts: samples of each class [capacity], 0 for those not there."""

    def counts(self) -> Array: ...
    def draw(self, count: int, rng: np.random.Generator) -> tuple[Array, Array]: ...
    def put(self, latents: Array, labels: Array, rng: np.random.Generator) -> None: ...
    @property
    def bytes(self) -> int: ...


class Codec:
    """Features to what is stored, and back to what a head reads.

    encode: codes of levels, or the features themselves at 32 bits. operands: what a head reads of features, as
    they are or, with `tuning.centre`, (sqrt(x) - m) / s: m the mean of each channel and s one scale, over the
    pre-training features. decode: codes to operands.
    """

    def __init__(self, setting: MethodSetting) -> None:
        self.size, bits, known = setting.size, setting.tuning.bits, setting.pretraining
        self.levels: Levels | None = None
        if setting.levels is not None and setting.levels.bits == bits:
            self.levels = setting.levels
        elif bits < FLOAT_BITS:
            assert known is not None, "levels need pre-training features"
            self.levels = calibrate(known, bits, setting.tuning.spacing)
        self.latent_bytes = -(-setting.size * bits // 8)
        self.centre = setting.tuning.centre
        if self.centre:
            assert known is not None, "centring needs pre-training features"
            roots = np.sqrt(np.maximum(known, 0))
            self.mean, self.spread = roots.mean(axis=0), roots.std()

    def encode(self, x: Array) -> Array:
        return x.astype(np.float32) if self.levels is None else self.levels.encode(x)

    def operands(self, x: Array) -> Array:
        if not self.centre:
            return x
        return ((np.sqrt(np.maximum(x, 0)) - self.mean) / self.spread).astype(np.float32)

    def decode(self, latents: Array) -> Array:
        return self.operands(latents if self.levels is None else self.levels.decode(latents))

    @property
    def constants(self) -> dict[str, int]:
        """Bytes of the tables, as int16 numbers."""
        levels = {} if self.levels is None else {"levels": self.levels.bytes}
        return levels | ({"means": 2 * self.size} if self.centre else {})


class StoredReplay:
    """At most `slots` latents with their labels.

    balanced: a reservoir per class, quota slots / classes seen, the remainder to the lowest class numbers.
    random: after experience i (from 0), min(slots / (i + 1), N) of its N samples go to free slots, then over
    random older ones (Pellegrini et al. 2020, arXiv 1912.01100, algorithm 1).
    """

    def __init__(self, slots: int, codec: Codec, capacity: int, policy: str) -> None:
        self.slots, self.codec, self.policy = slots, codec, policy
        self.latents: Array = codec.encode(np.zeros((0, codec.size), np.float32))
        self.labels = np.zeros(0, np.int64)
        self.offered = np.zeros(capacity, np.int64)
        self.experiences = 0

    def counts(self) -> Array:
        return np.bincount(self.labels, minlength=len(self.offered))

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        places = rng.integers(0, len(self.labels), count)
        return self.codec.decode(self.latents[places]), self.labels[places]

    def put(self, latents: Array, labels: Array, rng: np.random.Generator) -> None:
        """Offer the samples of one experience."""
        if self.policy == "balanced":
            self._put_balanced(latents, labels, rng)
        else:
            self._put_random(latents, labels, rng)
        self.experiences += 1

    @property
    def bytes(self) -> int:
        sample = self.codec.latent_bytes + LABEL_BYTES
        return self.slots * sample + COUNTER_BYTES * len(self.offered)

    def _put_balanced(self, latents: Array, labels: Array, rng: np.random.Generator) -> None:
        """Keep of each class what a reservoir over all its samples would hold, at its present quota."""
        before = self.offered.copy()
        self.offered += np.bincount(labels, minlength=len(self.offered))
        classes = np.flatnonzero(self.offered)
        share, rest = divmod(self.slots, len(classes))
        kept_x, kept_y = [], []
        for rank, c in enumerate(classes):
            quota = share + (rank < rest)
            old, new = self.latents[self.labels == c], latents[labels == c]
            old = old[rng.permutation(len(old))[:quota]]
            wanted = min(quota, self.offered[c])
            # How many of `wanted` draws without replacement from all samples so far are new ones.
            fresh = rng.hypergeometric(len(new), before[c], wanted) if len(new) else 0
            fresh = min(max(fresh, wanted - len(old)), len(new))
            kept_x += [old[: wanted - fresh], new[rng.permutation(len(new))[:fresh]]]
            kept_y.append(np.full(min(wanted - fresh, len(old)) + fresh, c))
        self.latents, self.labels = np.concatenate(kept_x), np.concatenate(kept_y)

    def _put_random(self, latents: Array, labels: Array, rng: np.random.Generator) -> None:
        self.offered += np.bincount(labels, minlength=len(self.offered))
        count = min(self.slots // (self.experiences + 1), len(labels))
        taken = rng.permutation(len(labels))[:count]
        stay = rng.permutation(len(self.labels))[: self.slots - count]
        self.latents = np.concatenate([self.latents[stay], latents[taken]])
        self.labels = np.concatenate([self.labels[stay], labels[taken]])
