# SPDX-License-Identifier: Apache-2.0
"""What the templates of the generated learning files need, ready to print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bnngen.lower.learning import POLICIES, LearningProgram, learn_buffers

LEARN_TEMPLATES = {"learn.h.j2": "{m}_learn.h", "learn.c.j2": "{m}_learn.c"}
CONSTANTS = (
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
)
POINTER_TYPES = {
    "past": "uint32_t",
    "cur": "uint32_t",
    "seen": "uint32_t",
    "cw": "int16_t",
    "tw": "int16_t",
    "replay_labels": "uint16_t",
    "replay_latents": "uint32_t",
    "buffer_labels": "uint16_t",
    "buffer_latents": "uint32_t",
    "order": "uint16_t",
    "dw": "int32_t",
    "wq": "int8_t",
    "x": "int16_t",
    "acc": "int32_t",
}


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
    order of the struct. latent_offset: scratch for the latent of the sample being added.
    """

    m: str
    M: str
    abi: int
    capacity: int
    settings: tuple[tuple[str, str], ...]
    pointers: tuple[LearnPointer, ...]
    latent_offset: int


def learn_view(m: str, learning: LearningProgram, offsets: Mapping[str, int], abi: int = 1) -> LearnView:
    """Return the view for the model with C name `m`. offsets: in the arena, of each of `learn_buffers`."""
    names = [name for name, *_ in learn_buffers(learning) if name != "latent"]
    pointers = tuple(LearnPointer(name, POINTER_TYPES[name], offsets[name]) for name in names)
    return LearnView(m, m.upper(), abi, learning.capacity, _settings(learning), pointers, offsets["latent"])


def _settings(learning: LearningProgram) -> tuple[tuple[str, str], ...]:
    config = learning.config
    head = [
        ("features", f"{learning.features}u"),
        ("capacity", f"{learning.capacity}u"),
        ("latent_words", f"{learning.latent_words}u"),
        ("replay_slots", f"{config.replay}u"),
        ("buffer_slots", f"{config.buffer}u"),
        ("batch", f"{config.batch}u"),
        ("new_per_batch", f"{config.new_per_batch}u"),
        ("epochs", f"{config.epochs}u"),
        ("stream_type", f"BNN_{learning.stream_type.upper()}"),
        ("policy", f"{POLICIES.index(config.policy)}u"),
    ]
    unsigned = {"t_mult"}
    return (*head, *((name, f"{getattr(learning, name)}{'u' * (name in unsigned)}") for name in CONSTANTS))
