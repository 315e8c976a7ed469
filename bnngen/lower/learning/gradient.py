# SPDX-License-Identifier: Apache-2.0
"""Gradient heads: CWR*, CWR+ and plain SGD with gradients and weights of q_b bits (docs/numerics.md, 5.2 to 5.7)."""

from __future__ import annotations

from fractions import Fraction

from bnngen.errors import UsageError
from bnngen.lower.learning.config import INT32_END, Buffer, Part, Rule, Sizes, require
from bnngen.lower.learning.operands import mantissa, operand_constants, operand_grid

GUARD = 8
LOG2E = Fraction(6497320848556798, 2**52)
CONSOLIDATION = {"cwr": 0, "cwr+": 1, "sgd": 2}  # BNN_LEARN_STAR, _PLUS, _LAST


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
    return Part("bnn_head_cwr16", constants, _buffers(sizes), ("cw", "tw"))


def _largest(sizes: Sizes) -> tuple[int, int, int]:
    """Return P, F and L of docs/numerics.md, section 5."""
    q_f, q_b = sizes.config.q_f, sizes.config.q_b
    return 2**q_f - 1, 2 ** (q_f - 1) - 1, 2 ** (q_b - 1) - 1


def _step_constants(sizes: Sizes) -> dict[str, int]:
    """Section 5.3: softmax and step as mantissas, and the exponents of weights that suit both."""
    config = sizes.config
    step, _ = operand_grid(sizes)
    _, w_max, g_max = _largest(sizes)
    t_mult, t_digits = mantissa(step * LOG2E / w_max)
    u_mult, u_digits = mantissa(Fraction(config.lr) * step / (config.batch * g_max))
    t_shift, u_shift = t_digits - 31, u_digits - GUARD
    e_min, e_max = max(u_shift - 62, -t_shift), min(u_shift - 1, 63 - t_shift)
    if e_max - e_min < 24:
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
    gradient = "the gradient of a minibatch is summed in 32 bits"
    logits = f"the sum over {sizes.features} features would leave 32 bits"
    return [
        (positive, "--learn-rate", config.lr, "a step needs a positive, finite length"),
        (config.q_b in (8, 16), "--q-b", config.q_b, "weights and gradients have 8 or 16 bits"),
        (p_max * g_max * config.batch < INT32_END, "--learn-batch", config.batch, gradient),
        (sizes.features * p_max * w_max < INT32_END, "--q-f", config.q_f, logits),
    ]


def _buffers(sizes: Sizes) -> tuple[Buffer, ...]:
    weights = sizes.capacity * sizes.features
    return (
        Buffer("cw", 2 * weights, "int16_t"),
        Buffer("tw", 2 * weights, "int16_t"),
        Buffer("dw", 4 * weights, "int32_t", "learn_step"),
        Buffer("wq", weights, "int8_t", "learn_step"),
        Buffer("x", 2 * sizes.features, "int16_t", "learn_step"),
    )
