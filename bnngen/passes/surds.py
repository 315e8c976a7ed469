# SPDX-License-Identifier: Apache-2.0
"""Exact numbers with square roots: rationals, and sums of rationals times square roots of integers.

A batch norm divides by sqrt(v). Whether its value lies below a cut must not depend on how that root is
rounded, also where several batch norms follow one another and values such as a + b sqrt(u) + c sqrt(v) + d sqrt(u v)
arise. A `Field` writes every root over radicands no product of which is a square. Roots of such products are linearly
independent over the rationals (Besicovitch, 1940), so a number is 0 only if all its coefficients are, and the sign of
any other is found by narrowing an interval until 0 lies outside.
"""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

Surd = dict[int, Fraction]  # bit mask of radicands -> coefficient of the root of their product


class Field:
    """The radicands met so far; bit i of a mask is radicand i."""

    def __init__(self) -> None:
        self.radicands: list[int] = []

    def root(self, value: Fraction) -> Surd:
        """Return sqrt(value), value > 0."""
        number, below = value.numerator * value.denominator, value.denominator  # sqrt(p / q) = sqrt(p q) / q
        for mask in range(1 << len(self.radicands)):
            product = self.product(mask)
            root = isqrt(number * product)
            if root * root == number * product:
                return {mask: Fraction(root, below * product)}
        self.radicands.append(number)
        return {1 << (len(self.radicands) - 1): Fraction(1, below)}

    def product(self, mask: int) -> int:
        """Return the product of the radicands in the mask; 1 for none."""
        result = 1
        for index, radicand in enumerate(self.radicands):
            if mask >> index & 1:
                result *= radicand
        return result

    def times(self, a: Surd, b: Surd) -> Surd:
        """Return a * b."""
        result: Surd = {}
        for i, x in a.items():
            for j, y in b.items():
                result[i ^ j] = result.get(i ^ j, Fraction(0)) + x * y * self.product(i & j)
        return result

    def sign(self, value: Surd) -> int:
        """Return -1, 0 or 1."""
        terms = {mask: factor for mask, factor in value.items() if factor}
        if not terms:
            return 0
        bits = 64
        while True:
            low = high = Fraction(0)
            for mask, factor in terms.items():
                floor = isqrt(self.product(mask) << 2 * bits)
                ends = (factor * floor, factor * (floor + (mask != 0)))
                low, high = low + min(ends), high + max(ends)
            if low > 0 or high < 0:
                return 1 if low > 0 else -1
            bits *= 2


def plus(a: Surd, b: Surd) -> Surd:
    """Return a + b."""
    return {mask: a.get(mask, Fraction(0)) + b.get(mask, Fraction(0)) for mask in a | b}


def rational(value: float | Fraction) -> Surd:
    """Return a rational number, exactly."""
    return {0: Fraction(value)}
