# SPDX-License-Identifier: Apache-2.0
"""The C tail equals its twin in every bit of its state after every call: random tails, and inputs at the bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnngen.continual.twin_tail import TwinTail
from bnngen.lower.tail import TailAfter
from bnngen.lower.tail_constants import RULES, TailConfig
from tests.learn.script import program_lines
from tests.tail.conftest import Check
from tests.tail.script import Shape, calls_for, encode, random_tail

FULL = 2**31 - 1


def random_shape(random: np.random.Generator) -> Shape:
    sizes = random.integers(1, 9, 2)
    pad, relu, shift, after, last = random.integers(0, 2, 5)
    return Shape(
        channels=int(random.choice([8, 16, 24, 32, 33, 40, 64])),
        height=int(sizes[0]),
        width=int(sizes[1]),
        blocks=int(random.integers(1, 4)),
        pad=int(pad),
        relu=bool(relu),
        shift=bool(shift),
        after=bool(after),
        last_relu=bool(last),
        cut=str(random.choice(["s8", "s16"])),
    )


@pytest.mark.parametrize("seed", range(24))
def test_random_tails(check: Check, seed: int):
    random = np.random.default_rng(seed)
    config = TailConfig(
        rule=RULES[seed % 2],
        q_bin=(8, 16)[seed // 2 % 2],
        sum_bits=(16, 32)[seed // 4 % 2],
        q_b=int(random.choice([8, 16, 16])),
        lr=float(random.choice([0.001, 0.1, 10])),
        latent_lr=float(random.choice([0.0005, 0.01, 1])),
        batch=int(random.integers(1, 65)),
    )
    spec = random_tail(random_shape(random), seed, float(random.choice([0.3, 1, 5, 100])))
    check(spec, config, calls_for(spec, seed))


@pytest.mark.parametrize("after", [False, True])
def test_full_size(check: Check, after: bool):
    spec = random_tail(Shape(128, 4, 4, 2, relu=not after, shift=after, after=after, last_relu=not after), 1)
    check(spec, TailConfig(), calls_for(spec, 1, batches=1, samples=2))


def extreme(channels: int, height: int, width: int, value: float):
    """A tail whose every number is as large as it can be, and of one sign or the other."""
    spec = random_tail(Shape(channels, height, width, 2, pad=1, shift=True, after=True), 2, peak=1.0)
    full = np.full(channels, value * 1e6)
    after = TailAfter(full, np.full(channels, 100 * value), -full)
    sign = np.full((channels, 3, 3, channels), int(127 * value), np.int8)
    blocks = tuple(
        replace(b, latent=sign, scale=full, bias=full, after=after, shift=-full * (number > 0))
        for number, b in enumerate(spec.blocks)
    )
    return replace(spec, blocks=blocks, high=full, low=full)


@pytest.mark.parametrize("value", [1.0, -1.0])
@pytest.mark.parametrize("bits", [(8, 16), (16, 32)])
@pytest.mark.parametrize("size", [(8, 64, 64), (96, 3, 3)])
def test_at_the_bounds(check: Check, size, bits, value: float):
    """All inputs, weights, scales and gradients at their limits: the sanitizer and the twin see no overflow."""
    channels, height, width = size
    spec = extreme(channels, height, width, value)
    config = TailConfig(q_bin=bits[0], sum_bits=bits[1], batch=1, lr=1024, latent_lr=1024, rule="sgd")
    words = np.zeros((height, width, -(-channels // 32)), np.uint32)
    cut = np.full((height, width, channels), 32767 if value > 0 else -32768, np.int16)
    calls = [("prepare", 0, None), ("clear", 0, None), ("forward", 1, cut)]
    for sign in (1, 1, -1):
        dx = np.full(channels, sign * FULL, np.int32)
        calls += [("replay", 1, words), ("backward", -40 * sign, dx)]
    calls += [("update", 0, None), ("forward", 1, cut), ("clear", 0, None), ("replay", 1, words)]
    calls += [("backward", 1000, np.full(channels, FULL, np.int32)), ("update", 0, None), ("replay", 1, words)]
    check(spec, config, calls)


@pytest.mark.parametrize("bits", [16, 32])
def test_sums_that_only_grow(check: Check, bits: int):
    """256 times the same sample at one exponent: bounds reach the width of the sums, and exponents give way."""
    spec = random_tail(Shape(8, 8, 8, 1), 3)
    dx = np.full(8, 1 << 20, np.int32)
    latent = np.zeros((8, 8, 1), np.uint32)
    calls = [("clear", 0, None)] + [("replay", 1, latent), ("backward", 20, dx)] * 256 + [("update", 0, None)]
    check(spec, TailConfig(sum_bits=bits, batch=256), calls)
    twin = TwinTail(spec, TailConfig(sum_bits=bits, batch=256))
    exponents = []
    for _ in range(256):
        twin.replay(latent, True)
        twin.backward(dx, 20)
        exponents.append(twin.filters[0].exponent)
    sums = twin.filters[0]
    assert (exponents[0] > exponents[-1]) == (bits == 16)
    assert np.abs(sums.total).max() > sums.bound / 2 > 2**13, "signs that all agree come near the bound"


@pytest.mark.parametrize("dx", [0, 1, -1, FULL, -FULL])
@pytest.mark.parametrize("exponent", [-(2**19), -30, 0, 40, 2**19])
def test_gradients_of_any_size(check: Check, dx: int, exponent: int):
    spec = random_tail(Shape(16, 3, 2, 2, shift=True, after=True, last_relu=True), 4)
    latent = np.full((3, 2, 1), 0x5A5A, np.uint32)
    small = np.zeros(16, np.int32)
    small[3] = 1
    calls = [("clear", 0, None), ("replay", 1, latent), ("backward", exponent, np.full(16, dx, np.int32))]
    calls += [("replay", 1, latent), ("backward", 0, small), ("update", 0, None), ("replay", 1, latent)]
    check(spec, TailConfig(), calls)


def test_nothing_learned_moves_nothing_and_draws_nothing(check: Check):
    """An update of empty sums, and one after a sample without gradient."""
    spec = random_tail(Shape(16, 2, 2, 2, relu=True), 5)
    latent = np.zeros((2, 2, 1), np.uint32)
    calls = [("prepare", 0, None), ("clear", 0, None), ("update", 0, None)]
    calls += [("replay", 1, latent), ("backward", 0, np.zeros(16, np.int32)), ("update", 0, None)]
    lines = [line.split() for line in check(spec, TailConfig(), calls)]
    first, last = lines[0][2:], lines[-1][2:]
    assert first == last


def test_an_abandoned_experience_changes_nothing(check: Check):
    """Inference by the committed set gives the same features after training that was not committed, and other
    features after one that was."""
    spec = random_tail(Shape(32, 4, 4, 2, relu=True, last_relu=True), 6)
    random = np.random.default_rng(1)
    cut = random.integers(-9000, 9000, (4, 4, 32)).astype(np.int16)
    latent = random.integers(0, 2**32, (4, 4, 1), dtype=np.uint32)
    dx = random.integers(-(2**16), 2**16, 32).astype(np.int32)
    train = [("prepare", 0, None), ("clear", 0, None), ("replay", 1, latent), ("backward", 16, dx), ("update", 0, None)]
    answer = [("forward", 0, cut)]
    calls = answer + train + answer + [("forward", 1, cut)] + train + [("commit", 0, None)] + answer
    calls += [("prepare", 0, None), ("forward", 1, cut)]
    lines = [line.split() for line in check(spec, TailConfig(latent_lr=0.3), calls)]
    features = [line[1] for line, call in zip(lines, calls, strict=True) if call[0] == "forward"]
    before, abandoned, trained, committed, prepared = features
    assert before == abandoned != trained
    assert committed == prepared != before
    assert lines[0][2:4] == lines[6][2:4] and lines[0][4:6] != lines[6][4:6]


VECTOR, SLOPE = 32767 << 15, 8 << 24  # M and M_s of section 6


@pytest.mark.parametrize(
    ("place", "number", "fits"),
    [(0, VECTOR, True), (0, VECTOR + 1, False), (8 * 2 + 7, -VECTOR - 1, False), (8 * 3, -(2**31), False)]
    + [(8 * 4, SLOPE, True), (8 * 4, -SLOPE - 1, False), (8 * 5, SLOPE + 1, True), (8 * 11, FULL, False)],
)
def test_vectors_from_outside_stay_inside_their_limits(tail_harness, tmp_path, place: int, number: int, fits: bool):
    """The bounds of the arithmetic rest on them: scale, bias, shift, before, slope, behind, of 8 channels, twice."""
    spec = random_tail(Shape(8, 2, 2, 2, shift=True, after=True), 7)
    script = tmp_path / "script.bin"
    script.write_bytes(encode(spec, TailConfig(), [("damage", place, np.array([number], np.int32))], 5))
    (line,) = program_lines([str(tail_harness), str(script)])
    assert line.split()[1] == ("00000000" if fits else "fffffff9")
