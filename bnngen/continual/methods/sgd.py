# SPDX-License-Identifier: Apache-2.0
"""Heads trained by stochastic gradient descent: naive, CWR*, and both with a replay memory.

CWR*: Lomonaco et al. 2020 (arXiv 1907.03799), as docs/numerics.md, section 5.7, has it: same buffer, memory and
minibatches, in float32. The random numbers are NumPy's, so samples and their order are not the device's.
"""

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
from bnngen.continual.methods.memory import Codec, Replay, StoredReplay
from bnngen.lower.learning import LearnConfig

Array = np.ndarray


class SgdHead(Counted):
    """A linear head without bias and a replay memory; cwr: consolidate (CWR*), or train one head on and on.

    New samples of an experience go through the same latents as replayed ones; inference is real-valued.
    """

    def __init__(self, setting: MethodSetting, codec: Codec, replay: Replay, cwr: bool) -> None:
        self.config, self.cwr, self.codec, self.replay = setting.config, cwr, codec, replay
        self.rng = np.random.default_rng(setting.seed)
        self.weights = np.zeros((setting.capacity, setting.size), np.float32)
        self.past = np.zeros(setting.capacity)

    def learn(self, x: Array, y: Array) -> None:
        if not len(y):
            return
        keep = self.rng.permutation(len(y))[: self.config.buffer]
        latents, y = self.codec.encode(x[keep]), y[keep]
        cur = np.bincount(y, minlength=len(self.past)) + self.replay.counts()
        start = np.where(cur[:, None] > 0, self.weights, 0) if self.cwr else self.weights
        trained = train_head(start, (self.codec.decode(latents), y), self.replay, self.config, self.rng)
        self.weights = self._consolidated(trained, cur) if self.cwr else trained
        self.past = self.past + cur
        self.replay.put(latents, y, self.rng)

    def scores(self, x: Array) -> Array:
        return masked(self.codec.operands(x) @ self.weights.T, self.past > 0)

    def memory(self) -> Bytes:
        rows, config = self.weights.size * REAL_BYTES, self.config
        counters = len(self.past) * COUNTER_BYTES
        work = {
            "gradient": rows,
            "buffer": config.buffer * (self.codec.latent_bytes + LABEL_BYTES),
            "order": config.buffer * LABEL_BYTES,
            "samples of the experience": counters,
            "one sample": (self.weights.shape[0] + self.weights.shape[1]) * REAL_BYTES,
        }
        state = {"weights": rows, "samples seen": counters, "replay memory": self.replay.bytes}
        return Bytes(state, work | ({"trained rows": rows} if self.cwr else {}), self.codec.constants)

    def _consolidated(self, trained: Array, cur: Array) -> Array:
        present = cur > 0
        weight = np.sqrt(self.past / np.maximum(cur, 1))[:, None]
        merged = (weight * self.weights + trained - trained[present].mean()) / (weight + 1)
        return np.where(present[:, None], merged, self.weights).astype(np.float32)


def train_head(
    w: Array, new: tuple[Array, Array], replay: Replay, config: LearnConfig, rng: np.random.Generator
) -> Array:
    """Return weights [C, D] after SGD on softmax cross-entropy over minibatches of new and replayed samples."""
    x, y = new
    old = np.count_nonzero(replay.counts())
    fresh = new_of_batch(len(np.unique(y)), old, config)
    for _ in range(config.epochs):
        order = rng.permutation(len(y))
        for start in range(0, len(y), fresh):
            chosen = order[np.arange(start, start + fresh) % len(y)]
            bx, by = x[chosen], y[chosen]
            if fresh < config.batch:
                old_x, old_y = replay.draw(config.batch - fresh, rng)
                bx, by = np.concatenate([bx, old_x]), np.concatenate([by, old_y])
            gradient = softmax(bx @ w.T)
            gradient[np.arange(len(by)), by] -= 1
            w = w - np.float32(config.lr / len(by)) * (gradient.T @ bx)
    return w


def new_of_batch(new_classes: int, old_classes: int, config: LearnConfig) -> int:
    """Return how many samples of a minibatch are new: all without a memory, as asked, or so that all classes
    are alike."""
    if not old_classes:
        return config.batch
    return config.new_per_batch or max(1, int(config.batch * new_classes / (new_classes + old_classes) + 0.5))


def naive(setting: MethodSetting) -> SgdHead:
    """Return one head trained on as the data come, without memory."""
    return _stored(setting, 0, cwr=False)


def cwr(setting: MethodSetting) -> SgdHead:
    """Return CWR* without memory."""
    return _stored(setting, 0, cwr=True)


def sgd_replay(setting: MethodSetting) -> SgdHead:
    """Return one head trained on as the data come, with `config.replay` stored latents."""
    return _stored(setting, setting.config.replay, cwr=False)


def cwr_replay(setting: MethodSetting) -> SgdHead:
    """Return CWR* with `config.replay` stored latents of `tuning.bits` bits an element."""
    return _stored(setting, setting.config.replay, cwr=True)


def _stored(setting: MethodSetting, slots: int, cwr: bool) -> SgdHead:
    codec = Codec(setting)
    replay = StoredReplay(slots, codec, setting.capacity, setting.config.policy)
    return SgdHead(setting, codec, replay, cwr)
