# SPDX-License-Identifier: Apache-2.0
"""NumPy twin of the learning runtime: the same bits as runtime_c/learn after every call.

Written from docs/numerics.md, section 5, whose symbols it uses. It shares no code and no constants with
the C or with lower/learning.py, and favours whole arrays where the C has loops. Latents and features are
opaque to it, as they are to the C: a callable turns packed latents into feature vectors.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from math import floor
from typing import Protocol

import numpy as np

from bnngen.continual.twin_head import CwrHead
from bnngen.continual.twin_replay import Pcg32, TwinMemory
from bnngen.ir import HeadInput
from bnngen.lower.learning import LearnConfig

Array = np.ndarray
Features = Callable[[Array], Array]
OK, MORE, E_LABEL, E_STATE = 0, 1, -3, -4
IDLE, COLLECT, TRAIN, DONE = range(4)
NEVER_SEEN = -(2**31)
COUNT_LIMIT = 2**31 - 1
COUNTERS = ("state", "past", "cur", "seen")


class Head(Protocol):
    """What is learned. names: of its state items; observes: it is handed every sample's features by add()."""

    names: tuple[str, ...]
    observes: bool

    @property
    def exponents(self) -> tuple[int, int]: ...
    def prepare(self, cur: Array) -> None: ...
    def train(self, features: Array, labels: Array) -> None: ...
    def propose(self, past: Array, cur: Array) -> None: ...
    def commit(self) -> None: ...
    def abandon(self) -> None: ...
    def forget(self, label: int) -> None: ...
    def scores(self, stream: Array, trained: bool = False) -> Array: ...
    def items(self) -> list[bytes]: ...


HEADS = {"cwr": CwrHead, "cwr+": CwrHead, "sgd": CwrHead}


