# SPDX-License-Identifier: Apache-2.0
"""Two derivations of the tail's constants agree; what cannot work is refused; buffers have the sizes of the text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bnngen.continual.twin_tail import TwinTail
from bnngen.errors import ModelError, UsageError
from bnngen.lower.tail_constants import RULES, TailConfig, tail_buffers, tail_constants
from tests.tail.script import Shape, random_tail

SMALL = Shape(16, 3, 2, 2, shift=True, after=True)


@pytest.mark.parametrize("seed", range(20))
def test_two_derivations_agree(seed: int):
    random = np.random.default_rng(seed)
    height, width = (int(v) for v in random.integers(1, 65, 2))
    shape = replace(SMALL, height=height, width=width, cut=["s8", "s16"][seed % 2])
    spec = random_tail(shape, seed, float(2.0 ** random.uniform(-20, 13.99)))
    rates = 2.0 ** random.uniform(-30, 10, 2)
    config = TailConfig(float(rates[0]), float(rates[1]), RULES[seed % 2], int(random.integers(1, 257)))
    program, twin = tail_constants(spec, config), TwinTail(spec, config)
    n = twin.numbers
    assert (program.exponent, program.g_max, program.cut_shift) == (n.x, n.gradient_limit, n.cut_shift)
    assert (program.pool_mult, program.pool_shift) == n.pool
    assert (program.w_mult, program.w_shift) == n.latent_step
    assert (program.v_mult, program.v_shift) == n.vector_step
    assert (program.s_mult, program.s_shift) == n.slope_step
    assert np.array_equal(program.cut_mult, n.cut_mult)
    assert np.array_equal(np.stack([program.high, program.low]), np.stack(n.levels))
    assert b"".join(b.latent.tobytes() for b in program.blocks) == twin.items()[0]
    assert b"".join(b.vectors.astype("<i4").tobytes() for b in program.blocks) == twin.items()[1]


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [("q_bin", 4, "--q-bin"), ("q_b", 32, "--q-b"), ("sum_bits", 8, "sum_bits"), ("rule", "adam", "rule")]
    + [("batch", size, "--learn-batch") for size in (0, 257)]
    + [("lr", rate, "--tail-rate") for rate in (0.0, float("nan"))]
    + [("latent_lr", rate, "--latent-rate") for rate in (-1.0, float("inf"))],
)
def test_options_that_cannot_work(field: str, value: object, name: str):
    with pytest.raises(UsageError) as error:
        tail_constants(random_tail(SMALL, 1), replace(TailConfig(), **{field: value}))
    assert error.value.where == name and name in str(error.value)


def test_tails_that_cannot_work():
    spec = random_tail(SMALL, 1)
    shifted = replace(spec.blocks[0], scale=np.full(16, np.nan))
    for wrong in (
        replace(spec, peak=0.0),
        replace(spec, peak=float("inf")),
        replace(spec, peak=16384.0),
        replace(spec, blocks=()),
        replace(spec, blocks=spec.blocks * 5),
        replace(spec, height=65, width=64),
        replace(spec, channels=1025),
        replace(spec, cut_scale=np.zeros(16)),
        replace(spec, blocks=(shifted,)),
        replace(spec, blocks=(replace(spec.blocks[0], pad=2),)),
    ):
        with pytest.raises(ModelError):
            tail_constants(wrong, TailConfig())


def test_sizes_are_those_of_the_specification():
    """The examples of docs/numerics.md, section 6.10."""
    text = (Path(__file__).parents[2] / "docs" / "numerics.md").read_text()
    rows = {
        (64, 4, 1): Shape(64, 4, 4, 1),
        (64, 8, 1): Shape(64, 8, 8, 1),
        (128, 4, 1): Shape(128, 4, 4, 1),
        (128, 4, 2): Shape(128, 4, 4, 2),
        (128, 4, 3): Shape(128, 4, 4, 3),
    }
    for (channels, side, blocks), shape in rows.items():
        spec = random_tail(replace(shape, relu=True, last_relu=True), 1)
        cells = []
        for bits in (16, 32):
            buffers = tail_buffers(spec, TailConfig(sum_bits=bits))
            kept = sum(size for _, size, _, kind in buffers if kind == "persistent")
            step = sum(size for _, size, _, kind in buffers if kind == "learn_step")
            cells.append((kept, step, kept + step))
        (kept, narrow, both), (_, wide, all_wide) = cells
        row = f"| {blocks} x {channels}, {side}x{side} | {kept:,} | {narrow:,} | {both:,} | {wide:,} | {all_wide:,} |"
        assert row in text, row


def test_default_options_are_the_documented_ones():
    text = (Path(__file__).parents[2] / "docs" / "numerics.md").read_text()
    config = TailConfig()
    for row in (
        f"| {config.q_bin}, {config.q_b}, {config.sum_bits} |",
        f"| {config.rule}, {config.latent_lr:g}, {config.lr:g} |",
    ):
        assert row in text, row
