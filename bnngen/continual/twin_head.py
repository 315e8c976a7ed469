# SPDX-License-Identifier: Apache-2.0
"""The twin's gradient head: CWR*, CWR+ and plain SGD (docs/numerics.md, sections 5.1 to 5.7).

A head of the twin has the methods of `Head` in twin.py.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor, isqrt

import numpy as np

from bnngen.continual.twin_constants import GUARD_BITS, twin_constants
from bnngen.ir import HeadInput
from bnngen.lower.learning import LearnConfig

Array = np.ndarray


def rshift(values: Array, shift: int) -> Array:
    """Return floor(v / 2^shift + 1/2) of int64 values."""
    return values if shift == 0 else (values + (1 << (shift - 1))) >> shift


class CwrHead:
    """Rows cw answer, rows tw are in training. head, scale: the metadata's head input and the scale of the features."""

    names = ("cw", "tw")
    observes = False

    def __init__(self, head: HeadInput, scale: float, shape: tuple[int, int], config: LearnConfig) -> None:
        self.kind, self.width = config.head, "<i4" if config.q_b > 16 else "<i2"
        self.k = twin_constants(head, scale, (config.q_f, config.q_b), (config.lr, config.batch))
        self.cw, self.tw = (np.zeros(shape, np.int64) for _ in range(2))
        self.cw_exp = self.tw_exp = self.k.e_max

    @property
    def exponents(self) -> tuple[int, int]:
        """Those of tw and cw."""
        return self.tw_exp, self.cw_exp

    def prepare(self, cur: Array) -> None:
        """Start training from the rows of the classes present; where nothing is consolidated, from all."""
        kept = np.ones(len(cur), bool) if self.kind == "sgd" else cur > 0
        self.tw = np.where(kept[:, None], self.cw, 0)
        self.tw_exp = self.cw_exp if self.tw.any() else self.k.e_max

    def operands(self, stream: Array) -> Array:
        """Return x of 5.1 for stream values [n, D]."""
        return self.k.operands(stream)

    def forward_weights(self, weights: Array) -> tuple[Array, int]:
        """Return (Wq, R) of 5.2."""
        r = int(np.abs(weights).max())
        return (np.zeros_like(weights) if r == 0 else (2 * self.k.f * weights + r) // (2 * r)), r

    def softmax(self, acc: Array, r: int, e: int) -> Array:
        """Return p of 5.4 for logits [n, C]."""
        u = acc.max(axis=1, keepdims=True) - acc
        scale = self.k.t_mult * r >> self.k.cut
        shift = self.k.t_shift + e
        product = u.astype(np.uint64) * np.uint64(scale)
        t = np.minimum(product >> np.uint64(shift), np.uint64(18 << 16)).astype(np.int64)
        exponential = self.exponential(t)
        total = exponential.sum(axis=1, keepdims=True)
        return (2 * self.k.p * exponential + total) // (2 * total)

    def exponential(self, t: Array) -> Array:
        """Return E of 5.4 for t in 0 .. 18 * 2^16."""
        n, i, f = t >> 16, t >> 10 & 63, t & 1023
        lower, upper = self.k.table[i], self.k.table[i + 1]
        value = lower - ((lower - upper) * f + 512 >> 10)
        return np.where(n == 18, 0, (2 * value + (1 << n)) >> (n + 1))

    def gradient(self, acc: Array, labels: Array, r: int, e: int) -> Array:
        """Return g of 5.5."""
        difference = self.softmax(acc, r, e)
        difference[np.arange(len(labels)), labels] -= self.k.p
        return (2 * difference * self.k.l + self.k.p) // (2 * self.k.p)

    def train(self, features: Array, labels: Array) -> None:
        """One minibatch: stream features [n, D], labels [n]."""
        x = self.operands(features)
        wq, r = self.forward_weights(self.tw)
        g = self.gradient(x @ wq.T, labels, r, self.tw_exp)
        dw = g.T @ x
        step = rshift(dw * self.k.u_mult, self.k.u_shift - self.tw_exp)
        self.tw, self.tw_exp = self._store((self.tw << GUARD_BITS) - step, self.tw_exp + GUARD_BITS, 0)

    def feature_gradient(self, features: Array, label: int) -> tuple[Array, int]:
        """Return (dx [D], exponent) of 6.11 for one sample, features [D], by the rows in training."""
        wq, r = self.forward_weights(self.tw)
        g = self.gradient(self.operands(features[None]) @ wq.T, np.array([label]), r, self.tw_exp)[0]
        one = Fraction(1, self.k.f * self.k.l)
        shift = next(s for s in range(14, 60) if 2**14 <= one * 2**s < 2**15)
        v = (g @ wq) * (r * floor(one * 2**shift + Fraction(1, 2)))
        least = next(s for s in range(60) if rshift(np.abs(v).max(), s) < 2**31)
        return rshift(v, least), self.tw_exp + shift - least

    def _store(self, values: Array, exponent: int, least: int) -> tuple[Array, int]:
        """Store values of the given exponent by 5.2; return (mantissas, exponent)."""
        largest = np.abs(values).max()
        if largest == 0:
            return values, self.k.e_max
        candidates = range(max(least, exponent - self.k.e_max), exponent - self.k.e_min + 1)
        shift = next((s for s in candidates if rshift(largest, s) <= self.k.l), candidates[-1])
        return np.clip(rshift(values, shift), -self.k.l, self.k.l), exponent - shift

    def propose(self, past: Array, cur: Array) -> None:
        """Make the trained rows those that would answer."""
        if self.kind == "sgd":
            return
        present = cur > 0
        rows = self.tw[present]
        mean = (2 * (int(rows.sum()) << GUARD_BITS) + rows.size) // (2 * rows.size)
        common = min(self.cw_exp, self.tw_exp) + GUARD_BITS
        trained = rshift((self.tw << GUARD_BITS) - mean, self.tw_exp + GUARD_BITS - common)
        old = rshift(self.cw << GUARD_BITS, self.cw_exp + GUARD_BITS - common)
        share = np.array([[self._share(int(p), int(n))] for p, n in zip(past, cur, strict=True)], np.int64)
        values = old * share + trained * ((1 << self.k.share) - share)
        self.tw, self.tw_exp = self._store(values, common + self.k.share, self.k.share)

    def _share(self, past: int, cur: int) -> int:
        if cur == 0:
            return 1 << self.k.share
        w = 0 if self.kind == "cwr+" else isqrt((past << 32) // cur)
        return (w << self.k.share) // (w + (1 << 16))

    def commit(self) -> None:
        """The trained rows answer from now on."""
        self.cw, self.cw_exp = self.tw.copy(), self.tw_exp

    def abandon(self) -> None:
        """The open experience is dropped: nothing to do, the kept rows were not touched."""

    def forget(self, label: int) -> None:
        """Clear the class's row."""
        self.cw[label] = 0

    def scores(self, stream: Array, trained: bool = False) -> Array:
        """Return int64 [n, C] for stream features [n, D], of the kept rows or of those in training."""
        return self.operands(stream) @ self.forward_weights(self.tw if trained else self.cw)[0].T

    def items(self) -> list[bytes]:
        """Return the head's state items."""
        return [self.cw.astype(self.width).tobytes(), self.tw.astype(self.width).tobytes()]