class Twin:
    """One learner; its methods return a bnn_status. features: uint32 [n, words] -> stream integers [n, D].

    head, scale: the metadata's head input and the scale of the feature tensor. shape: (D, words of a latent).
    """

    def __init__(
        self,
        head: HeadInput,
        scale: float,
        shape: tuple[int, int],
        config: LearnConfig,
        features: Features,
        seed: int = 0,
    ) -> None:
        self.size, self.words = shape
        self.config, self.features = config, features
        self.capacity = head.capacity if config.capacity is None else config.capacity
        self.head: Head = HEADS[config.head](head, scale, (self.capacity, self.size), config)
        self.random = Pcg32(seed)
        self.memory = TwinMemory(config, self.capacity, self.words, self.random)
        self.past = np.zeros(self.capacity, np.int64)
        self.cur = np.zeros(self.capacity, np.int64)
        self.labels = np.zeros(config.buffer, np.uint16)
        self.latents = np.zeros((config.buffer, self.words), np.uint32)
        self.order = np.zeros(config.buffer, np.uint16)
        self.phase, self.experiences = IDLE, 0
        self._reset_counts()

    def _reset_counts(self) -> None:
        self.added = self.buffered = self.position = 0
        self.fresh = self.epoch_steps = self.steps_done = self.steps_total = 0

    # ------------------------------------------------------------------------------- experience (5.7)

    def begin(self) -> int:
        """Open an experience."""
        if self.phase != IDLE:
            return E_STATE
        self.phase = COLLECT
        self._reset_counts()
        self.cur[:] = 0
        return OK

    def add(self, latent: Array, label: int) -> int:
        """Offer one packed latent, uint32 [words]."""
        if self.phase != COLLECT:
            return E_STATE
        if label >= self.capacity:
            return E_LABEL
        self.added = min(self.added + 1, COUNT_LIMIT)
        slot = self.buffered if self.buffered < self.config.buffer else self.random.below(self.added)
        if slot < self.config.buffer:
            self.latents[slot], self.labels[slot] = latent, label
            self.buffered = max(self.buffered, slot + 1)
        return OK

    def step(self) -> int:
        """Train on one minibatch."""
        if self.phase == IDLE:
            return E_STATE
        if self.phase == DONE or self.added == 0:
            return OK
        if self.phase == COLLECT:
            self._prepare()
        if self.steps_done % self.epoch_steps == 0:
            self._shuffle()
        latents, labels = self._minibatch()
        self.head.train(self.features(latents), labels)
        self.steps_done += 1
        self.phase = TRAIN if self.steps_done < self.steps_total else DONE
        return MORE if self.phase == TRAIN else OK

    def end(self) -> int:
        """Consolidate and refill the replay memory."""
        if self.phase == IDLE or (self.phase == COLLECT and self.added):
            return E_STATE
        if self.added:
            self.head.propose(self.past, self.cur)
            self.past = np.minimum(self.past + self.cur, COUNT_LIMIT)
            self.head.commit()
            self.memory.refill(self.latents[: self.buffered], self.labels[: self.buffered], self.experiences)
            self.experiences += 1
        self.phase = IDLE
        return OK

    def abandon(self) -> int:
        """Drop the open experience."""
        if self.phase == IDLE:
            return E_STATE
        self.head.abandon()
        self.phase = IDLE
        return OK

    def forget(self, label: int) -> int:
        """Forget a class."""
        if self.phase != IDLE:
            return E_STATE
        if label >= self.capacity:
            return E_LABEL
        self.head.forget(label)
        self.memory.forget(label)
        self.past[label] = 0
        return OK

    def _new_per_step(self, new_classes: int, old_classes: int) -> int:
        if not old_classes:
            return self.config.batch
        share = Fraction(self.config.batch * new_classes, new_classes + old_classes)
        return self.config.new_per_batch or max(1, floor(share + Fraction(1, 2)))

    def _prepare(self) -> None:
        n = self.buffered
        self.order[:n] = np.arange(n)
        counts = [
            np.bincount(labels, minlength=self.capacity)
            for labels in (self.labels[:n], self.memory.labels[: self.memory.filled])
        ]
        self.cur = counts[0] + counts[1]
        self.head.prepare(self.cur)
        self.fresh = self._new_per_step(*(int((count > 0).sum()) for count in counts))
        self.epoch_steps = -(-n // self.fresh)
        self.steps_total = self.config.epochs * self.epoch_steps

    def _shuffle(self) -> None:
        for i in range(self.buffered - 1, 0, -1):
            j = self.random.below(i + 1)
            self.order[[i, j]] = self.order[[j, i]]
        self.position = 0

    def _minibatch(self) -> tuple[Array, Array]:
        fresh = self.fresh
        slots = self.order[(self.position + np.arange(fresh)) % self.buffered]
        self.position = (self.position + fresh) % self.buffered
        drawn = [self.random.below(self.memory.filled) for _ in range(self.config.batch - fresh)]
        drawn = np.array(drawn, np.int64)
        latents = np.concatenate([self.latents[slots], self.memory.latents[drawn]])
        return latents, np.concatenate([self.labels[slots], self.memory.labels[drawn]]).astype(np.int64)

    # ----------------------------------------------------------------------------------- answers

    def scores(self, stream: Array) -> Array:
        """Return int32 [n, C] for stream features [n, D]; classes never seen score -2^31."""
        return np.where(self.past > 0, self.head.scores(stream), NEVER_SEEN).astype(np.int32)

    def items(self) -> list[bytes]:
        """Return the state items of 5.10 (`names` tells which) as bytes."""
        block = struct.pack(
            "<Qii10I",
            self.random.state,
            *self.head.exponents,
            self.phase,
            self.experiences,
            self.added,
            self.buffered,
            self.memory.filled,
            self.position,
            self.fresh,
            self.epoch_steps,
            self.steps_done,
            self.steps_total,
        )
        counters = (self.past, self.cur, self.memory.seen)
        buffer = (self.labels.astype("<u2"), self.latents.astype("<u4"), self.order.astype("<u2"))
        return [
            block,
            *(counter.astype("<u4").tobytes() for counter in counters),
            *self.head.items(),
            *self.memory.items(),
            *(array.tobytes() for array in buffer),
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the state items."""
        return (*COUNTERS, *self.head.names, *self.memory.names, "buffer labels", "buffer latents", "order")
