# SPDX-License-Identifier: Apache-2.0
"""The twin's analytic heads (docs/numerics.md, section 5.11): sums of samples, and rows solved from them.

A head of the twin has the methods of `Head` in twin.py; those that observe have `observe`, `start`, `solve` and
`fresh` besides.
"""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

import numpy as np

from bnngen.continual.twin_constants import even, twin_constants
from bnngen.continual.twin_head import rshift
from bnngen.continual.twin_replay import Pcg32
from bnngen.ir import HeadInput
from bnngen.lower.learning import LearnConfig

Array = np.ndarray
OK, E_STATE, E_RANGE = 0, -4, -5
SUM_LIMIT = 2**31 - 1
ONE = 1 << 15  # of an element of the factor


def scaled(values: Array, shift: Array | int) -> Array:
    """Return v * 2^-shift to nearest, ties towards +infinity; limited to 2^60 where it grows."""
    left = np.maximum(-np.asarray(shift), 0)
    right = np.clip(shift, 0, 62)
    limit = np.int64(1) << (60 - left)
    grown = np.clip(values, -limit, limit) << left
    return np.where(right == 0, grown, (values + (np.int64(1) << np.maximum(right, 1) - 1)) >> right)


def bits(value: int) -> int:
    """Return the binary digits of a magnitude."""
    return int(value).bit_length()


