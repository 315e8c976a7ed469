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
from math import floor, isqrt

import numpy as np

from bnngen.continual.twin_constants import GUARD_BITS, twin_constants
from bnngen.continual.twin_replay import Pcg32, TwinMemory
from bnngen.ir import HeadInput
from bnngen.lower.learning import LearnConfig

Array = np.ndarray
Features = Callable[[Array], Array]
OK, MORE, E_LABEL, E_STATE = 0, 1, -3, -4
IDLE, COLLECT, TRAIN, DONE = range(4)
NEVER_SEEN = -(2**31)
COUNT_LIMIT = 2**31 - 1
SHARE = 30
ITEMS = (
    "state",
    "past",
    "cur",
    "seen",
    "cw",
    "tw",
    "replay_labels",
    "replay_latents",
    "buffer_labels",
    "buffer_latents",
    "order",
)


def rshift(values: Array, shift: int) -> Array:
    """Return floor(v / 2^shift + 1/2) of int64 values."""
    return values if shift == 0 else (values + (1 << (shift - 1))) >> shift


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
        self.k = twin_constants(head, scale, (config.q_f, config.q_b), (config.lr, config.batch))
        self.random = Pcg32(seed)
        self.memory = TwinMemory(config, self.capacity, self.words, self.random)
        self.past = np.zeros(self.capacity, np.int64)
        self.cur = np.zeros(self.capacity, np.int64)
        self.cw, self.tw = (np.zeros((self.capacity, self.size), np.int64) for _ in range(2))
        self.cw_exp = self.tw_exp = self.k.e_max
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
        if self.phase == DONE or self.buffered == 0:
            return OK
        if self.phase == COLLECT:
            self._prepare()
        if self.steps_done % self.epoch_steps == 0:
            self._shuffle()
        self._train(*self._minibatch())
        self.steps_done += 1
        self.phase = TRAIN if self.steps_done < self.steps_total else DONE
        return MORE if self.phase == TRAIN else OK

    def end(self) -> int:
        """Consolidate and refill the replay memory."""
        if self.phase == IDLE or (self.phase == COLLECT and self.buffered):
            return E_STATE
        if self.buffered:
            self._consolidate()
            self.memory.refill(self.latents[: self.buffered], self.labels[: self.buffered], self.experiences)
            self.experiences += 1
        self.phase = IDLE
        return OK

    def abandon(self) -> int:
        """Drop the open experience."""
        if self.phase == IDLE:
            return E_STATE
        self.phase = IDLE
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
        self.tw = np.where(self.cur[:, None] > 0, self.cw, 0)
        self.tw_exp = self.cw_exp if self.tw.any() else self.k.e_max
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

    # ------------------------------------------------------------------------------ arithmetic (5.1-5.5)

    def operands(self, stream: Array) -> Array:
        """Return x of 5.1 for stream values [n, D]."""
        q = np.asarray(stream, np.int64) * self.k.x_mult
        return np.clip(rshift(q, self.k.x_shift), -self.k.zero, self.k.p - self.k.zero)

    def forward_weights(self, weights: Array) -> tuple[Array, int]:
        """Return (Wq, R) of 5.2."""
        r = int(np.abs(weights).max())
        return (np.zeros_like(weights) if r == 0 else (2 * self.k.f * weights + r) // (2 * r)), r

    def softmax(self, acc: Array, r: int, e: int) -> Array:
        """Return p of 5.4 for logits [n, C]."""
        u = acc.max(axis=1, keepdims=True) - acc
        scale = self.k.t_mult * r >> 15
        shift = self.k.t_shift + e
        product = u.astype(np.uint64) * np.uint64(scale)
        t = np.minimum(product >> np.uint64(shift), np.uint64(18 << 16)).astype(np.int64)
        exponential = self.exponential(t)
        total = exponential.sum(axis=1, keepdims=True)
        return (2 * self.k.p * exponential + total) // (2 * total)

    def exponential(self, t: Array) -> Array:
        """Return E of 5.4 for t in 0 .. 18 * 2^16."""
        n, i, f = t >> 16, t >> 10 & 63, t & 1023
        lower, upper = self.k.table[i], self.k.table[i + 1]
        value = lower - ((lower - upper) * f + 512 >> 10)
        return np.where(n == 18, 0, (2 * value + (1 << n)) >> (n + 1))

    def gradient(self, acc: Array, labels: Array, r: int, e: int) -> Array:
        """Return g of 5.5."""
        difference = self.softmax(acc, r, e)
        difference[np.arange(len(labels)), labels] -= self.k.p
        return (2 * difference * self.k.l + self.k.p) // (2 * self.k.p)

    def _train(self, latents: Array, labels: Array) -> None:
        x = self.operands(self.features(latents))
        wq, r = self.forward_weights(self.tw)
        g = self.gradient(x @ wq.T, labels, r, self.tw_exp)
        dw = g.T @ x
        step = rshift(dw * self.k.u_mult, self.k.u_shift - self.tw_exp)
        self.tw, self.tw_exp = self._store((self.tw << GUARD_BITS) - step, self.tw_exp + GUARD_BITS, 0)

    def _store(self, values: Array, exponent: int, least: int) -> tuple[Array, int]:
        """Store values of the given exponent by 5.2; return (mantissas, exponent)."""
        largest = np.abs(values).max()
        if largest == 0:
            return values, self.k.e_max
        candidates = range(max(least, exponent - self.k.e_max), exponent - self.k.e_min + 1)
        shift = next((s for s in candidates if rshift(largest, s) <= self.k.l), candidates[-1])
        return np.clip(rshift(values, shift), -self.k.l, self.k.l), exponent - shift

    def _consolidate(self) -> None:
        present = self.cur > 0
        rows = self.tw[present]
        mean = (2 * (int(rows.sum()) << GUARD_BITS) + rows.size) // (2 * rows.size)
        common = min(self.cw_exp, self.tw_exp) + GUARD_BITS
        trained = rshift((self.tw << GUARD_BITS) - mean, self.tw_exp + GUARD_BITS - common)
        old = rshift(self.cw << GUARD_BITS, self.cw_exp + GUARD_BITS - common)
        share = np.array([[self._share(c)] for c in range(self.capacity)], np.int64)
        values = old * share + trained * ((1 << SHARE) - share)
        self.cw, self.cw_exp = self._store(values, common + SHARE, SHARE)
        self.past = np.minimum(self.past + self.cur, COUNT_LIMIT)

    def _share(self, label: int) -> int:
        if self.cur[label] == 0:
            return 1 << SHARE
        w = isqrt((int(self.past[label]) << 32) // int(self.cur[label]))
        return (w << SHARE) // (w + (1 << 16))

    # ----------------------------------------------------------------------------------- answers

    def scores(self, stream: Array) -> Array:
        """Return int32 [n, C] for stream features [n, D]; classes never seen score -2^31."""
        acc = self.operands(stream) @ self.forward_weights(self.cw)[0].T
        return np.where(self.past > 0, acc, NEVER_SEEN).astype(np.int32)

    def items(self) -> list[bytes]:
        """Return the state items of 5.10 (ITEMS names them) as bytes."""
        block = struct.pack(
            "<Qii10I",
            self.random.state,
            self.tw_exp,
            self.cw_exp,
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
        arrays = (
            self.past.astype("<u4"),
            self.cur.astype("<u4"),
            self.memory.seen.astype("<u4"),
            self.cw.astype("<i2"),
            self.tw.astype("<i2"),
            self.memory.labels.astype("<u2"),
            self.memory.latents.astype("<u4"),
            self.labels.astype("<u2"),
            self.latents.astype("<u4"),
            self.order.astype("<u2"),
        )
        return [block, *(array.tobytes() for array in arrays)]
