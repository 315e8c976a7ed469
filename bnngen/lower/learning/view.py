# SPDX-License-Identifier: Apache-2.0
"""What the templates of the generated learning files need, ready to print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bnngen.lower.learning.operands import centre
from bnngen.lower.learning.program import LearningProgram
from bnngen.lower.tail_view import tail_part

LEARN_TEMPLATES = {"learn.h.j2": "{m}_learn.h", "learn.c.j2": "{m}_learn.c"}
UNSIGNED = {
    "features", "capacity", "latent_words", "replay_slots", "buffer_slots", "batch", "new_per_batch", "epochs",
    "policy", "consolidation", "t_mult", "hold_every", "hold_slots", "hold_new_slots", "accept_drop", "accept_least",
    "accept_new", "reject", "lead_slots", "components", "mapped", "projection_seed", "shrinkage", "moment_sets",
    "regress", "undo", "x_root",
}  # fmt: skip
STREAM_TYPES = {1: "BNN_S8", 2: "BNN_S16"}
MEMORY_FIELDS = (  # of bnn_learn_memory; those that no part asks for are null
    "past", "cur", "seen", "cw", "tw", "replay_labels", "replay_latents", "buffer_labels", "buffer_latents", "order",
    "dw", "wq", "x", "acc", "hold_seen", "hold_counts", "hold_labels", "hold_latents", "hold_new_labels",
    "hold_new_latents", "leads", "mix_counts", "mix_ones", "latent", "bias", "new_bias", "sums", "new_sums",
    "moments", "new_moments", "factor", "penalty", "vector",
)  # fmt: skip


@dataclass(frozen=True)
class LearnPointer:
    """One field of bnn_learn_memory: its C type and its offset in the model's arena, in bytes."""

    field: str
    type: str
    offset: int


@dataclass(frozen=True)
class LearnView:
    """Context `v` of learn.h.j2 and learn.c.j2.

    m, M: the model's C name, and in capitals. settings: (C name in bnn_learn_config, C expression) in the
    order of the struct. unused: fields of bnn_learn_memory that are null. head, replay: C names of the parts' function
    tables, replay and govern empty where there is none. observes: the head is handed feature vectors. items: state
    items. trained: blocks in front of the head are trained too. centre: what is taken away from the features, or
    nothing. latent_offset: scratch for the latent of the sample being added.
    """

    m: str
    M: str
    abi: int
    capacity: int
    settings: tuple[tuple[str, str], ...]
    pointers: tuple[LearnPointer, ...]
    unused: tuple[str, ...]
    head: str
    replay: str
    govern: str
    observes: bool
    items: int
    trained: bool
    centre: tuple[int, ...]
    latent_offset: int


def learn_view(m: str, learning: LearningProgram, offsets: Mapping[str, int], abi: int = 1) -> LearnView:
    """Return the view for the model with C name `m`. offsets: in the arena, of each of `learn_buffers`."""
    others = {buffer.name for buffer in tail_part(learning.tail).buffers} if learning.tail else set()
    fields = [buffer for buffer in learning.buffers if buffer.name not in others]
    strange = {buffer.name for buffer in fields} - set(MEMORY_FIELDS)
    assert not strange, f"not in bnn_learn_memory: {strange}"
    return LearnView(
        m,
        m.upper(),
        abi,
        learning.capacity,
        tuple((name, _expression(name, value)) for name, value in learning.settings.items()),
        tuple(LearnPointer(buffer.name, buffer.ctype, offsets[buffer.name]) for buffer in fields),
        tuple(name for name in MEMORY_FIELDS if name not in {buffer.name for buffer in fields}),
        learning.head.symbol,
        learning.replay.symbol if learning.replay else "",
        learning.govern.symbol if learning.govern else "",
        learning.head.observes,
        len(learning.items),
        learning.tail is not None,
        centre(learning.sizes),
        offsets["latent"],
    )


def _expression(name: str, value: int) -> str:
    if name == "stream_type":
        return STREAM_TYPES[value]
    return f"{value}{'u' * (name in UNSIGNED)}"