class MeanHead:
    """Nearest class mean; the base of the others."""

    observes = True

    def __init__(self, head: HeadInput, scale: float, shape: tuple[int, int], config: LearnConfig) -> None:
        self.capacity, self.size = shape
        self.config, self.kind = config, config.head
        self.k = twin_constants(head, scale, (config.q_f, config.q_b), (config.lr, config.batch))
        projections = {"ridge": 256}.get(self.kind, 0) if config.projections is None else config.projections
        self.signs = random_signs(config.projection_seed, (projections, self.size))
        self.phi_shift = max(0, (bits(self.size) - 1) // 2 - (8 - config.q_f))
        self.mapped = projections + self.size
        largest = max(255 * (projections > 0), self.k.zero, self.k.p - self.k.zero)
        self.row_max = min(2**15 - 1, 2**30 // (largest * self.mapped))
        self.mean_bits = next(f for f in range(15, -1, -1) if largest << f <= self.row_max)
        self.cw, self.tw = (np.zeros((self.capacity, self.mapped), np.int64) for _ in range(2))
        self.bias, self.new_bias = (np.zeros(self.capacity, np.int64) for _ in range(2))
        self.sums = np.zeros((2, self.capacity, self.mapped), np.int64)  # kept, new
        self.cw_exp = self.tw_exp = self.mean_bits
        self.counts = np.zeros(self.capacity, np.int64)  # past and present
        self.past = np.zeros(self.capacity, np.int64)

    @property
    def exponents(self) -> tuple[int, int]:
        """Those of tw and cw."""
        return self.tw_exp, self.cw_exp

    # ------------------------------------------------------------------------------------ samples

    def map(self, stream: Array) -> Array:
        """Return phi of stream values [n, D]: operands, and projections of them."""
        x = self.k.operands(stream)
        return np.hstack([x, np.clip(rshift(x @ self.signs.T, self.phi_shift), 0, 255)])

    def fits(self, phi: Array, label: int) -> bool:
        """Tell whether the sums have room for a sample."""
        new = self.sums[1, label] + phi
        return bool((np.abs(new) <= SUM_LIMIT).all() and (np.abs(new + self.sums[0, label]) <= SUM_LIMIT).all())

    def observe(self, stream: Array, label: int, count: int) -> int:
        """Add a sample, stream [D]; count: samples of its class so far."""
        phi = self.map(stream[None])[0]
        if count >= SUM_LIMIT or not self.fits(phi, label):
            return E_RANGE
        self.collect(phi, label)
        return OK

    def collect(self, phi: Array, label: int) -> None:
        self.sums[1, label] += phi

    # --------------------------------------------------------------------------------------- rows

    def start(self, counts: Array) -> int:
        """Take the samples of each class, new ones included; return how many steps follow."""
        self.counts = counts
        return self.capacity

    def solve(self, step: int) -> None:
        """Do one step."""
        self.tw[step] = np.clip(rshift(self.means[step], 16 - self.mean_bits), -self.row_max, self.row_max)

    @property
    def means(self) -> Array:
        """Class means with 16 fraction bits, 0 for classes without samples."""
        n = np.maximum(self.counts, 1)[:, None]
        means = np.clip(((self.sums.sum(axis=0) << 16) + n // 2) // n, -(2**24), 2**24)
        return np.where(self.counts[:, None] > 0, means, 0)

    def propose(self, past: Array, cur: Array) -> None:
        self.tw_exp = self.mean_bits
        self.new_bias = self.biases()

    def biases(self) -> Array:
        return -np.clip(rshift((self.tw * self.means).sum(axis=1), 17), -(2**30), 2**30)

    def commit(self) -> None:
        self.cw, self.bias, self.cw_exp = self.tw.copy(), self.new_bias.copy(), self.tw_exp
        self.past = self.counts.copy()
        for kept, new in self.accumulators():
            kept += new
            new[:] = 0

    def abandon(self) -> None:
        for _, new in self.accumulators():
            new[:] = 0

    def accumulators(self) -> list[tuple[Array, Array]]:
        """Kept sums and those of the open experience, which both are additive."""
        return [(self.sums[0], self.sums[1])]

    def forget(self, label: int) -> None:
        """Drop a class."""
        self.cw[label] = self.bias[label] = self.sums[0, label] = self.past[label] = 0

    def merge(self, name: str, first: int, values: Array) -> bool:
        """Add another learner's sums to item `name`; False: there is no room for them, or no such item."""
        if name not in ("sums", "moments"):
            return False
        kept, new = self.accumulators()[name == "moments"]
        added = self.stored(new).copy()  # of a triangle it is a copy anyway
        rule = (-SUM_LIMIT, self.config.undo)
        if not merged(self.stored(kept).reshape(-1), added.reshape(-1), (first, values), rule):
            return False
        self.store(new, added)
        return True

    def store(self, values: Array, stored: Array) -> None:
        """Turn back what `stored` returned."""
        values[:] = stored

    def scores(self, stream: Array, trained: bool = False) -> Array:
        """Return the scores [n, C] for stream values [n, D]."""
        rows, bias = (self.tw, self.new_bias) if trained else (self.cw, self.bias)
        return self.map(stream) @ rows.T + bias

    # -------------------------------------------------------------------------------------- items

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the state items."""
        return ("cw", "tw", "bias", "new bias", *(name for name, _ in self.sums_by_name()))

    def sums_by_name(self) -> list[tuple[str, Array]]:
        """Additive items as they are stored; without undo the kept ones hold the new ones too."""
        found = []
        for name, pair in zip(("sums", "moments"), self.accumulators(), strict=False):
            kept, new = (self.stored(values) for values in pair)
            found += [(name, kept), (f"new {name}", new)] if self.config.undo else [(name, kept + new)]
        return found

    def stored(self, values: Array) -> Array:
        """Return accumulators as they lie in memory."""
        return values

    def items(self) -> list[bytes]:
        rows = [array.astype("<i2").tobytes() for array in (self.cw, self.tw)]
        biases = [array.astype("<i4").tobytes() for array in (self.bias, self.new_bias)]
        return [*rows, *biases, *(array.astype("<i4").tobytes() for _, array in self.sums_by_name())]


class MomentHead(MeanHead):
    """Linear discriminants, or ridge regression, from second moments."""

    def __init__(self, head: HeadInput, scale: float, shape: tuple[int, int], config: LearnConfig) -> None:
        super().__init__(head, scale, shape, config)
        self.regress = self.kind == "ridge"
        share = {True: 0.03, False: 0.05}[self.regress] if config.shrinkage is None else config.shrinkage
        self.share = even((Fraction(share) if self.regress else Fraction(share) / (1 - Fraction(share))) * 4096)
        sets = self.capacity if config.exact_forget else 1
        self.moments = np.zeros((2, sets, self.mapped, self.mapped), np.int64)
        self.triangle = np.tril_indices(self.mapped)
        self.cw_exp = self.tw_exp = 0
        self.factor = self.scales = np.zeros(0, np.int64)

    def fits(self, phi: Array, label: int) -> bool:
        diagonal = np.diagonal(self.moments.sum(axis=(0, 1)))
        return super().fits(phi, label) and bool((diagonal + phi**2 <= SUM_LIMIT).all())

    def collect(self, phi: Array, label: int) -> None:
        super().collect(phi, label)
        self.moments[1, label if self.config.exact_forget else 0] += np.outer(phi, phi)

    def accumulators(self) -> list[tuple[Array, Array]]:
        return [*super().accumulators(), (self.moments[0], self.moments[1])]

    def stored(self, values: Array) -> Array:
        return values if values.ndim == 2 else values[:, self.triangle[0], self.triangle[1]]

    def store(self, values: Array, stored: Array) -> None:
        if values.ndim == 2:
            values[:] = stored
            return
        values[:, self.triangle[0], self.triangle[1]] = stored
        values[:, self.triangle[1], self.triangle[0]] = stored

    def scatter(self) -> Array:
        """Return the scatter within the classes [n, n], 16 fraction bits, lower triangle."""
        total = self.moments.sum(axis=(0, 1)) << 16
        if not self.regress:
            total = total - self.means.T @ self.sums.sum(axis=0)
        limit = 1 << 47
        return np.clip(total, -limit, limit)

    def penalty(self, trace: int) -> int:
        """Return what is added to the diagonal."""
        freedom = max(1, int(np.maximum(self.counts - 1, 0).sum()))
        few = 0 if self.regress else 2 * trace // freedom
        return max(1, trace // self.mapped * self.share >> 12, few)

    def start(self, counts: Array) -> int:
        super().start(counts)
        matrix = self.scatter()
        diagonal = np.maximum(np.diagonal(matrix), 0)
        diagonal = diagonal + self.penalty(int(diagonal.sum()))
        scales = np.array([max(1, (bits(value) + 1) // 2) for value in diagonal], np.int64)
        self.scales = np.maximum(scales, scales.max() - 24)
        np.fill_diagonal(matrix, diagonal)
        matrix = scaled(matrix, self.scales[:, None] + self.scales - 30)
        self.factor = cholesky(np.clip(matrix, -(1 << 30), 1 << 30))
        self.tw_exp = 127
        return self.mapped + self.capacity

    def solve(self, step: int) -> None:
        c = step - self.mapped
        if c >= 0:
            self.tw[c] = 0
            if self.counts[c]:
                self.solve_row(c)

    def solve_row(self, c: int) -> None:
        weights = self.scales.max() - self.scales
        side = (self.sums[:, c].sum(axis=0) if self.regress else self.means[c]) << weights
        shift = bits(np.abs(side).max()) - 22
        row = triangular(self.factor, scaled(side, shift)) << weights
        largest = np.abs(row).max()
        if largest == 0:
            return
        store = next(s for s in range(-31, 63) if scaled(largest, s) <= self.row_max)
        exponent = -(store + shift)
        if exponent < self.tw_exp:
            self.tw[:c] = scaled(self.tw[:c], self.tw_exp - exponent)
            self.tw_exp = exponent
        self.tw[c] = np.clip(scaled(row, -self.tw_exp - shift), -self.row_max, self.row_max)

    def propose(self, past: Array, cur: Array) -> None:
        if not self.regress:
            self.new_bias = self.biases()

    def forget(self, label: int) -> None:
        count = int(self.past[label])
        if self.config.exact_forget:
            self.moments[0, label] = 0
        elif count and not self.regress:
            s = self.sums[0, label]
            part = np.outer(s, s)
            self.moments[0, 0] -= (part + count // 2) // count
        super().forget(label)


def merged(kept: Array, new: Array, piece: tuple[int, Array], rule: tuple[int, bool]) -> bool:
    """Add a piece (first element, values) to the sums `new`; False, and nothing is added, where it does not fit.

    rule: least value of a sum, and whether new sums are kept apart from the old ones.
    """
    (first, values), (least, apart) = piece, rule
    if first + len(values) > len(new):
        return False
    place = slice(first, first + len(values))
    total = kept[place] + new[place] + values
    alone = new[place] + values if apart else total
    if not all(((least <= v) & (v <= SUM_LIMIT)).all() for v in (alone, total)):
        return False
    new[place] += values
    return True


def random_signs(seed: int, shape: tuple[int, int]) -> Array:
    """Return +-1 [P, D]: PCG32 words, a row begins with a new one; a 1 bit is -1."""
    random, (rows, columns) = Pcg32(seed), shape
    words = -(-columns // 32)
    drawn = np.array([random.next() for _ in range(rows * words)], np.int64).reshape(rows, words, 1) >> np.arange(32)
    return 1 - 2 * (drawn & 1).reshape(rows, words * 32)[:, :columns]


def cholesky(matrix: Array) -> Array:
    """Return L [n, n] with 15 fraction bits of a matrix with 30, column by column; the lower triangle is read."""
    factor = np.zeros_like(matrix)
    for j in range(len(matrix)):
        rest = matrix[j:, j] - factor[j:, :j] @ factor[j, :j]
        pivot = isqrt(int(np.clip(rest[0], 0, 2**30 - 1)))
        factor[j, j] = min(max(pivot, 128), ONE - 1)
        below = (np.clip(rest[1:], -(2**30), 2**30) + factor[j, j] // 2) // factor[j, j]
        factor[j + 1 :, j] = np.clip(below, 1 - ONE, ONE - 1)
    return factor


def triangular(factor: Array, side: Array) -> Array:
    """Return the solution of L L^T x = side [n], integers, saturating at 2^36."""
    limit = 1 << 36
    x = side.copy()
    for order, lower in ((range(len(x)), True), (range(len(x) - 1, -1, -1), False)):
        for i in order:
            known = factor[i, :i] @ x[:i] if lower else factor[i + 1 :, i] @ x[i + 1 :]
            pivot = int(factor[i, i])
            quotient = (int(x[i]) * ONE - int(known) + pivot // 2) // pivot
            x[i] = min(max(quotient, -limit), limit)
    return x
