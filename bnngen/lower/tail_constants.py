# SPDX-License-Identifier: Apache-2.0
"""What the trainable tail is generated from: its options, its integers, its buffers (docs/numerics.md, section 6).

Every constant is computed in exact rational arithmetic. The NumPy twin (continual/twin_tail.py) computes the same
values on its own; nothing here is shared with it but the options.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from bnngen.errors import ModelError, UsageError
from bnngen.lower.tail import TailBlock, TailSpec

RULES = ("sgd", "scaled")  # place in this list = BNN_TAIL_* in bnn/tail.h
STREAM_MAX = 32767
VECTOR_BITS = 15
SLOPE_BITS = 24
STEP_BITS = 16
MOST_BLOCKS = 8


@dataclass(frozen=True)
class TailConfig:
    """Options of the trainable tail; rates in real units.

    q_bin: bits of a latent weight (8, 16); q_b: of gradients between operations; sum_bits: of a latent's gradient sum
    over a minibatch (16, 32). rule: how latents move. "sgd": latent_lr * gradient / batch. "scaled": the same
    direction, at the length at which the mean |step| of a kernel is latent_lr. lr: of all vectors, plain SGD.
    """

    lr: float = 0.03
    latent_lr: float = 0.0005
    rule: str = "scaled"
    batch: int = 64
    q_bin: int = 8
    q_b: int = 16
    sum_bits: int = 16


@dataclass(frozen=True, eq=False)
class TailBlockNumbers:
    """One block as `bnn_tail_block` has it. latent: int8 [C][3][3][C] (in, row, column, out); vectors: int32 [n][C] in
    the order of `names`."""

    latent: np.ndarray
    vectors: np.ndarray
    names: tuple[str, ...]
    pad: int
    relu: bool


@dataclass(frozen=True, eq=False)
class TailProgram:
    """The numbers of `bnn_tail_config` under its names, the description and the options they came from.

    exponent: of the stream and of the features, real = q * 2^-exponent: the head's operands are worked out for
    features of type s16 with scale 2^-exponent (`feature_scale`).
    """

    spec: TailSpec
    config: TailConfig
    exponent: int
    g_max: int
    cut_mult: np.ndarray  # int32 [C]
    cut_shift: int
    low: np.ndarray  # int16 [C]
    high: np.ndarray
    pool_mult: int
    pool_shift: int
    w_mult: int
    w_shift: int
    v_mult: int
    v_shift: int
    s_mult: int
    s_shift: int
    blocks: tuple[TailBlockNumbers, ...]

    @property
    def feature_scale(self) -> float:
        """The scale of the features, a power of two."""
        return 2.0**-self.exponent

    @property
    def words(self) -> int:
        """32-bit words of a packed pixel."""
        return -(-self.spec.channels // 32)


def tail_constants(spec: TailSpec, config: TailConfig) -> TailProgram:
    """Return the numbers of a tail. Raises UsageError for options, ModelError for a tail, that cannot work."""
    check_tail(spec, config)
    x = _stream_exponent(spec)
    cut_mult, cut_shift = _cut_rule(spec, x)
    pool_mult, pool_shift = mantissa(Fraction(1, spec.height * spec.width))
    w_mult, w_shift = mantissa(_latent_rate(spec, config))
    v_mult, v_shift = mantissa(Fraction(config.lr) * 2 ** (x + VECTOR_BITS) / config.batch)
    s_mult, s_shift = mantissa(Fraction(config.lr) * 2**SLOPE_BITS / config.batch)
    return TailProgram(
        spec=spec,
        config=config,
        exponent=x,
        g_max=2 ** (config.q_b - 1) - 1,
        cut_mult=cut_mult,
        cut_shift=cut_shift,
        low=_rounded(spec.low, x, STREAM_MAX).astype(np.int16),
        high=_rounded(spec.high, x, STREAM_MAX).astype(np.int16),
        pool_mult=pool_mult,
        pool_shift=pool_shift,
        w_mult=w_mult,
        w_shift=w_shift,
        v_mult=v_mult,
        v_shift=v_shift,
        s_mult=s_mult,
        s_shift=s_shift,
        blocks=tuple(_block_numbers(block, x) for block in spec.blocks),
    )


def _stream_exponent(spec: TailSpec) -> int:
    """Return the largest exponent, at most 14, that leaves the calibrated range a factor of 2 of headroom."""
    exponent = 14
    while Fraction(spec.peak) * 2 ** (exponent + 1) > STREAM_MAX:
        exponent -= 1
    return exponent


def _cut_rule(spec: TailSpec, x: int) -> tuple[np.ndarray, int]:
    factors = [Fraction(float(scale)) * 2**x for scale in spec.cut_scale]
    shift = 46
    while shift > 0 and max(factors) * 2**shift >= 2**31 - 1:
        shift -= 1
    return np.array([round(f * 2**shift) for f in factors], np.int64).astype(np.int32), shift


def _latent_rate(spec: TailSpec, config: TailConfig) -> Fraction:
    """Return the factor of a latent's step in 2^-16 units of a latent, before the gradient's own exponent."""
    unit = Fraction(config.latent_lr) * (2 ** (config.q_bin - 1) - 1) * 2**STEP_BITS
    return unit / config.batch if config.rule == "sgd" else unit * 9 * spec.channels**2


def _block_numbers(block: TailBlock, x: int) -> TailBlockNumbers:
    stream = {"scale": block.scale, "bias": block.bias}
    if block.shift is not None:
        stream["shift"] = block.shift
    if block.after is not None:
        stream |= {"before": block.after.before, "slope": block.after.slope, "behind": block.after.behind}
    rows = []
    for name, values in stream.items():
        bits, limit = (SLOPE_BITS, 8) if name == "slope" else (x + VECTOR_BITS, STREAM_MAX)
        rows.append(_rounded(values, bits, limit << (SLOPE_BITS if name == "slope" else VECTOR_BITS)))
    latent = np.maximum(block.latent.astype(np.int16), -127).astype(np.int8)
    laid_out = np.ascontiguousarray(latent.transpose(3, 1, 2, 0))
    return TailBlockNumbers(laid_out, np.array(rows, np.int32), tuple(stream), int(block.pad), bool(block.relu))


def _rounded(values: np.ndarray, bits: int, limit: int) -> np.ndarray:
    return np.array([max(-limit, min(limit, round(Fraction(float(v)) * 2**bits))) for v in values], np.int64)


def mantissa(value: Fraction) -> tuple[int, int]:
    """Return (m, s) with value = m * 2^-s nearly, 2^30 <= m < 2^31 (section 5.3)."""
    digits = 30 + value.denominator.bit_length() - value.numerator.bit_length()
    if value * Fraction(2) ** digits < 2**30:  # it lies above 2^29 and below 2^31
        digits += 1
    m = round(value * Fraction(2) ** digits)
    return (m, digits) if m < 2**31 else (2**30, digits - 1)


def check_tail(spec: TailSpec, config: TailConfig) -> None:
    """Raise UsageError for the first option, or ModelError for the first fact, outside the bounds of section 6.8."""
    for holds, option, value, why in _option_rules(config):
        if not holds:
            fix = "choose another value; the defaults are in docs/numerics.md, section 6"
            raise UsageError(f"{option} {value} is not possible", where=option, why=why, fix=fix)
    for holds, why in _model_rules(spec):
        if not holds:
            fix = "train fewer blocks, or cut the network nearer to its head"
            raise ModelError("this tail cannot be trained on the device", where=f"cut {spec.cut}", why=why, fix=fix)


def _option_rules(config: TailConfig) -> list[tuple[bool, str, object, str]]:
    """Options by their names on the command line; sum_bits and rule are not to be had there."""
    rate = "a step needs a positive, finite length, at most 1024"
    return [
        (config.q_bin in (8, 16), "--q-bin", config.q_bin, "latent weights have 8 or 16 bits"),
        (config.q_b in (8, 16), "--q-b", config.q_b, "gradients have 8 or 16 bits"),
        (config.sum_bits in (16, 32), "sum_bits", config.sum_bits, "sums of gradients have 16 or 32 bits"),
        (config.rule in RULES, "rule", config.rule, f"known rules: {', '.join(RULES)}"),
        (1 <= config.batch <= 256, "--learn-batch", config.batch, "a minibatch has 1 to 256 samples"),
        (2**-40 <= config.lr <= 1024, "--tail-rate", config.lr, rate),
        (2**-40 <= config.latent_lr <= 1024, "--latent-rate", config.latent_lr, rate),
    ]


def _model_rules(spec: TailSpec) -> list[tuple[bool, str]]:
    scales = np.asarray(spec.cut_scale, np.float64)
    shapes = (spec.channels, 3, 3, spec.channels)
    finite = [v for b in spec.blocks for v in (b.scale, b.bias, b.shift) if v is not None]
    finite += [v for b in spec.blocks if b.after for v in (b.after.before, b.after.slope, b.after.behind)]
    return [
        (1 <= len(spec.blocks) <= MOST_BLOCKS, f"a tail has 1 to {MOST_BLOCKS} blocks"),
        (1 <= spec.channels <= 1024, "it has more than 1024 channels: sums have bounds for that"),
        (1 <= spec.height * spec.width <= 4096, "its map has more than 4096 pixels: sums have bounds for that"),
        (all(b.latent.shape == shapes and b.pad in (0, 1) for b in spec.blocks), "a kernel is not [C][3][3][C]"),
        (0 < spec.peak <= STREAM_MAX / 2, "the calibrated range of its stream is not in 0 .. 16383"),
        (bool((scales > 0).all()) and float(scales.max()) < 2**15, "the scale of its cut is not positive"),
        (all(np.isfinite(v).all() for v in [*finite, spec.low, spec.high]), "one of its parameters is not finite"),
    ]


def tail_buffers(spec: TailSpec, config: TailConfig) -> list[tuple[str, int, int, str]]:
    """Return (name, bytes, alignment, kind) of every buffer of `bnn_tail_memory`; kinds as in lower/learning.py.

    With n blocks, P pixels, C channels, w = ceil(C / 32) words and V vectors in all (2 a block, 3 with a shift, 3 more
    with an RPReLU): persistent 2 * (n * 9C^2 * q_bin/8 + n * 9C * 4w + 4VC), the rest during a step.
    """
    blocks, channels, pixels = len(spec.blocks), spec.channels, spec.height * spec.width
    words = -(-channels // 32)
    weights = blocks * 9 * channels**2
    vectors = channels * sum(2 + (b.shift is not None) + 3 * (b.after is not None) for b in spec.blocks)
    kept = [("latents", weights * config.q_bin // 8), ("signs", blocks * 9 * channels * 4 * words)]
    kept += [("vectors", 4 * vectors)]
    step = [
        ("sums", weights * config.sum_bits // 8),
        ("vector_sums", 8 * vectors),
        ("bits", blocks * pixels * 4 * words),
        ("masks", blocks * pixels * 4 * words),
        ("alive", pixels * 4 * words if spec.relu else 0),
        ("stream", 2 * pixels * channels),
        ("features", 2 * channels),
        ("gradient", 2 * pixels * channels),
        ("inner", 2 * pixels * channels),
        ("wide", 4 * pixels * channels),
        ("row", 2 * 9 * channels),
        ("lane", 2 * channels),
        ("total", 8 * channels),
    ]
    persistent = [(f"{copy}_{name}", size) for copy in ("committed", "training") for name, size in kept]
    return [(name, size, 8, "persistent") for name, size in persistent] + [
        (name, size, 8, "learn_step") for name, size in step
    ]
