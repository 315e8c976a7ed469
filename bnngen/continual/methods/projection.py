# SPDX-License-Identifier: Apache-2.0
"""What analytic heads learn from: features, their square roots, random +-1 combinations of them."""

from __future__ import annotations

import numpy as np

from bnngen.continual.methods.interface import MethodSetting

Array = np.ndarray


class FeatureMap:
    """f(x), x or its square root; with projections also h = relu(R f(x) - t) or its sign, R [P, D] of +-1.

    Random features of a frozen backbone with an analytic head: McDonnell et al. 2023 (arXiv 2307.02251), there
    with Gaussian R. t is the median over the pre-training features, or their mean ("zero": of centred features);
    h and f(x) are brought to one scale, one standard deviation over the pre-training features.
    """

    def __init__(self, setting: MethodSetting, projections: int) -> None:
        self.tuning, self.projections = setting.tuning, projections
        self.inputs = setting.size
        if not projections:
            return
        assert setting.pretraining is not None, "thresholds need pre-training features"
        rng = np.random.default_rng(setting.seed)
        self.matrix = rng.choice(np.float32([-1, 1]), (projections, setting.size))
        known = self._root(setting.pretraining)
        self.mean, self.spread = known.mean(axis=0), known.std()
        combined = known @ self.matrix.T
        median = self.tuning.threshold == "median"
        self.threshold = np.median(combined, axis=0) if median else combined.mean(axis=0)
        self.combined_spread = combined.std()

    @property
    def size(self) -> int:
        """Length of what comes out."""
        return self.projections + (self.inputs if self.tuning.raw or not self.projections else 0)

    @property
    def bytes(self) -> int:
        """Constants: signs packed, thresholds as int32, means as int16."""
        if not self.projections:
            return 0
        return self.projections * (-(-self.inputs // 8) + 4) + 2 * self.inputs

    def __call__(self, x: Array) -> Array:
        """Features [N, D] -> float32 [N, size]."""
        f = self._root(x)
        if not self.projections:
            return f
        z = (f @ self.matrix.T - self.threshold) / self.combined_spread
        h = np.where(z >= 0, 1, -1) if self.tuning.activation == "sign" else np.maximum(z, 0)
        parts = [h, (f - self.mean) / self.spread] if self.tuning.raw else [h]
        return np.hstack(parts).astype(np.float32)

    def _root(self, x: Array) -> Array:
        return np.sqrt(np.maximum(x, 0)) if self.tuning.root else np.asarray(x, np.float32)
