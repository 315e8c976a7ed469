# SPDX-License-Identifier: Apache-2.0
"""What ends a kernel: rules from integer accumulators to stored integers or bits (docs/numerics.md, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from bnngen.ir.tensor import Array


@dataclass(frozen=True, eq=False)
class Affine:
    """Integer epilogue: q = clamp((clamp(acc, acc_lo, acc_hi) * mult[c] + bias[c]) >> shift, lo, hi).

    `>>` is the arithmetic shift (floor); the rounding half is already inside `bias`. mult is int32 and
    bias int64, one per output channel; the products are exact (docs/numerics.md, "Affine").
    """

    mult: Array
    bias: Array
    shift: int
    lo: int
    hi: int
    acc_lo: int = -(2**31)
    acc_hi: int = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Threshold:
    """Binary epilogue: the output bit is 1 (value -1) exactly when (acc < level[c]) differs from flip[c]."""

    level: Array
    flip: Array


@dataclass(frozen=True, eq=False)
class Piecewise:
    """Two affine rules joined at a knot: below it `below`, from it on `above` (docs/numerics.md, "Piecewise").

    q = clamp((x * mult[c] + bias[c]) >> shift, lo, hi) with the mult and bias of `below` where x < knot[c], of
    `above` elsewhere. Both rules have the same shift, lo and hi, and no limits on the accumulator.
    """

    knot: Array
    below: Affine
    above: Affine


@dataclass(frozen=True, eq=False)
class Steps:
    """Quantizer of several levels: q = first + the number of cuts passed (docs/numerics.md, "Steps").

    level: integers [C, n], ascending in each row. Passed is every cut with acc >= level[c][i]; where down[c] is 1 the
    chain falls with the accumulator, and passed is every cut with acc < level[c][i].
    """

    level: Array
    down: Array
    first: int


Epilogue = Affine | Threshold | Piecewise | Steps
