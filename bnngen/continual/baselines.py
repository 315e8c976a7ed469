# SPDX-License-Identifier: Apache-2.0
"""Methods to hold the integer learner against, in NumPy float32 on given features.

Each has learn(x, y), one experience at a time, and scores(x): features float32 [N, D], labels int [N], scores
float32 [N, capacity], -inf for classes never seen. None of them is bit-exact to anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bnngen.continual.metrics import History, history
from bnngen.continual.stream import Experience
from bnngen.lower.learning import LearnConfig

Array = np.ndarray


class Method(Protocol):
    """One way to learn from a stream of features."""

    def learn(self, x: Array, y: Array) -> None: ...
    def scores(self, x: Array) -> Array: ...


@dataclass(frozen=True)
class Levels:
    """1-bit latents of features, per channel: below `threshold` reads back as `low`, otherwise as `high`."""

    threshold: Array
    low: Array
    high: Array

    def round_trip(self, x: Array) -> Array:
        """Return what replay makes of features [N, D]."""
        return np.where(x < self.threshold, self.low, self.high).astype(np.float32)


def softmax(z: Array) -> Array:
    """Return the softmax over the last axis."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def masked(scores: Array, seen: Array) -> Array:
    """Return scores with -inf for classes never seen."""
    return np.where(seen, scores, -np.inf).astype(np.float32)


class CwrReplay:
    """CWR* and replay as in docs/numerics.md, section 5.7, in float32: same buffer, memory and minibatches.

    levels: 1-bit latents for new and replayed samples; None keeps float latents. The random numbers are
    NumPy's, so samples and their order are not the device's.
    """

    def __init__(
        self, capacity: int, size: int, config: LearnConfig, levels: Levels | None = None, seed: int = 0
    ) -> None:
        self.config, self.levels = config, levels
        self.rng = np.random.default_rng(seed)
        self.cw = np.zeros((capacity, size), np.float32)
        self.past = np.zeros(capacity)
        self.replay: dict[int, Array] = {}

    def learn(self, x: Array, y: Array) -> None:
        keep = self.rng.permutation(len(y))[: self.config.buffer]
        x, y = x[keep].astype(np.float32), y[keep]
        x = x if self.levels is None else self.levels.round_trip(x)
        old_x, old_y = self._memory()
        cur = np.bincount(np.concatenate([y, old_y]), minlength=len(self.cw))
        tw = np.where(cur[:, None] > 0, self.cw, 0)
        tw = train_head(tw, (x, y), (old_x, old_y), self.config, self.rng)
        self._consolidate(tw, cur)
        self._remember(x, y)

    def scores(self, x: Array) -> Array:
        return masked(x @ self.cw.T, self.past > 0)

    def _memory(self) -> tuple[Array, Array]:
        if not self.replay:
            return np.zeros((0, self.cw.shape[1]), np.float32), np.zeros(0, np.int64)
        labels = [np.full(len(kept), c) for c, kept in self.replay.items()]
        return np.concatenate(list(self.replay.values())), np.concatenate(labels)

    def _consolidate(self, tw: Array, cur: Array) -> None:
        present = cur > 0
        weight = np.sqrt(self.past / np.maximum(cur, 1))[:, None]
        merged = (weight * self.cw + tw - tw[present].mean()) / (weight + 1)
        self.cw = np.where(present[:, None], merged, self.cw).astype(np.float32)
        self.past = self.past + cur

    def _remember(self, x: Array, y: Array) -> None:
        for c in np.unique(y):
            pool = np.concatenate([self.replay.get(int(c), x[:0]), x[y == c]])
            self.replay[int(c)] = pool
        for rank, c in enumerate(sorted(self.replay)):
            share, rest = divmod(self.config.replay, len(self.replay))
            pool = self.replay[c]
            self.replay[c] = pool[self.rng.permutation(len(pool))[: share + (rank < rest)]]


