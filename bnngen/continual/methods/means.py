# SPDX-License-Identifier: Apache-2.0
"""Analytic heads over class means: nearest mean, a fixed covariance, streaming linear discriminant analysis.

One pass, no epochs, independent of the order of the samples; a class is forgotten by dropping its sums, and two
devices' states merge by addition.
"""

from __future__ import annotations

import numpy as np

from bnngen.continual.methods.interface import COUNTER_BYTES, REAL_BYTES, Bytes, Counted, MethodSetting, masked

Array = np.ndarray


class ClassMeans(Counted):
    """Sums and counts per class, of the features or of their square roots (`tuning.root`)."""

    def __init__(self, setting: MethodSetting) -> None:
        self.root = setting.tuning.root
        self.sums = np.zeros((setting.capacity, setting.size))
        self.counts = np.zeros(setting.capacity)

    def learn(self, x: Array, y: Array) -> None:
        np.add.at(self.sums, y, self.inputs(x))
        self.counts += np.bincount(y, minlength=len(self.counts))

    def inputs(self, x: Array) -> Array:
        """Return what is learned from, float64 [N, D]."""
        x = np.asarray(x, np.float64)
        return np.sqrt(np.maximum(x, 0)) if self.root else x

    @property
    def means(self) -> Array:
        return self.sums / np.maximum(self.counts, 1)[:, None]

    def memory(self) -> Bytes:
        state = {"class sums": self.sums.size * REAL_BYTES, "samples seen": len(self.counts) * COUNTER_BYTES}
        return Bytes(state, {"one sample": sum(self.sums.shape) * REAL_BYTES})


class NearestMean(ClassMeans):
    """The class whose mean is nearest (Euclidean)."""

    def scores(self, x: Array) -> Array:
        means = self.means
        return masked(2 * self.inputs(x) @ means.T - (means**2).sum(axis=1), self.counts > 0)


class FixedCovariance(ClassMeans):
    """Linear discriminant with the within-class covariance of the pre-training classes, shrunk, in flash."""

    def __init__(self, setting: MethodSetting) -> None:
        super().__init__(setting)
        covariance = pretrained_covariance(setting, self.inputs)
        self.precision = np.linalg.inv(shrunk(covariance, setting.tuning.shrinkage))

    def scores(self, x: Array) -> Array:
        return masked(discriminants(self.inputs(x), self.means, self.precision), self.counts > 0)

    def memory(self) -> Bytes:
        return Bytes(super().memory().state, super().memory().work, {"precision": triangle(len(self.precision)) * 2})


class StreamingDiscriminant(ClassMeans):
    """Linear discriminant analysis with one within-class covariance for all classes, updated with every sample.

    Kept as the sum of x x^T over all samples: scatter = sum x x^T - sum over classes of n m m^T, the same as
    Hayes and Kanan's running update (2020, arXiv 1909.01520) but independent of the order. blend: the share of
    the pre-training covariance in the one used.
    """

    def __init__(self, setting: MethodSetting) -> None:
        super().__init__(setting)
        self.tuning = setting.tuning
        self.products = np.zeros((setting.size, setting.size))
        blend = self.tuning.blend
        self.prior = pretrained_covariance(setting, self.inputs) if blend else np.zeros_like(self.products)

    def learn(self, x: Array, y: Array) -> None:
        super().learn(x, y)
        self.products += self.inputs(x).T @ self.inputs(x)

    def covariance(self) -> Array:
        """Return the covariance in use, shrunk [D, D]."""
        scatter = self.products - (self.means * self.counts[:, None]).T @ self.means
        own = scatter / max(self.counts.sum() - np.count_nonzero(self.counts), 1)
        blend = self.tuning.blend
        return shrunk((1 - blend) * own + blend * self.prior, self.tuning.shrinkage)

    def scores(self, x: Array) -> Array:
        precision = np.linalg.inv(self.covariance())
        return masked(discriminants(self.inputs(x), self.means, precision), self.counts > 0)

    def memory(self) -> Bytes:
        base, size = super().memory(), len(self.products)
        rows = self.sums.size * REAL_BYTES
        work = base.work | {"factor": triangle(size) * REAL_BYTES, "discriminant rows": rows}
        prior = {"pre-training covariance": triangle(size) * 2} if self.tuning.blend else {}
        return Bytes(base.state | {"products": triangle(size) * REAL_BYTES}, work, prior)


def discriminants(x: Array, means: Array, precision: Array) -> Array:
    """Return x P m - m P m / 2 for each class [N, C]: log posteriors at equal priors, up to a constant."""
    rows = means @ precision
    return x @ rows.T - (rows * means).sum(axis=1) / 2


def shrunk(covariance: Array, amount: float) -> Array:
    """Return (1 - amount) S + amount trace(S) / D I (Ledoit and Wolf's target); never singular."""
    size = len(covariance)
    variance = max(np.trace(covariance) / size, 1e-12)
    return (1 - amount) * covariance + max(amount, 1e-9) * variance * np.eye(size)


def pretrained_covariance(setting: MethodSetting, inputs: object) -> Array:
    """Return the mean within-class covariance of the pre-training features [D, D]."""
    x, y = inputs(setting.pretraining), setting.pretraining_labels  # type: ignore[operator]
    assert y is not None, "the within-class covariance needs the labels of the pre-training features"
    classes, places = np.unique(y, return_inverse=True)
    sums = np.zeros((len(classes), x.shape[1]))
    np.add.at(sums, places, x)
    centred = x - (sums / np.bincount(places)[:, None])[places]
    return centred.T @ centred / max(len(x) - len(classes), 1)


def triangle(size: int) -> int:
    """Return the entries of a symmetric matrix."""
    return size * (size + 1) // 2
