# SPDX-License-Identifier: Apache-2.0
"""Replay memories by policy, and the buffer of new samples (docs/numerics.md, sections 5.7 and 5.8)."""

from __future__ import annotations

from collections.abc import Callable

from bnngen.lower.learning.config import Buffer, Part, Sizes

STORED = {"balanced": 0, "random": 1}  # BNN_LEARN_BALANCED, _RANDOM


def stored_memory(sizes: Sizes) -> Part:
    """Return a memory that keeps latents."""
    slots, latent = sizes.config.replay, 4 * sizes.latent_words
    buffers = (
        Buffer("replay_labels", 2 * slots, "uint16_t"),
        Buffer("replay_latents", latent * slots, "uint32_t"),
    )
    constants = {"policy": STORED[sizes.config.policy]}
    return Part("bnn_replay_stored", constants, buffers, ("replay labels", "replay latents"))


POLICIES: dict[str, Callable[[Sizes], Part]] = {
    "balanced": stored_memory,
    "random": stored_memory,
}


def new_samples(sizes: Sizes) -> Part:
    """Return the buffer of the open experience's latents: no part with functions, but one with memory."""
    slots = sizes.config.buffer
    buffers = (
        Buffer("buffer_labels", 2 * slots, "uint16_t"),
        Buffer("buffer_latents", 4 * sizes.latent_words * slots, "uint32_t"),
        Buffer("order", 2 * slots, "uint16_t"),
    )
    return Part("", {}, buffers, ("buffer labels", "buffer latents", "order"))
