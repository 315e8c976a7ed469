# SPDX-License-Identifier: Apache-2.0
"""Methods that are their memory: Hamming nearest neighbours, training on the memory only, all data at once."""

from __future__ import annotations

import numpy as np

from bnngen.continual.methods.interface import (
    COUNTER_BYTES,
    LABEL_BYTES,
    REAL_BYTES,
    Bytes,
    Counted,
    MethodSetting,
    masked,
    softmax,
)
from bnngen.continual.methods.memory import Codec, StoredReplay

Array = np.ndarray


class StoredSamples(Counted):
    """A replay memory that is filled and nothing else."""

    def __init__(self, setting: MethodSetting) -> None:
        self.capacity, self.codec = setting.capacity, Codec(setting)
        self.memory_of = StoredReplay(setting.config.replay, self.codec, setting.capacity, setting.config.policy)
        self.rng = np.random.default_rng(setting.seed)
        self.size = setting.size

    def learn(self, x: Array, y: Array) -> None:
        if len(y):
            self.memory_of.put(self.codec.encode(x), y, self.rng)

    @property
    def seen(self) -> Array:
        return self.memory_of.offered > 0

    def memory(self) -> Bytes:
        sample = {"one sample": self.codec.latent_bytes + LABEL_BYTES}
        return Bytes({"memory": self.memory_of.bytes}, sample, self.codec.constants)


class HammingNeighbours(StoredSamples):
    """The k nearest stored latents vote; the distance is the number of differing bits.

    Codes of more than one bit count as thermometer codes (sum of absolute differences). Equal votes: the class
    of the nearer neighbour.
    """

    def __init__(self, setting: MethodSetting) -> None:
        super().__init__(setting)
        self.neighbours = setting.tuning.neighbours

    def scores(self, x: Array) -> Array:
        kept, labels = self.memory_of.latents, self.memory_of.labels
        if not len(labels):
            return masked(np.zeros((len(x), self.capacity)), self.seen)
        codes, parts = self.codec.encode(x), []
        for start in range(0, len(x), 256):
            distance = self._distances(codes[start : start + 256], kept)
            order = np.argsort(distance, axis=1, kind="stable")[:, : self.neighbours]
            parts.append(self._votes(labels[order]))
        return masked(np.concatenate(parts), self.seen)

    def _distances(self, codes: Array, kept: Array) -> Array:
        # |a - b| summed = Hamming distance of thermometer codes; by matrix product, one threshold at a time.
        steps = range(1, int(max(codes.max(), kept.max(), 1)) + 1)
        total = np.zeros((len(codes), len(kept)), np.float32)
        for step in steps:
            a, b = (codes >= step).astype(np.float32), (kept >= step).astype(np.float32)
            total += a.sum(axis=1)[:, None] + b.sum(axis=1) - 2 * a @ b.T
        return total

    def _votes(self, nearest: Array) -> Array:
        votes = np.zeros((len(nearest), self.capacity))
        for place in range(nearest.shape[1]):
            votes[np.arange(len(nearest)), nearest[:, place]] += 1 - 0.001 * place
        return votes


class MemoryOnly(StoredSamples):
    """A head trained from nothing on the memory alone, each time it is asked (GDumb, Prabhu et al. 2020)."""

    def __init__(self, setting: MethodSetting) -> None:
        super().__init__(setting)
        self.weights: Array | None = None

    def learn(self, x: Array, y: Array) -> None:
        super().learn(x, y)
        self.weights = None

    def scores(self, x: Array) -> Array:
        if self.weights is None:
            kept = self.codec.decode(self.memory_of.latents)
            self.fit = SoftmaxRegression(kept, self.memory_of.labels, self.capacity)
            self.weights = self.fit.weights
        return masked(self.fit.logits(self.codec.operands(x)), self.seen)

    def memory(self) -> Bytes:
        base, rows = super().memory(), self.capacity * self.size * REAL_BYTES
        return Bytes(base.state | {"weights": rows}, base.work | {"gradient": rows}, base.constants)


class Joint(Counted):
    """Softmax regression with bias on all data so far, to convergence: what no stream can promise."""

    def __init__(self, setting: MethodSetting) -> None:
        self.capacity, self.size = setting.capacity, setting.size
        self.data: list[tuple[Array, Array]] = []
        self.fit: SoftmaxRegression | None = None

    def learn(self, x: Array, y: Array) -> None:
        self.data.append((x, y))
        self.fit = None

    def scores(self, x: Array) -> Array:
        labels = np.concatenate([y for _, y in self.data])
        if self.fit is None:
            self.fit = SoftmaxRegression(np.concatenate([x for x, _ in self.data]), labels, self.capacity)
        return masked(self.fit.logits(x), np.bincount(labels, minlength=self.capacity) > 0)

    def memory(self) -> Bytes:
        rows, samples = self.capacity * self.size * REAL_BYTES, sum(len(y) for _, y in self.data)
        kept = {"all samples": samples * (self.size * REAL_BYTES + LABEL_BYTES)}
        return Bytes(kept | {"weights": rows, "samples seen": self.capacity * COUNTER_BYTES}, {"gradient": rows})


class SoftmaxRegression:
    """Softmax regression with bias: accelerated gradient descent (Nesterov) on standardised features.

    ridge: penalty per sample on the weights. The fit is deterministic.
    """

    def __init__(self, x: Array, y: Array, capacity: int, ridge: float = 1e-3, iterations: int = 300) -> None:
        self.mean, self.spread = x.mean(axis=0), x.std(axis=0) + 1e-6
        self.weights = self._fit(self._inputs(x), np.eye(capacity, dtype=np.float32)[y], ridge, iterations)

    def logits(self, x: Array) -> Array:
        """Features [N, D] -> [N, C]."""
        return self._inputs(x) @ self.weights

    def _inputs(self, x: Array) -> Array:
        return np.hstack([(x - self.mean) / self.spread, np.ones((len(x), 1))]).astype(np.float32)

    def _fit(self, x: Array, target: Array, ridge: float, iterations: int) -> Array:
        # The softmax's Hessian is at most 1/2, so this step length is safe.
        rate = 1 / (0.5 * np.linalg.eigvalsh(x.T @ x)[-1] / len(x) + ridge)
        w = ahead = np.zeros((x.shape[1], target.shape[1]), np.float32)
        for k in range(iterations):
            gradient = x.T @ (softmax(x @ ahead) - target) / len(x) + ridge * ahead
            new = (ahead - rate * gradient).astype(np.float32)
            w, ahead = new, new + np.float32(k / (k + 3)) * (new - w)
        return w
