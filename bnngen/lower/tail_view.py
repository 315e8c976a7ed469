# SPDX-License-Identifier: Apache-2.0
"""The trainable tail as a part of a learner: its buffers, its state items, and what tail.h.j2 and tail.c.j2 print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from bnngen.lower.learning.config import Buffer, LearnConfig, Part
from bnngen.lower.program import Const
from bnngen.lower.tail_constants import RULES, TailConfig, TailProgram, tail_buffers

TAIL_TEMPLATES = {"tail.h.j2": "{m}_tail.h", "tail.c.j2": "{m}_tail.c"}
PREFIX = "tail_"  # of the tail's buffers among the learner's
DX = "tail_dx"
ITEMS = ("tail latents", "tail vectors", "tail latents in training", "tail vectors in training")
TYPES = {  # of the elements of bnn_tail_memory; latents and sums are of the width that the configuration says
    "signs": "uint32_t", "vectors": "int32_t", "vector_sums": "int64_t", "bits": "uint32_t", "masks": "uint32_t",
    "alive": "uint32_t", "stream": "int16_t", "features": "int16_t", "gradient": "int16_t", "inner": "int16_t",
    "wide": "int32_t", "row": "int16_t", "lane": "int16_t", "total": "int64_t", "latents": "void", "sums": "void",
}  # fmt: skip


@dataclass(frozen=True)
class TailPointer:
    """One field of bnn_tail_memory, its C type, and its offset in the arena, in bytes; -1 is null."""

    field: str
    type: str
    offset: int


@dataclass(frozen=True)
class TailBlockView:
    """One bnn_tail_block: C names of its arrays, its flags, the layer it was made of."""

    layer: str
    latent: str
    vectors: str
    flags: str


@dataclass(frozen=True)
class TailView:
    """Context `v` of tail.h.j2 and tail.c.j2. arrays: constants to be printed. settings: (C name in bnn_tail_config,
    C expression) in the order of the struct. scale: real value of one unit of the features. dx: offset of
    bnn_trained.dx; grad_mult, grad_shift, noise: its constants."""

    m: str
    M: str
    blocks: tuple[TailBlockView, ...]
    arrays: tuple[Const, ...]
    settings: tuple[tuple[str, str], ...]
    pointers: tuple[TailPointer, ...]
    scale: str
    dx: int
    grad_mult: int
    grad_shift: int
    noise: int


def tail_config(config: LearnConfig) -> TailConfig:
    """Return the options of the tail that a learner asks for."""
    q_b = min(config.q_b, 16)  # wider gradients are the head's affair
    return TailConfig(config.tail_lr, config.latent_lr, batch=config.batch, q_bin=config.q_bin, q_b=q_b)


def tail_part(tail: TailProgram) -> Part:
    """Return the tail's buffers and items as a learner takes them; it has no constants in bnn_learn_config."""
    buffers = tuple(
        Buffer(PREFIX + name, size, TYPES[_field(name)], kind, align)
        for name, size, align, kind in tail_buffers(tail.spec, tail.config)
        if size
    )
    dx = Buffer(DX, 4 * tail.spec.channels, "int32_t", "learn_step")
    return Part("", {}, (*buffers, dx), ITEMS)


def _field(name: str) -> str:
    """committed_latents -> latents."""
    return name.removeprefix("committed_").removeprefix("training_")


def tail_view(m: str, tail: TailProgram, config: LearnConfig, offsets: Mapping[str, int]) -> TailView:
    """Return the view for the model with C name `m`. offsets: in the arena, of each buffer of `tail_part`."""
    mult, shift = gradient_unit(config)
    names = [name for name, *_ in tail_buffers(tail.spec, tail.config)]
    return TailView(
        m=m,
        M=m.upper(),
        blocks=tuple(_block(m, i, tail) for i in range(len(tail.blocks))),
        arrays=_arrays(tail),
        settings=_settings(m, tail),
        pointers=tuple(_pointer(name, offsets) for name in names),
        scale=f"2^{-tail.exponent}",
        dx=offsets[DX],
        grad_mult=mult,
        grad_shift=shift,
        noise=config.tail_noise,
    )


def gradient_unit(config: LearnConfig) -> tuple[int, int]:
    """Return (m, s) with m * 2^-s nearest to 1 / (F * L) and 2^14 <= m < 2^15: what one unit of the product of a
    logit's gradient and a weight's operand stands for (docs/numerics.md, 6.11)."""
    product = (2 ** (config.q_f - 1) - 1) * (2 ** (config.q_b - 1) - 1)
    shift = 14
    while 2 ** (shift + 1) < 2**15 * product:
        shift += 1
    return round(Fraction(2**shift, product)), shift


def tail_const_bytes(tail: TailProgram) -> int:
    """Return the bytes in flash of what the blocks start from."""
    return sum(array.values.nbytes for array in _arrays(tail))


def _block(m: str, index: int, tail: TailProgram) -> TailBlockView:
    numbers, block = tail.blocks[index], tail.spec.blocks[index]
    flags = (numbers.pad, numbers.relu, "shift" in numbers.names, "slope" in numbers.names)
    arrays = (f"bnn_{m}_tail_{kind}{index}" for kind in ("latent", "vectors"))
    return TailBlockView(block.name, *arrays, ", ".join(f"{int(flag)}u" for flag in flags))


def _arrays(tail: TailProgram) -> tuple[Const, ...]:
    arrays = [Const("tail_cut_mult", tail.cut_mult), Const("tail_low", tail.low), Const("tail_high", tail.high)]
    for i, block in enumerate(tail.blocks):
        arrays += [Const(f"tail_latent{i}", block.latent), Const(f"tail_vectors{i}", block.vectors)]
    return tuple(Const(array.name, np.ascontiguousarray(array.values)) for array in arrays)


def _settings(m: str, tail: TailProgram) -> tuple[tuple[str, str], ...]:
    spec, config = tail.spec, tail.config
    unsigned = {
        "count": len(spec.blocks), "height": spec.height, "width": spec.width, "channels": spec.channels,
        "cut_type": {"s8": 1, "s16": 2}[spec.cut_dtype], "relu": int(spec.relu), "rule": RULES.index(config.rule),
        "latent_bits": config.q_bin, "sum_bits": config.sum_bits,
    }  # fmt: skip
    signed = (
        "exponent", "g_max", "cut_shift", "pool_mult", "pool_shift", "w_mult", "w_shift", "v_mult", "v_shift", "s_mult",
        "s_shift",
    )  # fmt: skip
    arrays = [(name, f"bnn_{m}_tail_{name}") for name in ("cut_mult", "low", "high")]
    return (
        ("blocks", "blocks"),
        *arrays,
        *((name, f"{value}u") for name, value in unsigned.items()),
        *((name, str(getattr(tail, name))) for name in signed),
    )


def _pointer(name: str, offsets: Mapping[str, int]) -> TailPointer:
    field = name
    for copy in ("committed", "training"):
        field = field.replace(f"{copy}_", f"{copy}.")
    return TailPointer(field, TYPES[_field(name)], offsets.get(PREFIX + name, -1))
