# SPDX-License-Identifier: Apache-2.0
"""Replay memories by policy, and the buffer of new samples (docs/numerics.md, sections 5.7, 5.8 and 5.14)."""

from __future__ import annotations

from collections.abc import Callable

from bnngen.lower.learning.config import Buffer, Part, Sizes, require

STORED = {"balanced": 0, "random": 1}  # BNN_LEARN_BALANCED, _RANDOM
MOST_BITS = 65536  # of a latent: distances times a count, 65536 * 255 * 255, stay below 2^32


def stored_memory(sizes: Sizes) -> Part:
    """Return a memory that keeps latents."""
    slots, latent = sizes.config.replay, 4 * sizes.latent_words
    buffers = (
        Buffer("replay_labels", 2 * slots, "uint16_t"),
        Buffer("replay_latents", latent * slots, "uint32_t"),
    )
    constants = {"policy": STORED[sizes.config.policy]}
    return Part("bnn_replay_stored", constants, buffers, ("replay labels", "replay latents"))


def generative_memory(sizes: Sizes) -> Part:
    """Return a memory that keeps a mixture of distributions per class, and no latents. Raises UsageError for latents
    that are too long, or a number of components that is none."""
    components, bits = sizes.config.components, 32 * sizes.latent_words
    long = f"a generative memory takes latents of up to {MOST_BITS} bits; this cut has {bits}"
    require(
        [
            (1 <= components <= 16, "--components", components, "a class has 1 to 16 components"),
            (bits <= MOST_BITS, "--policy", sizes.config.policy, long),
        ]
    )
    count = sizes.capacity * components
    buffers = (Buffer("mix_counts", count, "uint8_t"), Buffer("mix_ones", count * bits, "uint8_t"))
    return Part("bnn_replay_generative", {"components": components}, buffers, ("mixture counts", "mixture ones"))


POLICIES: dict[str, Callable[[Sizes], Part]] = {
    "balanced": stored_memory,
    "random": stored_memory,
    "generative": generative_memory,
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
