# SPDX-License-Identifier: Apache-2.0
"""What analytic heads learn from: features, their square roots, random +-1 combinations, principal axes of them."""

from __future__ import annotations

import numpy as np

from bnngen.continual.methods.interface import MethodSetting

Array = np.ndarray


class FeatureMap:
    """f(x), x or its square root; with projections also h = relu(R f(x) - t) or its sign, R [P, D] of +-1.

    Random features of a frozen backbone with an analytic head: McDonnell et al. 2023 (arXiv 2307.02251), there
    with Gaussian R. t is the median over the pre-training features, or their mean ("zero": of centred features);
    h and f(x) are brought to one scale, one standard deviation over the pre-training features. With
    `tuning.subspace` d, all of that is projected onto the first d principal axes of the pre-training within-class
    covariance: the memory of a covariance falls with d^2.
    """

    def __init__(self, setting: MethodSetting, projections: int) -> None:
        self.tuning, self.projections = setting.tuning, projections
        self.inputs, self.axes = setting.size, None
        if projections:
            self._combine(setting)
        if self.tuning.subspace:
            _, axes = np.linalg.eigh(pretrained_covariance(setting, self))
            self.axes = axes[:, : -self.tuning.subspace - 1 : -1].astype(np.float32)

    def _combine(self, setting: MethodSetting) -> None:
        """Draw R; calibrate thresholds and scales."""
        assert setting.pretraining is not None, "thresholds need pre-training features"
        rng = np.random.default_rng(setting.seed)
        self.matrix = rng.choice(np.float32([-1, 1]), (self.projections, setting.size))
        known = self._root(setting.pretraining)
        self.mean, self.spread = known.mean(axis=0), known.std()
        combined = known @ self.matrix.T
        median = self.tuning.threshold == "median"
        self.threshold = np.median(combined, axis=0) if median else combined.mean(axis=0)
        self.combined_spread = combined.std()

    @property
    def size(self) -> int:
        """Length of what comes out."""
        if self.axes is not None:
            return self.axes.shape[1]
        return self.projections + (self.inputs if self.tuning.raw or not self.projections else 0)

    @property
    def bytes(self) -> int:
        """Constants: signs packed, thresholds as int32, means and axes as int16."""
        axes = 0 if self.axes is None else 2 * self.axes.size
        if not self.projections:
            return axes
        return axes + self.projections * (-(-self.inputs // 8) + 4) + 2 * self.inputs

    def __call__(self, x: Array) -> Array:
        """Features [N, D] -> float32 [N, size]."""
        h = self._combined(self._root(x)) if self.projections else self._root(x)
        return h if self.axes is None else h @ self.axes

    def _combined(self, f: Array) -> Array:
        z = (f @ self.matrix.T - self.threshold) / self.combined_spread
        h = np.where(z >= 0, 1, -1) if self.tuning.activation == "sign" else np.maximum(z, 0)
        parts = [h, (f - self.mean) / self.spread] if self.tuning.raw else [h]
        return np.hstack(parts).astype(np.float32)

    def _root(self, x: Array) -> Array:
        return np.sqrt(np.maximum(x, 0)) if self.tuning.root else np.asarray(x, np.float32)


def pretrained_covariance(setting: MethodSetting, features: FeatureMap) -> Array:
    """Return the mean within-class covariance of the mapped pre-training features [P, P]."""
    assert setting.pretraining is not None and setting.pretraining_labels is not None, "it needs labelled features"
    classes, places = np.unique(setting.pretraining_labels, return_inverse=True)
    h = features(setting.pretraining).astype(np.float64)
    sums = np.zeros((len(classes), h.shape[1]))
    np.add.at(sums, places, h)
    centred = h - (sums / np.bincount(places)[:, None])[places]
    return centred.T @ centred / max(len(h) - len(classes), 1)
