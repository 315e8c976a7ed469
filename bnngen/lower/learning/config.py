# SPDX-License-Identifier: Apache-2.0
"""The options of a learner, and the error that a wrong one ends in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bnngen.errors import UsageError
from bnngen.ir import HeadMap

INT32_END = 2**31


@dataclass(frozen=True)
class LearnConfig:
    """Options of the learner (docs/numerics.md, section 5; lr in real units).

    head: a name of heads.HEADS. capacity: most classes; None takes the model's. new_per_batch: of `batch` samples, how
    many are new once there is something to replay; 0: in proportion to the classes. buffer, replay: slots for
    latents of the present and of past experiences; replay 0: no replay memory. policy: a name of memory.POLICIES.
    components: of a class, in a generative memory, whose `replay` is the number of samples that it stands for.
    tail: how many residual blocks in front of the features are trained too, 0: none; tail_lr, latent_lr: step lengths
    of their vectors and of their latent weights, which have q_bin bits; tail_noise: 32nds of a drawn latent's bits that
    are flipped while they train (section 6).
    hold_every: in an experience, every so manyth sample of a class is held back, 0: none; hold, hold_new: slots for
    held-back latents of past experiences and of the present one. accept_drop, accept_least, accept_new: the rule by
    which an experience is taken over, in percentage points and percent. reject: percent of known samples that the
    threshold on the unknown would reject, 0: no threshold (section 5.12).
    Analytic heads (section 5.11). projections: how many random ones the head reads beside the features;
    projection_seed: of their signs. shrinkage: share of a multiple of the identity in the scatter; of ridge
    regression, the penalty relative to the mean diagonal. None takes the head's own value. exact_forget: second
    moments by class, so that a forgotten class leaves nothing behind. undo: sums of the open experience apart, so
    that it can be dropped.
    """

    head: str = "cwr"
    capacity: int | None = None
    q_f: int = 8
    q_b: int = 16
    replay: int = 300
    buffer: int = 300
    batch: int = 64
    new_per_batch: int = 0
    epochs: int = 6
    lr: float = 0.4
    policy: str = "balanced"
    components: int = 4
    tail: int = 0
    tail_lr: float = 0.03
    latent_lr: float = 0.0005
    tail_noise: int = 3
    q_bin: int = 8
    hold_every: int = 0
    hold: int = 100
    hold_new: int = 100
    accept_drop: int = 100
    accept_least: int = 0
    accept_new: int = 40
    reject: int = 0
    projections: int | None = None
    projection_seed: int = 1
    shrinkage: float | None = None
    exact_forget: bool = False
    undo: bool = True


@dataclass(frozen=True)
class Sizes:
    """What the parts of a learner are sized and scaled by.

    features: D. capacity: most classes. latent_words: 32-bit words of a packed latent. lo, hi: calibrated range of what
    the head reads, scale: real value of one unit of the feature stream, stream_type: "s8" or "s16". map: of the
    features, None where the head reads them as they are.
    """

    config: LearnConfig
    features: int
    capacity: int
    latent_words: int
    lo: float
    hi: float
    scale: float
    stream_type: str
    map: HeadMap | None = None


@dataclass(frozen=True)
class Buffer:
    """One array of bnn_learn_memory. ctype: of its elements. kind "persistent" keeps its contents between all calls;
    "learn_step" is used only while an image is added, learned or scored: it may share bytes with buffers that only
    `front` uses, but not with what pack, unpack or tail touch, nor with the feature tensor."""

    name: str
    bytes: int
    ctype: str
    kind: str = "persistent"
    align: int = 8


@dataclass(frozen=True)
class Part:
    """A head or a replay memory as the generator sees it.

    symbol: its table of functions in C. constants: values of bnn_learn_config. items: names of its state items, in the
    order of its function `items`.
    """

    symbol: str
    constants: dict[str, int]
    buffers: tuple[Buffer, ...]
    items: tuple[str, ...]
    observes: bool = False


Rule = tuple[bool, str, object, str]  # it holds; option of the command line, its value; why it must


def require(rules: Iterable[Rule]) -> None:
    """Raise UsageError for the first rule that does not hold."""
    for holds, option, value, why in rules:
        if not holds:
            raise UsageError(
                f"{option} {value} is not possible",
                where=option,
                why=why,
                fix="choose another value; the defaults are in docs/numerics.md, section 5",
            )
