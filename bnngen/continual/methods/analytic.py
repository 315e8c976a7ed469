# SPDX-License-Identifier: Apache-2.0
"""Analytic heads: nearest mean, a fixed covariance, streaming linear discriminant analysis, ridge regression.

One pass, no epochs, independent of the order of the samples; a class is forgotten by dropping its sums, and two
devices' states merge by addition. Rows are solved for when scores are asked for.
"""

from __future__ import annotations

import numpy as np

from bnngen.continual.methods.interface import COUNTER_BYTES, REAL_BYTES, Bytes, Counted, MethodSetting, masked
from bnngen.continual.methods.projection import FeatureMap, pretrained_covariance

Array = np.ndarray
FEW = 2.0  # docs/studies/heads.md, few-shot
Head = tuple[Array, Array]  # rows [P, C], biases [C]


class ClassMeans(Counted):
    """Sums and counts per class of mapped features."""

    def __init__(self, setting: MethodSetting, projections: int = 0) -> None:
        self.map = FeatureMap(setting, projections)
        self.sums = np.zeros((setting.capacity, self.map.size))
        self.counts = np.zeros(setting.capacity)
        self.head: Head | None = None

    def learn(self, x: Array, y: Array) -> None:
        self.accumulate(self.map(x), y)
        self.head = None

    def scores(self, x: Array) -> Array:
        if self.head is None:
            self.head = self.solve()
        rows, bias = self.head
        return masked(self.map(x) @ rows + bias, self.counts > 0)

    def accumulate(self, h: Array, y: Array) -> None:
        np.add.at(self.sums, y, h)
        self.counts += np.bincount(y, minlength=len(self.counts))

    def solve(self) -> Head:
        raise NotImplementedError

    @property
    def means(self) -> Array:
        return self.sums / np.maximum(self.counts, 1)[:, None]

    def memory(self) -> Bytes:
        state = {"class sums": self.sums.size * REAL_BYTES, "samples seen": len(self.counts) * COUNTER_BYTES}
        return Bytes(state, {"one sample": sum(self.sums.shape) * REAL_BYTES}, {"projection": self.map.bytes})


class NearestMean(ClassMeans):
    """The class whose mean is nearest (Euclidean)."""

    def solve(self) -> Head:
        return discriminants(self.means, np.eye(self.map.size))


class FixedCovariance(ClassMeans):
    """Linear discriminants with the within-class covariance of the pre-training classes, shrunk, in flash."""

    def __init__(self, setting: MethodSetting, projections: int = 0) -> None:
        super().__init__(setting, projections)
        self.precision = np.linalg.inv(shrunk(pretrained_covariance(setting, self.map), setting.tuning.shrinkage))

    def solve(self) -> Head:
        return discriminants(self.means, self.precision)

    def memory(self) -> Bytes:
        base = super().memory()
        rows = {"discriminant rows": self.sums.size * REAL_BYTES}
        return Bytes(base.state, base.work | rows, base.constants | {"precision": triangle(self.map.size) * 2})


class StreamingDiscriminant(ClassMeans):
    """Linear discriminant analysis with one within-class covariance for all classes, updated with every sample.

    Kept as the sum of h h^T over all samples: scatter = sum h h^T - sum over classes of n m m^T, the same as
    Hayes and Kanan's running update (2020, arXiv 1909.01520) but independent of the order. blend: the share of
    the pre-training covariance in the one used. Few samples are shrunk more than `tuning.shrinkage`:
    2 P / (2 P + N - C) with N samples of C classes.
    """

    def __init__(self, setting: MethodSetting, projections: int = 0) -> None:
        super().__init__(setting, projections)
        self.tuning = setting.tuning
        self.products = np.zeros((self.map.size, self.map.size))
        self.prior = pretrained_covariance(setting, self.map) if self.tuning.blend else self.products

    def accumulate(self, h: Array, y: Array) -> None:
        super().accumulate(h, y)
        exact = h.astype(np.float64)  # a scatter of nothing is a difference of large sums
        self.products = self.products + exact.T @ exact

    def covariance(self) -> Array:
        """Return the covariance in use, shrunk [P, P]."""
        scatter = self.products - (self.means * self.counts[:, None]).T @ self.means
        freedom = self.counts.sum() - np.count_nonzero(self.counts)
        own, blend = scatter / max(freedom, 1), self.tuning.blend
        amount = max(self.tuning.shrinkage, FEW * self.map.size / (FEW * self.map.size + freedom))
        return shrunk((1 - blend) * own + blend * self.prior, amount)

    def solve(self) -> Head:
        return discriminants(self.means, np.linalg.inv(self.covariance()))

    def memory(self) -> Bytes:
        """Solving by sweeps over the products themselves needs no factor."""
        base, size = super().memory(), triangle(self.map.size)
        prior = {"pre-training covariance": size * 2} if self.tuning.blend else {}
        rows = {"discriminant rows": self.sums.size * REAL_BYTES}
        return Bytes(base.state | {"products": size * REAL_BYTES}, base.work | rows, base.constants | prior)


class RidgeRegression(StreamingDiscriminant):
    """Ridge regression onto one-hot labels from the same sums; penalty: ridge times the mean diagonal."""

    def solve(self) -> Head:
        size = self.map.size
        penalty = self.tuning.ridge * max(np.trace(self.products) / size, 1e-12)
        rows = np.linalg.solve(self.products + penalty * np.eye(size), self.sums.T)
        return rows, np.zeros(len(self.counts))


def fixed_projections(setting: MethodSetting) -> FixedCovariance:
    """Return a fixed covariance over `tuning.projections` random projections."""
    return FixedCovariance(setting, setting.tuning.projections)


def discriminant_projections(setting: MethodSetting) -> StreamingDiscriminant:
    """Return streaming discriminant analysis over `tuning.projections` random projections."""
    return StreamingDiscriminant(setting, setting.tuning.projections)


def ridge_projections(setting: MethodSetting) -> RidgeRegression:
    """Return ridge regression over `tuning.projections` random projections."""
    return RidgeRegression(setting, setting.tuning.projections)


def discriminants(means: Array, precision: Array) -> Head:
    """Return rows P m and biases -m P m / 2: log posteriors at equal priors, up to a constant."""
    rows = precision @ means.T
    return rows, -(rows.T * means).sum(axis=1) / 2


def shrunk(covariance: Array, amount: float) -> Array:
    """Return (1 - amount) S + amount trace(S) / P I (Ledoit and Wolf's target); never singular."""
    size = len(covariance)
    variance = max(np.trace(covariance) / size, 1e-9)  # no variance: the Euclidean distance
    return (1 - amount) * covariance + max(amount, 1e-9) * variance * np.eye(size)


def triangle(size: int) -> int:
    """Return the entries of a symmetric matrix."""
    return size * (size + 1) // 2
