# SPDX-License-Identifier: Apache-2.0
"""The parts of the trainable tail's twin: constants, block floating point, sums of gradients (docs/numerics.md, 6).

Worked out from the specification alone; nothing is shared with the C or with lower/tail_constants.py but the options.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from bnngen.continual.twin_constants import even, normalise
from bnngen.continual.twin_replay import Pcg32
from bnngen.lower.tail import TailSpec
from bnngen.lower.tail_constants import TailConfig

Array = np.ndarray
VECTOR_BITS, SLOPE_BITS, STEP_BITS, GUARD_BITS = 15, 24, 16, 8
STREAM_LIMIT = 32767
VECTOR_LIMIT, SLOPE_LIMIT = STREAM_LIMIT << VECTOR_BITS, 8 << SLOPE_BITS
SAMPLE_LIMIT = 32767
NOISE_DIGITS = 5  # binary digits of the share of flipped bits
PCG_STEP, PCG_ADD = 6364136223846793005, 1442695040888963407


def shifted(values: Array, shift: int) -> Array:
    """Return v * 2^-shift: exact for a negative shift, else rounded to nearest, ties upwards; shift counts to 62."""
    if shift <= 0:
        return values << -shift
    shift = min(shift, 62)
    return (values + (1 << (shift - 1))) >> shift


def largest(values: Array) -> int:
    """Return max|v|, 0 for nothing."""
    return int(np.abs(values).max(initial=0))


def block_float(values: Array, exponent: int, limit: int) -> tuple[Array, int]:
    """Return mantissas up to `limit` and the largest exponent, not above the given one, that holds the values."""
    top, shift = largest(values), 0
    while int(shifted(np.int64(top), shift)) > limit:
        shift += 1
    return shifted(values, shift), exponent - shift


def product_shift(shift: int) -> int:
    """Return the shift of a step's product, held in 0..62."""
    return min(max(shift, 0), 62)


class VectorSum:
    """int64 sums of one vector's gradient over a minibatch; real = total * 2^-exponent."""

    def __init__(self, channels: int) -> None:
        self.total = np.zeros(channels, np.int64)
        self.exponent: int | None = None

    def add(self, values: Array, exponent: int) -> None:
        """Add a sample's share. Zeros alone change nothing, not even the exponent."""
        if not values.any():
            return
        wanted = exponent + GUARD_BITS
        if self.exponent is None:
            self.exponent = wanted
        elif wanted < self.exponent:
            self.total = shifted(self.total, self.exponent - wanted)
            self.exponent = wanted
        self.total = self.total + shifted(values, exponent - self.exponent)

    def step(self, factor: tuple[int, int]) -> Array:
        """Return the step, factor (mantissa, shift) times the sum."""
        if self.exponent is None:
            return np.zeros_like(self.total)
        values, exponent = block_float(self.total, self.exponent, 2**31 - 1)
        return shifted(values * factor[0], product_shift(exponent + factor[1]))


class FilterSum:
    """Sums [C, 3, 3, C] (out, row, column, in) of a kernel's gradient, in `bits` bits that cannot overflow."""

    def __init__(self, channels: int, bits: int) -> None:
        self.total = np.zeros((channels, 3, 3, channels), np.int64)
        self.limit, self.bound, self.exponent = 2 ** (bits - 1) - 1, 0, 0

    def add(self, gradient: Array, exponent: int, windows: Array) -> None:
        """gradient: [H, W, C] of the accumulators; windows: [H, W, 3, 3, C] of +1, -1 and 0."""
        e = exponent if self.bound == 0 else min(exponent, self.exponent)
        while True:
            part = shifted(gradient, exponent - e)
            most = int(np.abs(part).sum((0, 1)).max())
            before = int(shifted(np.int64(self.bound), self.exponent - e)) if self.bound else 0
            if most <= SAMPLE_LIMIT and before + most <= self.limit:
                break
            e -= 1
        if most == 0:
            return
        if self.bound:
            self.total = shifted(self.total, self.exponent - e)
        self.total = self.total + np.einsum("yxo,yxabi->oabi", part, windows)
        self.bound, self.exponent = before + most, e
        assert np.abs(self.total).max() <= self.bound <= self.limit


class TailNumbers:
    """The constants of section 6.2."""

    def __init__(self, spec: TailSpec, config: TailConfig) -> None:
        x = 14
        while 2 * Fraction(spec.peak) * 2**x > STREAM_LIMIT:
            x -= 1
        self.x = x
        self.gradient_limit = 2 ** (config.q_b - 1) - 1
        self.latent_limit = 2 ** (config.q_bin - 1) - 1
        factors = [Fraction(float(s)) * 2**x for s in spec.cut_scale]
        self.cut_shift = next(s for s in range(46, -1, -1) if max(factors) * 2**s < 2**31 - 1)
        self.cut_mult = np.array([even(f * 2**self.cut_shift) for f in factors], np.int64)
        self.levels = [fixed(v, x, STREAM_LIMIT) for v in (spec.high, spec.low)]  # of bit 0, of bit 1
        self.pool = normalise(Fraction(1, spec.height * spec.width))
        rate = Fraction(config.lr) / config.batch
        self.vector_step = normalise(rate * 2 ** (x + VECTOR_BITS))
        self.slope_step = normalise(rate * 2**SLOPE_BITS)
        latent_rate = Fraction(config.latent_lr) * self.latent_limit * 2**STEP_BITS
        if config.rule == "sgd":
            self.latent_step = normalise(latent_rate / config.batch)
        else:
            self.latent_step = normalise(latent_rate * 9 * spec.channels**2)


def fixed(values: Array, fraction_bits: int, limit: int) -> Array:
    """Return real values as integers with that many fraction bits, nearest, ties to even, held in +-limit."""
    exact = [even(Fraction(float(v)) * 2**fraction_bits) for v in values]
    return np.array([min(max(v, -limit), limit) for v in exact], np.int64)


def draws(rng: Pcg32, count: int) -> Array:
    """Return `count` outputs of the generator at once: its states are s * a^k + c * (1 + a + .. + a^(k-1))."""
    powers = np.multiply.accumulate(np.array([1] + [PCG_STEP] * count, np.uint64))
    sums = np.concatenate([np.zeros(1, np.uint64), np.add.accumulate(powers[:-1])])
    with np.errstate(over="ignore"):
        states = powers * np.uint64(rng.state) + sums * np.uint64(PCG_ADD)
    rng.state = int(states[-1])
    old = states[:-1]
    mixed = (((old >> np.uint64(18)) ^ old) >> np.uint64(27)) & np.uint64(0xFFFFFFFF)
    turn = old >> np.uint64(59)
    left = (np.uint64(32) - turn) & np.uint64(31)
    return (((mixed >> turn) | (mixed << left)) & np.uint64(0xFFFFFFFF)).astype(np.int64)


def bernoulli(words: Array, share: int) -> Array:
    """Return 32 bits for each row of random words [..., NOISE_DIGITS], each bit 1 with probability share / 32: a digit
    1 of `share`, lowest first, takes the probability half of the way to 1, a digit 0 half of the way to 0."""
    chosen = np.zeros_like(words[..., 0])
    for digit in range(NOISE_DIGITS):
        word = words[..., digit]
        chosen = chosen | word if share >> digit & 1 else chosen & word
    return chosen
