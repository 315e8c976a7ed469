# SPDX-License-Identifier: Apache-2.0
"""Generative replay: per class a mixture of Bernoulli components over the latent bits, from which latents are drawn.

The mixture is learned online, one pass, with hard assignment, in counts of 8 bits: no probability, logarithm or
rounding is stored. Mixtures of Bernoulli components: Bishop 2006, section 9.3.3; as a replay memory of a binary
network: Basso-Bert et al. 2025 (arXiv 2503.10333).
"""

from __future__ import annotations

import numpy as np

from bnngen.continual.methods.interface import COUNTER_BYTES, MethodSetting
from bnngen.continual.methods.memory import Codec
from bnngen.continual.methods.sgd import SgdHead

Array = np.ndarray
MOST = 255


class BernoulliReplay:
    """ones [C, K, D]: how often each bit was 1 among the n [C, K] samples of a component; both at most 255.

    A component starts at one of two, so that no bit is certain. When n is full, both are halved: of a component
    the last 128 to 255 samples count.
    """

    def __init__(self, capacity: int, codec: Codec, components: int, pseudo: int) -> None:
        assert codec.levels is not None and codec.levels.bits == 1, "the components are over single bits"
        self.codec, self.pseudo = codec, pseudo
        self.ones = np.zeros((capacity, components, codec.size), np.int64)
        self.n = np.zeros((capacity, components), np.int64)
        self.seen = np.zeros(capacity, np.int64)

    def counts(self) -> Array:
        return np.minimum(self.seen, self.pseudo)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return features and labels: classes alike, components as frequent as their samples."""
        labels = rng.choice(np.flatnonzero(self.seen), count)
        ends = np.cumsum(self.n[labels], axis=1)
        k = (rng.integers(0, ends[:, -1])[:, None] >= ends).sum(axis=1)
        n, ones = self.n[labels, k][:, None], self.ones[labels, k]
        bits = (rng.integers(0, 256, ones.shape) * n >> 8) < ones
        return self.codec.decode(bits.astype(np.uint8)), labels

    def put(self, latents: Array, labels: Array, rng: np.random.Generator) -> None:
        """Learn 1-bit codes [N, D] in their order."""
        for bits, c in zip(latents.astype(np.int64), labels, strict=True):
            self._learn(bits, int(c))

    @property
    def bytes(self) -> int:
        return self.ones.size + self.n.size + COUNTER_BYTES * len(self.seen)

    def _learn(self, bits: Array, c: int) -> None:
        ones, n = self.ones[c], self.n[c]
        self.seen[c] += 1
        if not n.all():
            k = int(np.argmin(n > 0))
            ones[k], n[k] = 1, 2
        else:
            k = int((np.where(bits == 1, n[:, None] - ones, ones).sum(axis=1) / n).argmin())
        if n[k] == MOST:
            ones[k], n[k] = (ones[k] + 1) >> 1, (n[k] + 1) >> 1
        ones[k] += bits
        n[k] += 1


def generative(setting: MethodSetting) -> SgdHead:
    """Return CWR* with a generative memory of `tuning.components` components a class."""
    return _generative(setting, cwr=True)


def sgd_generative(setting: MethodSetting) -> SgdHead:
    """Return one head trained on as the data come, with a generative memory."""
    return _generative(setting, cwr=False)


def _generative(setting: MethodSetting, cwr: bool) -> SgdHead:
    codec, tuning = Codec(setting), setting.tuning
    return SgdHead(setting, codec, BernoulliReplay(setting.capacity, codec, tuning.components, tuning.pseudo), cwr)
