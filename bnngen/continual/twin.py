# SPDX-License-Identifier: Apache-2.0
"""NumPy twin of the learning runtime: the same bits as runtime_c/learn after every call.

Written from docs/numerics.md, section 5, whose symbols it uses. It shares no code and no constants with
the C or with lower/learning.py, and favours whole arrays where the C has loops. Latents and features are
opaque to it, as they are to the C: a callable turns packed latents into feature vectors.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import Protocol

import numpy as np

from bnngen.continual.twin_analytic import MeanHead, MomentHead, merged
from bnngen.continual.twin_float import FloatHead
from bnngen.continual.twin_generative import GenerativeMemory
from bnngen.continual.twin_govern import Held, leads
from bnngen.continual.twin_head import CwrHead
from bnngen.continual.twin_replay import Pcg32, TwinMemory
from bnngen.continual.twin_tail import FULL_RATE, TwinTail
from bnngen.continual.twin_tail_parts import NOISE_DIGITS, bernoulli, draws
from bnngen.ir import HeadInput
from bnngen.lower.learning import LearnConfig

Array = np.ndarray
Features = Callable[[Array], Array]
OK, MORE, E_LABEL, E_STATE, E_RANGE = 0, 1, -3, -4, -5
IDLE, COLLECT, TRAIN, DONE = range(4)
NEVER_SEEN = -(2**31)
COUNT_LIMIT = 2**31 - 1
TAIL_ITEMS = ("tail latents", "tail vectors", "tail latents in training", "tail vectors in training")
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


HEADS = {"cwr": CwrHead, "cwr+": CwrHead, "sgd": CwrHead, "float32": FloatHead}
HEADS |= {"mean": MeanHead, "lda": MomentHead, "ridge": MomentHead}


class Twin:
    """One learner; its methods return a bnn_status. features: uint32 [n, words] -> stream integers [n, D].

    head, scale: the metadata's head input and the scale of the feature tensor. shape: (D, words of a latent). tail: the
    blocks that are trained too; it gives the features then, and the head must be one of gradients of at most 16 bits.
    """

    def __init__(
        self,
        head: HeadInput,
        scale: float,
        shape: tuple[int, int],
        config: LearnConfig,
        features: Features,
        seed: int = 0,
        tail: TwinTail | None = None,
    ) -> None:
        self.size, self.words = shape
        self.config, self.features, self.tail = config, features, tail
        self.capacity = head.capacity if config.capacity is None else config.capacity
        self.head: Head = HEADS[config.head](head, scale, (self.capacity, self.size), config)
        self.random = Pcg32(seed)
        memory = GenerativeMemory if config.policy == "generative" and not self.head.observes else TwinMemory
        replay = replace(config, replay=0) if self.head.observes else config
        self.memory = memory(replay, self.capacity, self.words, self.random)
        self.held = Held(config, self.capacity, self.words, self.random)
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
        self.held.begin()
        return OK

    def add(self, latent: Array, label: int, stream: Array | None = None) -> int:
        """Offer one packed latent, uint32 [words]. stream [D]: its features as inference reads them, for heads that
        observe; None: those of the latent."""
        if self.phase != COLLECT:
            return E_STATE
        if label >= self.capacity:
            return E_LABEL
        self.added = min(self.added + 1, COUNT_LIMIT)
        if self.held.hold(latent, label, self.added):
            return OK
        if self.head.observes:
            return self._observe(self.features(latent[None])[0] if stream is None else stream, label)
        offered = self.added - self.held.offered
        slot = self.buffered if self.buffered < self.config.buffer else self.random.below(offered)
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
        if self.head.observes:
            return self._solve()
        if self.phase == COLLECT:
            self._prepare()
        if self.steps_done % self.epoch_steps == 0:
            self._shuffle()
        flips = self._flips()
        latents, labels = self._minibatch()
        if self.tail is None:
            self.head.train(self.features(latents), labels)
        else:
            self._train_all(self.tail, latents ^ flips, labels)
        self.steps_done += 1
        self.phase = TRAIN if self.steps_done < self.steps_total else DONE
        return MORE if self.phase == TRAIN else OK

    def _train_all(self, tail: TwinTail, latents: Array, labels: Array) -> None:
        """One minibatch of tail and head (6.11)."""
        tail.clear()
        features = []
        for latent, label in zip(latents, labels, strict=True):
            features.append(tail.replay(latent, True))
            tail.backward(*self.head.feature_gradient(features[-1], label))
        self.head.train(np.array(features), labels)
        tail.set_rate(floor(Fraction(FULL_RATE * (self.steps_total - self.steps_done), self.steps_total)))
        tail.update(self.random)

    def _flips(self) -> Array:
        """Return the bits of a minibatch that noise flips, uint32 [batch, words] (6.11)."""
        config, shape = self.config, (self.config.batch, self.words)
        if self.tail is None or not config.tail_noise:
            return np.zeros(shape, np.uint32)
        words = draws(Pcg32(self.random.next()), shape[0] * shape[1] * NOISE_DIGITS).reshape(*shape, NOISE_DIGITS)
        return bernoulli(words, config.tail_noise).astype(np.uint32)

    def _features(self, latents: Array, trained: bool) -> Array:
        if self.tail is None:
            return self.features(latents)
        return np.array([self.tail.replay(latent, trained) for latent in latents]).reshape(len(latents), self.size)

    def end(self) -> int:
        """Consolidate and refill the replay memory."""
        if self.phase == IDLE or (self.phase == COLLECT and self.added):
            return E_STATE
        if self.added:
            self._take_over()
        self.phase = IDLE
        return OK

    def _take_over(self) -> None:
        governed = self.config.hold_every or self.config.reject
        if governed:
            self.held.count_before(self._kept_scores, self.past)
        while self.head.observes and self.steps_done < self.steps_total:
            self._solve()
        self.head.propose(self.past, self.cur)
        if governed and not self.held.accepts(self._trained_scores, self.past):
            self.head.abandon()
            return
        self.past = np.minimum(self.past + self.cur, COUNT_LIMIT)
        self.head.commit()
        if self.tail is not None:
            self.tail.commit()
        self.memory.refill(self.latents[: self.buffered], self.labels[: self.buffered], self.experiences)
        self.experiences = min(self.experiences + 1, COUNT_LIMIT)
        self.held.commit()
        self._calibrate(self.latents[: self.buffered])

    def _calibrate(self, *sources: Array) -> None:
        stored = self.memory.latents[: self.memory.filled]
        self.held.calibrate(self._kept_scores, stored, *sources)

    def _kept_scores(self, latents: Array) -> Array:
        return self.scores(self._features(latents, trained=False))

    def _trained_scores(self, latents: Array) -> Array:
        scores = self.head.scores(self._features(latents, trained=True), trained=True)
        return np.where(self.past + self.cur > 0, scores, NEVER_SEEN)

    def abandon(self) -> int:
        """Drop the open experience."""
        if self.phase == IDLE or (self.head.observes and self.added and not self.config.undo):
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
        self.held.kept.forget(label)
        self._calibrate()
        return OK

    def merge(self, item: int, first: int, values: Array) -> int:
        """Add another learner's sums, values of its state item `item` from element `first` on."""
        if self.phase != COLLECT:
            return E_STATE
        if item == 1 and self.head.observes:
            found = merged(self.past, self.cur, (first, values), (0, self.config.undo))
        else:
            name = self.names[item] if item < len(self.names) else ""
            found = self.head.merge(name, first, values) if self.head.observes else False
        self.added = max(self.added, 1) if found else self.added
        return OK if found else E_RANGE

    def _observe(self, stream: Array, label: int) -> int:
        status = self.head.observe(np.asarray(stream), label, int(self.past[label] + self.cur[label]))
        self.cur[label] += status == OK
        return status

    def _solve(self) -> int:
        if self.phase == COLLECT:
            self.steps_total = self.head.start(self.past + self.cur)
        self.head.solve(self.steps_done)
        self.steps_done += 1
        self.phase = TRAIN if self.steps_done < self.steps_total else DONE
        return MORE if self.phase == TRAIN else OK

    def _new_per_step(self, new_classes: int, old_classes: int) -> int:
        if not old_classes:
            return self.config.batch
        share = Fraction(self.config.batch * new_classes, new_classes + old_classes)
        return self.config.new_per_batch or max(1, floor(share + Fraction(1, 2)))

    def _prepare(self) -> None:
        n = self.buffered
        self.order[:n] = np.arange(n)
        counts = [np.bincount(self.labels[:n], minlength=self.capacity), self.memory.counts()]
        self.cur = counts[0] + counts[1]
        self.head.prepare(self.cur)
        if self.tail is not None:
            self.tail.prepare()
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
        latents, labels = self.memory.draw(self.config.batch - fresh)
        latents = np.concatenate([self.latents[slots], latents])
        return latents, np.concatenate([self.labels[slots], labels]).astype(np.int64)

    # ----------------------------------------------------------------------------------- answers

    def scores(self, stream: Array) -> Array:
        """Return int32 [n, C] for stream features [n, D]; classes never seen score -2^31."""
        return np.where(self.past > 0, self.head.scores(stream), NEVER_SEEN).astype(np.int32)

    def decide(self, scores: Array) -> int:
        """Return the class that scores [C] name, -1 for the unknown."""
        best = int(scores.argmax())
        return -1 if scores[best] == NEVER_SEEN or leads(scores[None])[0] < self.held.threshold else best

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
        buffer = () if self.head.observes else buffer
        return [
            block + self.held.block(),
            *(counter.astype("<u4").tobytes() for counter in counters),
            *self.head.items(),
            *self.memory.items(),
            *(array.tobytes() for array in buffer),
            *self.held.items(),
            *(self.tail.items() if self.tail is not None else ()),
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the state items."""
        tail = TAIL_ITEMS if self.tail is not None else ()
        buffer = () if self.head.observes else ("buffer labels", "buffer latents", "order")
        return (*COUNTERS, *self.head.names, *self.memory.names, *buffer, *self.held.names, *tail)
