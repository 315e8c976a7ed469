# SPDX-License-Identifier: Apache-2.0
"""What the learning runtime is generated from: its options, its fixed-point constants, its buffers.

Every constant is computed in exact rational arithmetic from the model's metadata (docs/numerics.md,
section 5). The NumPy twin (continual/twin.py) computes the same values on its own; nothing here is shared
with it but the options.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from bnngen import ir
from bnngen.errors import ModelError, UsageError

POLICIES = ("balanced", "random")  # place in this list = BNN_LEARN_* in bnn/learn.h
GUARD = 8
LOG2E = Fraction(6497320848556798, 2**52)
INT32_END = 2**31


@dataclass(frozen=True)
class LearnConfig:
    """Options of the learned head (docs/numerics.md, section 5; lr in real units).

    capacity: most classes; None takes the model's. new_per_batch: of `batch` samples, how many are new once
    there is something to replay; 0: in proportion to the classes. buffer, replay: slots for latents of the
    present and of past experiences.
    """

    capacity: int | None = None
    q_f: int = 8
    q_b: int = 16
    replay: int = 300
    buffer: int = 300
    batch: int = 64
    new_per_batch: int = 0
    epochs: int = 12
    lr: float = 0.1
    policy: str = "balanced"


@dataclass(frozen=True)
class LearningProgram:
    """The constants of `bnn_learn_config` under its names, and the options they came from."""

    config: LearnConfig
    features: int
    capacity: int
    latent_words: int
    stream_type: str
    p_max: int
    w_max: int
    g_max: int
    x_lo: int
    x_hi: int
    x_shift: int
    x_mult: int
    t_shift: int
    t_mult: int
    u_shift: int
    u_mult: int
    e_min: int
    e_max: int


def learning_constants(graph: ir.Graph, config: LearnConfig) -> LearningProgram:
    """Return the constants of a head on an integer graph. Raises UsageError for options that cannot work, and
    ModelError for a model without a cut or a head in its metadata."""
    head, cut = graph.meta.head, graph.meta.latent
    if head is None or cut is None:
        raise ModelError(
            "this model cannot learn on the device",
            where=f"model {graph.meta.name}",
            why="its metadata names no latent cut or no input of the learned head",
            fix="export it again with `bnngen export --cut`",
        )
    features, latent = graph.tensors[head.tensor], graph.tensors[cut.tensor]
    capacity = head.capacity if config.capacity is None else config.capacity
    check_options(config, capacity, features.size)
    step, zero = operand_grid(head, _largest(config)[0])
    return LearningProgram(
        config=config,
        features=features.size,
        capacity=capacity,
        latent_words=latent.size // latent.channels * -(-latent.channels // 32),
        stream_type=features.dtype,
        **_operand_constants(config, Fraction(features.uniform_scale), step, zero),
        **_step_constants(config, head, step),
    )


def _largest(config: LearnConfig) -> tuple[int, int, int]:
    """Return P, F and L of docs/numerics.md, section 5."""
    return 2**config.q_f - 1, 2 ** (config.q_f - 1) - 1, 2 ** (config.q_b - 1) - 1


def _operand_constants(config: LearnConfig, scale: Fraction, step: Fraction, zero: int) -> dict[str, int]:
    """Sections 5.1 and 5.2: the sizes of operands, and the rule that makes them of stream values."""
    p_max, w_max, g_max = _largest(config)
    x_mult, x_shift = _affine(scale / step)
    return {
        "p_max": p_max,
        "w_max": w_max,
        "g_max": g_max,
        "x_lo": -zero,
        "x_hi": p_max - zero,
        "x_shift": x_shift,
        "x_mult": x_mult,
    }


def _step_constants(config: LearnConfig, head: ir.HeadInput, step: Fraction) -> dict[str, int]:
    """Section 5.3: softmax and step as mantissas, and the exponents of weights that suit both."""
    _, w_max, g_max = _largest(config)
    t_mult, t_digits = _mantissa(step * LOG2E / w_max)
    u_mult, u_digits = _mantissa(Fraction(config.lr) * step / (config.batch * g_max))
    t_shift, u_shift = t_digits - 31, u_digits - GUARD
    e_min, e_max = max(u_shift - 62, -t_shift), min(u_shift - 1, 63 - t_shift)
    if e_max - e_min < 24:
        raise UsageError(
            f"learning rate {config.lr:g} does not fit features whose largest value is {head.hi:g}",
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


def check_options(config: LearnConfig, capacity: int, features: int) -> None:
    """Raise UsageError naming the first option of the command line that cannot work."""
    _require(_single_rules(config, capacity))
    _require(_joint_rules(config, features))  # sizes are small numbers now


Rule = tuple[bool, str, object, str]  # it holds; option of the command line, its value; why it must


def _single_rules(config: LearnConfig, capacity: int) -> list[Rule]:
    """What each option must be by itself."""
    slots = "slots are numbered in 16 bits, and none at all is no memory"
    positive = 0 < config.lr < float("inf")
    return [
        (4 <= config.q_f <= 8, "--q-f", config.q_f, "forward operands have 4 to 8 bits"),
        (config.q_b in (8, 16), "--q-b", config.q_b, "weights and gradients have 8 or 16 bits"),
        (2 <= capacity <= 16384, "--capacity", capacity, "a head has 2 to 16384 classes"),
        (1 <= config.replay <= 65535, "--replay", config.replay, slots),
        (1 <= config.buffer <= 65535, "--buffer", config.buffer, slots),
        (1 <= config.batch <= 256, "--learn-batch", config.batch, "a minibatch has 1 to 256 samples"),
        (1 <= config.epochs <= 1000, "--learn-epochs", config.epochs, "an experience has 1 to 1000 epochs"),
        (positive, "--learn-rate", config.lr, "a step needs a positive, finite length"),
        (config.policy in POLICIES, "--policy", config.policy, f"known policies: {', '.join(POLICIES)}"),
    ]


def _joint_rules(config: LearnConfig, features: int) -> list[Rule]:
    """What options must be together (docs/numerics.md, section 5.6)."""
    p_max, w_max, g_max = _largest(config)
    part = f"it is a part of the minibatch of {config.batch}"
    gradient = "the gradient of a minibatch is summed in 32 bits"
    logits = f"the sum over {features} features would leave 32 bits"
    return [
        (0 <= config.new_per_batch <= config.batch, "--new-per-batch", config.new_per_batch, part),
        (p_max * g_max * config.batch < INT32_END, "--learn-batch", config.batch, gradient),
        (features * p_max * w_max < INT32_END, "--q-f", config.q_f, logits),
    ]


def _require(rules: list[Rule]) -> None:
    for holds, option, value, why in rules:
        if not holds:
            raise UsageError(
                f"{option} {value} is not possible",
                where=option,
                why=why,
                fix="choose another value; the defaults are in docs/numerics.md, section 5",
            )


def learn_buffers(program: LearningProgram) -> list[tuple[str, int, int, str]]:
    """Return (name, bytes, alignment, kind) of every buffer of `bnn_learn_memory`, and of `latent`.

    kind "persistent" keeps its contents between all calls. "learn_step" is used only while an image is added,
    learned or scored: it may share bytes with buffers that only `front` uses, but not with what pack, unpack
    or tail touch, nor with the feature tensor.
    """
    config, weights = program.config, program.capacity * program.features
    latent = 4 * program.latent_words
    kept = [
        ("past", 4 * program.capacity),
        ("cur", 4 * program.capacity),
        ("seen", 4 * program.capacity),
        ("cw", 2 * weights),
        ("tw", 2 * weights),
        ("replay_labels", 2 * config.replay),
        ("replay_latents", latent * config.replay),
        ("buffer_labels", 2 * config.buffer),
        ("buffer_latents", latent * config.buffer),
        ("order", 2 * config.buffer),
    ]
    step = [
        ("dw", 4 * weights),
        ("wq", weights),
        ("x", 2 * program.features),
        ("acc", 4 * program.capacity),
        ("latent", latent),
    ]
    return [(name, size, 8, "persistent") for name, size in kept] + [
        (name, size, 8, "learn_step") for name, size in step
    ]


def operand_grid(head: ir.HeadInput, p_max: int) -> tuple[Fraction, int]:
    """Return (step, zero point) of the head's operands, for `p_max` steps over a range that contains 0."""
    lo, hi = min(Fraction(head.lo), Fraction(0)), max(Fraction(head.hi), Fraction(0))
    if lo == hi:
        hi = Fraction(1)
    step = (hi - lo) / p_max
    return step, round(-lo / step)


def _affine(factor: Fraction) -> tuple[int, int]:
    """Return (mult, shift) of the Affine rule for one factor."""
    shift = 30
    while factor * 2**shift >= INT32_END - 1:
        shift -= 1
        if shift < 0:
            raise ModelError(
                "the features are far larger than the range of the learned head",
                why="their calibrated range does not fit their scale",
                fix="export the model again with a calibration sample",
            )
    return round(factor * 2**shift), shift


def _mantissa(value: Fraction) -> tuple[int, int]:
    """Return (m, s) with value = m * 2^-s nearly, 2^30 <= m < 2^31."""
    digits = 30 + value.denominator.bit_length() - value.numerator.bit_length()
    if value * Fraction(2) ** digits < 2**30:  # it lies above 2^29 and below 2^31
        digits += 1
    mantissa = round(value * Fraction(2) ** digits)
    return (mantissa, digits) if mantissa < 2**31 else (2**30, digits - 1)
