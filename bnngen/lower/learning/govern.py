# SPDX-License-Identifier: Apache-2.0
"""Governed learning: held-back samples, the rule of acceptance, the threshold (docs/numerics.md, section 5.12)."""

from __future__ import annotations

from bnngen.lower.learning.config import Buffer, Part, Rule, Sizes, require


def governing(sizes: Sizes, stored: bool, buffered: bool) -> Part | None:
    """Return the part that governs, None where the options ask for none.

    stored, buffered: the learner has a memory of replayed latents, a buffer of new ones; either can calibrate the
    threshold where nothing is held back. Raises UsageError for options that cannot work.
    """
    config = sizes.config
    require(_rules(sizes, stored or buffered))
    if not config.hold_every and not config.reject:
        return None
    leads = max(_calibrating(sizes, stored, buffered)) if config.reject else 0
    constants = {
        "hold_every": config.hold_every,
        "hold_slots": config.hold if config.hold_every else 0,
        "hold_new_slots": config.hold_new if config.hold_every else 0,
        "accept_drop": config.accept_drop,
        "accept_least": config.accept_least,
        "accept_new": config.accept_new,
        "reject": config.reject,
        "lead_slots": leads,
    }
    items = ("hold counts", "hold new labels", "hold new latents") if config.hold_every else ()
    if config.hold_every and config.hold:
        items = (*items, "hold seen", "hold labels", "hold latents")
    scratch = (Buffer("leads", 4 * leads, "uint32_t", "learn_step"),) if leads else ()
    return Part("bnn_governed", constants, (*_buffers(sizes), *scratch), items)


def _calibrating(sizes: Sizes, stored: bool, buffered: bool) -> tuple[int, int, int]:
    """Most samples of each source of the threshold."""
    config = sizes.config
    return (
        config.hold if config.hold_every else 0,
        config.replay if stored else 0,
        config.buffer if buffered else 0,
    )


def _rules(sizes: Sizes, calibrates: bool) -> list[Rule]:
    config = sizes.config
    slots = "slots are numbered in 16 bits"
    known = "only what the device has seen can say how far apart its scores are: hold samples back, --hold-every 5"
    return [
        (
            config.hold_every == 0 or 2 <= config.hold_every <= 65535,
            "--hold-every",
            config.hold_every,
            "of 2 to 65535 samples of a class one is held back, or none (0): the others are trained on",
        ),
        (0 <= config.hold <= 65535, "--hold", config.hold, slots),
        (1 <= config.hold_new <= 65535, "--hold-new", config.hold_new, f"{slots}, and without one nothing is judged"),
        (0 <= config.accept_drop <= 100, "--accept-drop", config.accept_drop, "accuracy falls by 0 to 100 points"),
        (0 <= config.accept_least <= 100, "--accept-least", config.accept_least, "accuracy is 0 to 100 percent"),
        (0 <= config.accept_new <= 100, "--accept-new", config.accept_new, "it is 0 to 100 percent of an accuracy"),
        (0 <= config.reject <= 99, "--reject", config.reject, "0 to 99 percent of the known can be rejected"),
        (config.reject == 0 or calibrates or (config.hold_every and config.hold), "--reject", config.reject, known),
    ]


def _buffers(sizes: Sizes) -> tuple[Buffer, ...]:
    config = sizes.config
    if not config.hold_every:
        return ()
    counts, latent = 4 * sizes.capacity, 4 * sizes.latent_words
    new = (
        Buffer("hold_counts", counts, "uint32_t"),
        Buffer("hold_new_labels", 2 * config.hold_new, "uint16_t"),
        Buffer("hold_new_latents", latent * config.hold_new, "uint32_t"),
    )
    if not config.hold:
        return new
    return (
        *new,
        Buffer("hold_seen", counts, "uint32_t"),
        Buffer("hold_labels", 2 * config.hold, "uint16_t"),
        Buffer("hold_latents", latent * config.hold, "uint32_t"),
    )
