# SPDX-License-Identifier: Apache-2.0
"""What every reference method offers, what it is made from, and how its memory is counted.

Methods learn from features: float32 [N, D], what the device's integer backbone computes as real numbers. They
are NumPy floating point, single process, deterministic for a seed, and bit-exact to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from bnngen.continual.methods.levels import Levels
from bnngen.lower.learning import LearnConfig

Array = np.ndarray
LABEL_BYTES, COUNTER_BYTES, REAL_BYTES = 2, 4, 4  # as in runtime_c/include/bnn/learn.h; a real number is a float32


class Method(Protocol):
    """One way to learn from a stream of features.

    learn: one experience, features float32 [N, D] and labels int [N]; classes may return. scores: float32
    [N, capacity], the largest wins, -inf for classes never seen. state_bytes: what must survive between
    experiences. peak_bytes: the most RAM alive at once while learning, state included. Constants known before
    deployment (levels, projections, a pre-trained covariance) lie in flash: constant_bytes.
    """

    def learn(self, x: Array, y: Array) -> None: ...
    def scores(self, x: Array) -> Array: ...
    @property
    def state_bytes(self) -> int: ...
    @property
    def peak_bytes(self) -> int: ...
    @property
    def constant_bytes(self) -> int: ...


@dataclass(frozen=True)
class Tuning:
    """Options of the methods beside those of `LearnConfig`; which method reads which: METHODS.

    bits: of an element of a latent (1, 2, 4, 8; 32: float). spacing: of its levels, "quantile" or "uniform".
    centre: gradient heads read (sqrt(x) - mean) / scale of the pre-training features instead of x.
    components: Bernoulli components of a class; pseudo: most samples that a class of a generative memory counts for
    in the consolidation. root: analytic heads learn from square roots of the features. shrinkage: of a covariance
    towards its mean variance. blend: share of the pre-training covariance. projections, activation ("relu" or
    "sign"), threshold ("median" or "zero"), raw (features beside them): of random projections. ridge: penalty, times
    the mean diagonal of the Gram matrix. subspace: how many principal axes analytic heads work in (0: no projection).
    neighbours: k.
    """

    bits: int = 1
    spacing: str = "quantile"
    centre: bool = False
    components: int = 4
    pseudo: int = 400
    root: bool = True
    shrinkage: float = 0.05
    blend: float = 0.0
    projections: int = 256
    activation: str = "relu"
    threshold: str = "median"
    raw: bool = True
    ridge: float = 0.03
    subspace: int = 0
    neighbours: int = 3


@dataclass(frozen=True)
class MethodSetting:
    """What a method is made from.

    capacity: most classes. size: D. pretraining: features float32 [N, D] of images the backbone was pre-trained
    on, the only source of levels, thresholds and covariances; pretraining_labels int [N] where the within-class
    covariance is asked for. levels: given ones (a model's metadata) instead of calibrated ones. config: the
    head's options (buffer, replay, batch, new_per_batch, epochs, lr, policy).
    """

    capacity: int
    size: int
    pretraining: Array | None = None
    pretraining_labels: Array | None = None
    levels: Levels | None = None
    config: LearnConfig = field(default_factory=LearnConfig)
    tuning: Tuning = field(default_factory=Tuning)
    seed: int = 0


Factory = Callable[[MethodSetting], Method]


@dataclass
class Bytes:
    """Itemised memory: what survives, what only learning needs, what lies in flash; bytes by name."""

    state: dict[str, int] = field(default_factory=dict)
    work: dict[str, int] = field(default_factory=dict)
    constants: dict[str, int] = field(default_factory=dict)


class Counted:
    """Totals of a method's itemised memory."""

    def memory(self) -> Bytes:
        raise NotImplementedError

    @property
    def state_bytes(self) -> int:
        return sum(self.memory().state.values())

    @property
    def peak_bytes(self) -> int:
        return self.state_bytes + sum(self.memory().work.values())

    @property
    def constant_bytes(self) -> int:
        return sum(self.memory().constants.values())


def masked(scores: Array, seen: Array) -> Array:
    """Return scores with -inf for classes never seen."""
    return np.where(seen, scores, -np.inf).astype(np.float32)


def softmax(z: Array) -> Array:
    """Return the softmax over the last axis."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