def train_head(
    w: Array,
    new: tuple[Array, Array],
    old: tuple[Array, Array],
    config: LearnConfig,
    rng: np.random.Generator,
) -> Array:
    """Return weights [C, D] after SGD on softmax cross-entropy over minibatches of new and old samples."""
    (x, y), (old_x, old_y) = new, old
    fresh = config.new_per_batch or round(config.batch * share_of_new(y, old_y)) or 1
    fresh = fresh if len(old_y) else config.batch
    for _ in range(config.epochs):
        order = rng.permutation(len(y))
        for start in range(0, len(y), fresh):
            chosen = order[np.arange(start, start + fresh) % len(y)]
            drawn = rng.integers(0, max(len(old_y), 1), config.batch - fresh)
            bx, by = np.concatenate([x[chosen], old_x[drawn]]), np.concatenate([y[chosen], old_y[drawn]])
            gradient = softmax(bx @ w.T)
            gradient[np.arange(len(by)), by] -= 1
            w = w - np.float32(config.lr / len(by)) * (gradient.T @ bx)
    return w


def share_of_new(new: Array, old: Array) -> float:
    """Return the share of the new samples in a minibatch that treats all classes alike."""
    return len(np.unique(new)) / (len(np.unique(new)) + len(np.unique(old)))


class PlainSgd:
    """One head, trained on as it comes: no consolidation, no replay."""

    def __init__(self, capacity: int, size: int, config: LearnConfig, seed: int = 0) -> None:
        self.config, self.rng = config, np.random.default_rng(seed)
        self.w = np.zeros((capacity, size), np.float32)
        self.seen = np.zeros(capacity, bool)

    def learn(self, x: Array, y: Array) -> None:
        self.seen[y] = True
        nothing = x[:0].astype(np.float32), y[:0]
        self.w = train_head(self.w, (x.astype(np.float32), y), nothing, self.config, self.rng)

    def scores(self, x: Array) -> Array:
        return masked(x @ self.w.T, self.seen)


class NearestMean:
    """The class whose mean feature vector is nearest (Euclidean); one pass, independent of the order."""

    def __init__(self, capacity: int, size: int) -> None:
        self.sums, self.counts = np.zeros((capacity, size)), np.zeros(capacity)

    def learn(self, x: Array, y: Array) -> None:
        np.add.at(self.sums, y, x)
        self.counts += np.bincount(y, minlength=len(self.counts))

    def scores(self, x: Array) -> Array:
        means = self.sums / np.maximum(self.counts, 1)[:, None]
        return masked(2 * x @ means.T - (means**2).sum(axis=1), self.counts > 0)


class Joint:
    """Softmax regression with bias on all data so far, to convergence: what no stream can promise.

    Accelerated gradient descent (Nesterov) on standardised features, with a small ridge penalty.
    """

    def __init__(self, capacity: int, ridge: float = 1e-3, iterations: int = 1000) -> None:
        self.capacity, self.ridge, self.iterations = capacity, ridge, iterations
        self.data: list[tuple[Array, Array]] = []

    def learn(self, x: Array, y: Array) -> None:
        self.data.append((x.astype(np.float64), y))
        x, y = (np.concatenate(part) for part in zip(*self.data, strict=True))
        self.mean, self.spread = x.mean(axis=0), x.std(axis=0) + 1e-6
        self.seen = np.bincount(y, minlength=self.capacity) > 0
        self.w = self._fit(self._inputs(x), np.eye(self.capacity)[y])

    def scores(self, x: Array) -> Array:
        return masked(self._inputs(x) @ self.w, self.seen)

    def _inputs(self, x: Array) -> Array:
        return np.hstack([(x - self.mean) / self.spread, np.ones((len(x), 1))])

    def _fit(self, x: Array, target: Array) -> Array:
        # The softmax's Hessian is at most 1/2, so this step length is safe.
        rate = 1 / (0.5 * np.linalg.norm(x, 2) ** 2 / len(x) + self.ridge)
        w = ahead = np.zeros((x.shape[1], self.capacity))
        for k in range(self.iterations):
            gradient = x.T @ (softmax(x @ ahead) - target) / len(x) + self.ridge * ahead
            new = ahead - rate * gradient
            w, ahead = new, new + k / (k + 3) * (new - w)
        return w


def run_method(method: Method, experiences: Sequence[Experience], test: tuple[Array, Array]) -> History:
    """Learn the experiences (their `images` are features) one by one; return what was right after each."""
    predictions = []
    for experience in experiences:
        method.learn(experience.images, experience.labels)
        predictions.append(method.scores(test[0]).argmax(axis=1))
    return history([e.classes for e in experiences], test[1], predictions)
