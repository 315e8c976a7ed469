# SPDX-License-Identifier: Apache-2.0
"""Gradient heads: CWR*, CWR+ and plain SGD with gradients and weights of q_b bits (docs/numerics.md, 5.2 to 5.7), and
CWR* in float32 (5.13)."""

from __future__ import annotations

from fractions import Fraction

from bnngen.errors import UsageError
from bnngen.lower.learning.config import INT32_END, Buffer, Part, Rule, Sizes, require
from bnngen.lower.learning.operands import mantissa, operand_constants, operand_grid, value_unit

GUARD = 8
LOG2E = Fraction(6497320848556798, 2**52)
CONSOLIDATION = {"cwr": 0, "cwr+": 1, "sgd": 2}  # BNN_LEARN_STAR, _PLUS, _LAST
MOST_WIDE_WEIGHTS = 2**22  # their sum at 8 guard bits, doubled, is below 2^62
FLOAT_LIMIT = 2.0**40  # of a feature and of a learning rate: docs/numerics.md, 5.13


def gradient_head(sizes: Sizes) -> Part:
    """Return the head that `sizes.config` asks for. Raises UsageError for options that cannot work."""
    require(_rules(sizes))
    _, w_max, g_max = _largest(sizes)
    constants = {
        "consolidation": CONSOLIDATION[sizes.config.head],
        "w_max": w_max,
        "g_max": g_max,
        **operand_constants(sizes),
        **_step_constants(sizes),
    }
    symbol = "bnn_head_cwr32" if sizes.config.q_b == 32 else "bnn_head_cwr16"
    return Part(symbol, constants, _buffers(sizes), ("cw", "tw"))


def float_head(sizes: Sizes) -> Part:
    """Return CWR* in float32. Raises UsageError for a learning rate or features far beyond any use."""
    config = sizes.config
    rate = Fraction(config.lr) / config.batch if 0 < config.lr < float("inf") else Fraction(0)
    peak = Fraction(sizes.scale) * 2**15
    far = "a logit or a step could leave the range of float32"
    require(
        [
            (1 / FLOAT_LIMIT < rate < FLOAT_LIMIT, "--learn-rate", config.lr, "a step needs a positive, usual length"),
            (1 / FLOAT_LIMIT < peak < FLOAT_LIMIT, "--head", config.head, far),
            (sizes.features < 2**17, "--head", config.head, far),
        ]
    )
    u_mult, u_shift = mantissa(rate)
    step = {**_float_units(sizes), "u_mult": u_mult, "u_shift": u_shift}
    weights = 4 * sizes.capacity * sizes.features
    buffers = (
        Buffer("cw", weights, "float"),
        Buffer("tw", weights, "float"),
        Buffer("dw", weights, "float", "learn_step"),
        Buffer("wq", 4 * (sizes.capacity + sizes.features), "float", "learn_step"),
    )
    return Part("bnn_head_float", {"consolidation": CONSOLIDATION["cwr"], **step}, buffers, ("cw", "tw"))


def _float_units(sizes: Sizes) -> dict[str, int]:
    """Real value of one unit of what the head reads, and of what is taken away from it, as mantissas."""
    if sizes.map is None:
        x_mult, x_shift = mantissa(Fraction(sizes.scale))
        return {"x_mult": x_mult, "x_shift": x_shift}
    step, _ = operand_grid(sizes)
    x_mult, x_shift = value_unit(sizes, Fraction(1))
    t_mult, t_shift = mantissa(step / 2**16)
    root = int(sizes.map.root)
    return {"x_mult": x_mult, "x_shift": x_shift, "t_mult": t_mult, "t_shift": t_shift, "x_root": root}


def _largest(sizes: Sizes) -> tuple[int, int, int]:
    """Return P, F and L of docs/numerics.md, section 5."""
    q_f, q_b = sizes.config.q_f, sizes.config.q_b
    return 2**q_f - 1, 2 ** (q_f - 1) - 1, 2 ** (q_b - 1) - 1


def _step_constants(sizes: Sizes) -> dict[str, int]:
    """Section 5.3: softmax and step as mantissas, and the exponents of weights that suit both."""
    config = sizes.config
    wide = config.q_b == 32
    step, _ = operand_grid(sizes)
    _, w_max, g_max = _largest(sizes)
    t_mult, t_digits = mantissa(step * LOG2E / w_max)
    u_mult, u_digits = mantissa(Fraction(config.lr) * step / (config.batch * g_max), 14 if wide else 30)
    t_shift, u_shift = t_digits - (47 if wide else 31), u_digits - GUARD
    e_min, e_max = max(u_shift - 62, -t_shift), min(u_shift - 1, 63 - t_shift)
    if e_max - e_min < 24 or (wide and t_shift + e_max < 24):
        raise UsageError(
            f"learning rate {config.lr:g} does not fit features whose largest value is {sizes.hi:g}",
            where="--learn-rate",
            why="no exponent of the weights suits both the step and the softmax",
            fix="choose a learning rate nearer to 0.1",
        )
    return {
        "t_shift": t_shift,
        "t_mult": t_mult,
        "u_shift": u_shift,
        "u_mult": u_mult,
        "e_min": e_min,
        "e_max": e_max,
    }


def _rules(sizes: Sizes) -> list[Rule]:
    """What the options must be together (docs/numerics.md, section 5.6)."""
    config = sizes.config
    p_max, w_max, g_max = _largest(sizes)
    positive = 0 < config.lr < float("inf")
    wide = config.q_b == 32
    gradient = "the gradient of a minibatch is summed in 32 bits"
    mean = f"the mean of {sizes.capacity} x {sizes.features} weights of 32 bits would leave 64 bits"
    logits = f"the sum over {sizes.features} features would leave 32 bits"
    return [
        (positive, "--learn-rate", config.lr, "a step needs a positive, finite length"),
        (config.q_b in (8, 16, 32), "--q-b", config.q_b, "weights and gradients have 8, 16 or 32 bits"),
        (wide or p_max * g_max * config.batch < INT32_END, "--learn-batch", config.batch, gradient),
        (not wide or sizes.capacity * sizes.features <= MOST_WIDE_WEIGHTS, "--q-b", config.q_b, mean),
        (sizes.features * p_max * w_max < INT32_END, "--q-f", config.q_f, logits),
    ]


def _buffers(sizes: Sizes) -> tuple[Buffer, ...]:
    weights = sizes.capacity * sizes.features
    size, weight, gradient = (4, "int32_t", "int64_t") if sizes.config.q_b == 32 else (2, "int16_t", "int32_t")
    return (
        Buffer("cw", size * weights, weight),
        Buffer("tw", size * weights, weight),
        Buffer("dw", 2 * size * weights, gradient, "learn_step"),
        Buffer("wq", weights, "int8_t", "learn_step"),
        Buffer("x", 2 * sizes.features, "int16_t", "learn_step"),
    )
