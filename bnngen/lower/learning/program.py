# SPDX-License-Identifier: Apache-2.0
"""A learner put together from its parts: constants in the order of bnn_learn_config, buffers, state items."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.lower.learning.config import Buffer, LearnConfig, Part, Rule, Sizes, require
from bnngen.lower.learning.govern import governing
from bnngen.lower.learning.heads import HEADS
from bnngen.lower.learning.memory import POLICIES, new_samples
from bnngen.lower.tail_constants import TailProgram
from bnngen.lower.tail_view import tail_part

# Fields of bnn_learn_config (bnn/learn.h), in order; those that the parts in use do not set are 0.
CONFIG_FIELDS = (
    "features",
    "capacity",
    "latent_words",
    "replay_slots",
    "buffer_slots",
    "batch",
    "new_per_batch",
    "epochs",
    "stream_type",
    "policy",
    "consolidation",
    "p_max",
    "w_max",
    "g_max",
    "x_lo",
    "x_hi",
    "x_shift",
    "x_mult",
    "t_shift",
    "t_mult",
    "u_shift",
    "u_mult",
    "e_min",
    "e_max",
    "hold_every",
    "hold_slots",
    "hold_new_slots",
    "accept_drop",
    "accept_least",
    "accept_new",
    "reject",
    "lead_slots",
    "components",
    "mapped",
    "projection_seed",
    "phi_shift",
    "phi_max",
    "row_max",
    "row_shift",
    "shrinkage",
    "moment_sets",
    "regress",
    "undo",
    "x_root",
)
STREAM_BYTES = {"s8": 1, "s16": 2}  # BNN_S8, BNN_S16


@dataclass(frozen=True)
class LearningProgram:
    """What a learner is generated from. settings: of bnn_learn_config, by name, all of them. tail: None where the
    network is frozen."""

    config: LearnConfig
    sizes: Sizes
    head: Part
    replay: Part | None
    govern: Part | None
    settings: dict[str, int]
    buffers: tuple[Buffer, ...]
    items: tuple[str, ...]
    tail: TailProgram | None = None

    @property
    def features(self) -> int:
        """D: length of the feature vector."""
        return self.sizes.features

    @property
    def capacity(self) -> int:
        """C: most classes."""
        return self.sizes.capacity

    @property
    def latent_words(self) -> int:
        """32-bit words of a packed latent."""
        return self.sizes.latent_words


def learning_constants(graph: ir.Graph, config: LearnConfig, tail: TailProgram | None = None) -> LearningProgram:
    """Return the learner of an integer graph. tail: its trainable blocks, whose features the head then reads. Raises
    UsageError for options that cannot work, and ModelError for a model without a cut or a head in its metadata."""
    sizes = _sizes(graph, config)
    if tail is not None:
        require(_tail_rules(config))
        plain = graph.meta.head  # features that move have no fixed mean, and the gradient goes through no root
        sizes = replace(sizes, lo=plain.lo, hi=plain.hi, map=None, scale=tail.feature_scale, stream_type="s16")
    require(_rules(sizes))
    head = HEADS[config.head](sizes)
    replay = POLICIES[config.policy](sizes) if config.replay and not head.observes else None
    fresh = None if head.observes else new_samples(sizes)
    stored = replay is not None and "replay labels" in replay.items
    govern = governing(sizes, stored, fresh is not None)
    trained = None if tail is None else tail_part(tail)
    parts = [part for part in (head, replay, fresh, govern, trained) if part is not None]
    return LearningProgram(
        config,
        sizes,
        head,
        replay,
        govern,
        _settings(sizes, parts),
        (*_counters(sizes), *(buffer for part in parts for buffer in part.buffers), *_scratch(sizes)),
        ("state", "past", "cur", "seen", *(item for part in parts for item in part.items)),
        tail,
    )


def _sizes(graph: ir.Graph, config: LearnConfig) -> Sizes:
    head, cut = graph.meta.head, graph.meta.latent
    if head is None or cut is None:
        raise ModelError(
            "this model cannot learn on the device",
            where=f"model {graph.meta.name}",
            why="its metadata names no latent cut or no input of the learned head",
            fix="export it again with `bnngen export --cut`",
        )
    features, latent = graph.tensors[head.tensor], graph.tensors[cut.tensor]
    words = latent.size // latent.channels * -(-latent.channels // 32)
    capacity = head.capacity if config.capacity is None else config.capacity
    lo, hi = (head.lo, head.hi) if head.map is None else (head.map.lo, head.map.hi)
    stream = features.uniform_scale, features.dtype
    return Sizes(config, features.size, capacity, words, lo, hi, *stream, head.map)


def _rules(sizes: Sizes) -> list[Rule]:
    """What each option must be by itself, whatever the head."""
    config = sizes.config
    slots = "slots are numbered in 16 bits"
    part = f"it is a part of the minibatch of {config.batch}"
    return [
        (config.head in HEADS, "--head", config.head, f"known heads: {', '.join(HEADS)}"),
        (4 <= config.q_f <= 8, "--q-f", config.q_f, "forward operands have 4 to 8 bits"),
        (2 <= sizes.capacity <= 16384, "--capacity", sizes.capacity, "a head has 2 to 16384 classes"),
        (0 <= config.replay <= 65535, "--replay", config.replay, slots),
        (1 <= config.buffer <= 65535, "--buffer", config.buffer, f"{slots}, and none at all is no buffer"),
        (1 <= config.batch <= 256, "--learn-batch", config.batch, "a minibatch has 1 to 256 samples"),
        (1 <= config.epochs <= 1000, "--learn-epochs", config.epochs, "an experience has 1 to 1000 epochs"),
        (config.policy in POLICIES, "--policy", config.policy, f"known policies: {', '.join(POLICIES)}"),
        (0 <= config.new_per_batch <= config.batch, "--new-per-batch", config.new_per_batch, part),
    ]


def _tail_rules(config: LearnConfig) -> list[Rule]:
    """What trained blocks ask of the head: gradients that go on to them, in 32-bit sums."""
    heads = ("cwr", "cwr+", "sgd")
    trained = f"with --tail {config.tail} the head hands its gradient on"
    return [
        (config.head in heads, "--head", config.head, f"{trained}: {', '.join(heads)}"),
        (config.q_b in (8, 16), "--q-b", config.q_b, f"{trained}, in 8 or 16 bits"),
        (0 <= config.tail_noise < 32, "--tail-noise", config.tail_noise, "it counts 32nds of a latent's bits, 0 to 31"),
    ]


def _settings(sizes: Sizes, parts: list[Part]) -> dict[str, int]:
    """All fields of bnn_learn_config."""
    config = sizes.config
    common = {
        "features": sizes.features,
        "capacity": sizes.capacity,
        "latent_words": sizes.latent_words,
        "replay_slots": config.replay,
        "buffer_slots": config.buffer,
        "batch": config.batch,
        "new_per_batch": config.new_per_batch,
        "epochs": config.epochs,
        "stream_type": STREAM_BYTES[sizes.stream_type],
    }
    values = common | {name: value for part in parts for name, value in part.constants.items()}
    unknown = set(values) - set(CONFIG_FIELDS)
    assert not unknown, f"not in bnn_learn_config: {unknown}"
    return {name: values.get(name, 0) for name in CONFIG_FIELDS}


def _counters(sizes: Sizes) -> tuple[Buffer, ...]:
    return tuple(Buffer(name, 4 * sizes.capacity, "uint32_t") for name in ("past", "cur", "seen"))


def _scratch(sizes: Sizes) -> tuple[Buffer, ...]:
    """`latent` holds the sample being added, and in a step of a generative memory the one that was drawn."""
    return (
        Buffer("acc", 4 * sizes.capacity, "int32_t", "learn_step"),
        Buffer("latent", 4 * sizes.latent_words, "uint32_t", "learn_step"),
    )


def learn_buffers(program: LearningProgram) -> list[tuple[str, int, int, str]]:
    """Return (name, bytes, alignment, kind) of every buffer, as plan.LearnBuffer takes them."""
    return [(buffer.name, buffer.bytes, buffer.align, buffer.kind) for buffer in program.buffers]
