# SPDX-License-Identifier: Apache-2.0
"""Ridge regression onto one-hot labels over random binary projections: one pass, independent of the order.

h = sign(R (x - m) - t) or relu(...), R of +-1 entries [P, D]; G = sum h h^T, Q = sum h onehot(y)^T;
W = (G + lambda trace(G) / P I)^-1 Q (McDonnell et al. 2023, arXiv 2307.02251, with +-1 instead of Gaussian R).
"""

from __future__ import annotations

import numpy as np

from bnngen.continual.methods.interface import COUNTER_BYTES, REAL_BYTES, Bytes, Counted, MethodSetting, masked
from bnngen.continual.methods.means import triangle

Array = np.ndarray


class Projection:
    """Random +-1 combinations of features, each with a threshold, then their sign (+-1) or what is above it.

    median: the threshold is the median over the pre-training features; zero: the features are centred on their
    pre-training mean and the threshold is 0.
    """

    def __init__(self, setting: MethodSetting) -> None:
        tuning = setting.tuning
        rng = np.random.default_rng(setting.seed)
        self.matrix = rng.choice(np.float32([-1, 1]), (tuning.projections, setting.size))
        self.sign = tuning.activation == "sign"
        assert setting.pretraining is not None, "thresholds need pre-training features"
        known = setting.pretraining @ self.matrix.T
        self.threshold = np.median(known, axis=0) if tuning.threshold == "median" else known.mean(axis=0)
        self.spread = known.std()

    def __call__(self, x: Array) -> Array:
        """Features [N, D] -> float32 [N, P]."""
        z = (x @ self.matrix.T - self.threshold) / self.spread
        return np.where(z >= 0, 1, -1).astype(np.float32) if self.sign else np.maximum(z, 0).astype(np.float32)

    @property
    def bytes(self) -> int:
        """Signs packed, thresholds as int32."""
        return self.matrix.shape[0] * (-(-self.matrix.shape[1] // 8) + 4)


class RidgeProjections(Counted):
    """The head; its products are kept as sums, and solved for when scores are asked for."""

    def __init__(self, setting: MethodSetting) -> None:
        self.project, self.penalty = Projection(setting), setting.tuning.ridge
        size = setting.tuning.projections
        self.gram = np.zeros((size, size))
        self.targets = np.zeros((size, setting.capacity))
        self.counts = np.zeros(setting.capacity)

    def learn(self, x: Array, y: Array) -> None:
        h = self.project(x)
        self.gram += h.T @ h
        np.add.at(self.targets.T, y, h)
        self.counts += np.bincount(y, minlength=len(self.counts))

    def weights(self) -> Array:
        """Return W [P, C]."""
        size = len(self.gram)
        penalty = self.penalty * max(np.trace(self.gram) / size, 1e-12)
        return np.linalg.solve(self.gram + penalty * np.eye(size), self.targets)

    def scores(self, x: Array) -> Array:
        return masked(self.project(x) @ self.weights(), self.counts > 0)

    def memory(self) -> Bytes:
        size, rows = triangle(len(self.gram)) * REAL_BYTES, self.targets.size * REAL_BYTES
        state = {"Gram matrix": size, "targets": rows, "samples seen": len(self.counts) * COUNTER_BYTES}
        work = {"factor": size, "rows": rows, "one sample": len(self.gram) * REAL_BYTES}
        return Bytes(state, work, {"projection": self.project.bytes})
