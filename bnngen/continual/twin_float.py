# SPDX-License-Identifier: Apache-2.0
"""The twin of the float32 reference head (docs/numerics.md, 5.13): each operation in float32, in the device's order."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from bnngen.continual.twin_constants import head_values, normalise, root_mantissa, twin_constants
from bnngen.ir import HeadInput
from bnngen.lower.learning import LearnConfig

Array = np.ndarray
F = np.float32
HALF, ONE = F(0.5), F(1)
LIMIT = F(2.0**40)
LEAST = F(-87)


def running_sum(values: Array) -> Array:
    """Return sums over the last axis, each term added to the sum of those in front of it."""
    start = np.zeros((*values.shape[:-1], 1), F)
    return np.cumsum(np.concatenate([start, values], axis=-1), axis=-1, dtype=F)[..., -1]


def exponential(x: Array) -> Array:
    """Return e^x of values <= 0, 0 below -87."""
    usual = np.maximum(x, LEAST)
    n = (usual * F(-1.44269504) + HALF).astype(np.int32)
    r = (usual + n.astype(F) * F(0.693359375)) - n.astype(F) * F(2.12194440e-4)
    total = np.ones_like(r)
    for k in range(7, 0, -1):
        total = ONE + r * total / F(k)
    return np.where(x < LEAST, F(0), np.ldexp(total, -n))


def square_root(v: Array) -> Array:
    """Return roots by Newton's rule, from above until it no longer falls."""
    v = np.asarray(v)
    if (v <= 0).any():
        return np.where(v <= 0, F(0), square_root(np.where(v <= 0, ONE, v)))
    root = np.maximum(v, ONE)
    while ((following := HALF * (root + v / root)) < root).any():
        root = np.minimum(root, following)
    return root


class FloatHead:
    """Rows cw answer, rows tw are in training; arguments as those of CwrHead. Features of type int8 are an s8 stream,
    all others s16: only the scale of the scores depends on it."""

    names = ("cw", "tw")
    observes = False
    exponents = (0, 0)

    def __init__(self, head: HeadInput, scale: float, shape: tuple[int, int], config: LearnConfig) -> None:
        self.map, self.centre = head.map, None
        self.unit, self.peak = self._real(Fraction(scale)), normalise(Fraction(scale))
        if head.map is not None:
            k = twin_constants(head, scale, (config.q_f, 16), (config.lr, config.batch))
            grid = (Fraction(head.map.hi) - Fraction(head.map.lo)) / k.p
            self.peak = root_mantissa(Fraction(scale) / 2**16) if head.map.root else normalise(Fraction(scale))
            self.unit = np.ldexp(F(self.peak[0]), -self.peak[1])
            self.centre = self._real(grid / 2**16) * k.centre.astype(F)
        self.rate = self._real(Fraction(config.lr) / config.batch)
        self.cw, self.tw, self.dw = (np.zeros(shape, F) for _ in range(3))

    @staticmethod
    def _real(value: Fraction) -> np.float32:
        m, s = normalise(value)
        return np.ldexp(F(m), -s)

    def prepare(self, cur: Array) -> None:
        """Start training from the rows of the classes present."""
        self.tw = np.where(cur[:, None] > 0, self.cw, F(0))

    def inputs(self, stream: Array) -> Array:
        """Return what the rows multiply, float32 [n, D]."""
        root = self.map is not None and self.map.root
        values = self.unit * head_values(np.asarray(stream, np.int64), root).astype(F)
        return values - (F(0) if self.centre is None else self.centre)

    def logits(self, stream: Array, rows: Array) -> Array:
        """Return float32 [n, C]."""
        return running_sum(self.inputs(stream)[:, None, :] * rows)

    def train(self, features: Array, labels: Array) -> None:
        """One minibatch: stream features [n, D], labels [n]."""
        z = self.logits(features, self.tw)
        p = exponential(z - z.max(axis=1, keepdims=True))
        p = p / running_sum(p)[:, None]
        p[np.arange(len(labels)), labels] -= ONE
        dw = np.zeros_like(self.tw)
        for x, g in zip(self.inputs(features), p, strict=True):
            dw += x * g[:, None]
        self.tw = np.clip(self.tw - self.rate * dw, -LIMIT, LIMIT)

    def propose(self, past: Array, cur: Array) -> None:
        """Make the trained rows those that would answer."""
        present = cur > 0
        sums = np.where(present, running_sum(self.tw), F(0))
        mean = running_sum(sums) / (F(present.sum()) * F(self.tw.shape[1]))
        w = square_root(past.astype(F) / np.maximum(cur, 1).astype(F))[:, None]
        merged = np.clip((w * self.cw + (self.tw - mean)) / (w + ONE), -LIMIT, LIMIT)
        self.tw = np.where(present[:, None], merged, self.cw)

    def commit(self) -> None:
        """The trained rows answer from now on."""
        self.cw = self.tw.copy()

    def abandon(self) -> None:
        """The open experience is dropped: nothing to do, the kept rows were not touched."""

    def forget(self, label: int) -> None:
        """Clear the class's row."""
        self.cw[label] = 0

    def scores(self, stream: Array, trained: bool = False) -> Array:
        """Return int64 [n, C] for stream features [n, D], of the kept rows or of those in training."""
        stream = np.asarray(stream)
        rows = self.tw if trained else self.cw
        bits = 7 if stream.dtype == np.int8 else 15
        if self.centre is not None:
            bits = 17 if self.map is not None and self.map.root else bits + 1
        m, s = self.peak
        limit = np.ldexp(np.abs(rows).max() * F(rows.shape[1]) * F(m), bits - s)
        up = 0 if limit == 0 else 30 - int(np.frexp(limit)[1])
        v = np.ldexp(self.logits(stream, rows), up)
        return np.where(v < 0, v - HALF, v + HALF).astype(np.int64)

    def items(self) -> list[bytes]:
        """Return the head's state items."""
        return [self.cw.astype("<f4").tobytes(), self.tw.astype("<f4").tobytes()]
