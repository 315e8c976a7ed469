# SPDX-License-Identifier: Apache-2.0
"""Levels, stored and generative replay memories."""

from __future__ import annotations

import numpy as np
import pytest

from bnngen.continual.methods import Tuning, calibrate
from bnngen.continual.methods.generative import MOST, BernoulliReplay
from bnngen.continual.methods.memory import Codec, StoredReplay
from tests.methods.data import CLASSES, SIZE, make, setting


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("spacing", ["quantile", "uniform"])
def test_levels_come_nearer_with_bits(bits, spacing):
    x = make(7, 12)[0]
    levels = calibrate(x, bits, spacing)
    assert levels.bits == bits
    assert levels.encode(x).max() == 2**bits - 1
    assert (np.diff(levels.thresholds, axis=0) >= 0).all()
    error = abs(levels.round_trip(x) - x).mean()
    assert error < {1: 0.5, 2: 0.3, 4: 0.12, 8: 0.02}[bits]


def test_a_code_counts_the_thresholds_at_or_below():
    levels = calibrate(np.float32([[0, 5], [2, 5], [4, 5]]), 1)
    assert levels.thresholds.tolist() == [[2, 5]]
    assert levels.values.tolist() == [[0, 5], [3, 5]]  # a constant channel reads back as itself, either way
    assert levels.encode(np.float32([[1.9, 4], [2, 5]])).tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("policy", ["balanced", "random"])
@pytest.mark.parametrize("slots", [0, 1, 7, 40])
def test_a_memory_never_grows_past_its_slots(policy, slots, stream):
    x, y = stream
    codec, rng = Codec(setting()), np.random.default_rng(0)
    memory = StoredReplay(slots, codec, CLASSES, policy)
    for c in (3, 1, 1, 0, 4, 2, 3):
        memory.put(codec.encode(x[y == c]), y[y == c], rng)
        assert len(memory.labels) == len(memory.latents) <= slots
        assert memory.counts().sum() == len(memory.labels)
    assert len(memory.labels) == slots


def test_balanced_memory_holds_a_random_part_of_every_class(stream):
    """Quotas to one, members of their class, and old and returning samples as likely as each other."""
    x, y = stream
    codec, rng = Codec(setting()), np.random.default_rng(0)
    late = []
    for _ in range(200):
        memory = StoredReplay(12, codec, CLASSES, "balanced")
        half = np.flatnonzero(y == 0)[:30], np.flatnonzero(y == 0)[30:]
        marked = np.zeros((60, SIZE), np.uint8)
        marked[30:] = 1
        memory.put(marked[half[0] - half[0][0]], y[half[0]], rng)
        memory.put(codec.encode(x[y == 2]), y[y == 2], rng)
        memory.put(marked[half[1] - half[0][0]], y[half[1]], rng)
        assert memory.counts().tolist() == [6, 0, 6, 0, 0]
        late.append(memory.latents[memory.labels == 0].mean())
    assert abs(np.mean(late) - 0.5) < 0.06  # standard error 0.014


def bernoulli(components: int) -> BernoulliReplay:
    return BernoulliReplay(CLASSES, Codec(setting()), components, pseudo=100)


def test_one_component_counts_ones():
    """Flat prior of one in two, exact counts, halved when 255 are reached."""
    memory, bits = bernoulli(1), np.zeros((300, SIZE), np.uint8)
    bits[:, 0] = 1
    memory.put(bits[:10], np.full(10, 3), np.random.default_rng(0))
    assert memory.n[3].tolist() == [12]
    assert memory.ones[3, 0, :2].tolist() == [11, 1]
    memory.put(bits[10:], np.full(290, 3), np.random.default_rng(0))
    assert memory.seen[3] == 300 and memory.n.max() <= MOST
    assert memory.n[3, 0] == 128 + 1 + (2 + 300 - 255 - 1)
    assert memory.ones[3, 0, 1] == 1  # (1 + 1) >> 1: never certain
    assert memory.counts().tolist() == [0, 0, 0, 100, 0]


def test_components_separate_what_differs_and_drawing_gives_it_back():
    """Two patterns of one class: a component each; drawn latents are near one of them, in their proportion."""
    rng = np.random.default_rng(0)
    which = rng.random(400) < 0.25
    pattern = np.where(np.arange(SIZE) < SIZE // 2, 1, 0)
    bits = (np.where(which[:, None], pattern, 1 - pattern) ^ (rng.random((400, SIZE)) < 0.05)).astype(np.uint8)
    memory = bernoulli(2)
    memory.put(bits[:150], np.full(150, 1), rng)
    x, labels = memory.draw(1000, rng)
    drawn = memory.codec.levels.encode(x) if memory.codec.levels else x
    ones = drawn[:, : SIZE // 2].mean(axis=1)
    assert (labels == 1).all()
    assert ((ones < 0.35) | (ones > 0.65)).mean() > 0.95
    assert abs((ones > 0.5).mean() - which[:150].mean()) < 0.06
    single = bernoulli(1)
    single.put(bits[:150], np.full(150, 1), rng)
    blurred = single.codec.levels.encode(single.draw(1000, rng)[0])[:, : SIZE // 2].mean(axis=1)
    assert ((blurred < 0.35) | (blurred > 0.65)).mean() < 0.8


def test_a_returning_class_goes_on_where_it_was():
    memory, rng = bernoulli(2), np.random.default_rng(0)
    bits = (rng.random((80, SIZE)) < 0.3).astype(np.uint8)
    memory.put(bits, np.full(80, 4), rng)
    parts = bernoulli(2)
    for part in np.split(bits, 4):
        parts.put(part, np.full(20, 4), rng)
    np.testing.assert_array_equal(memory.ones, parts.ones)
    assert memory.bytes == CLASSES * 2 * (SIZE + 1) + 4 * CLASSES


def test_latents_are_packed_in_the_count():
    for bits, size in ((1, 2), (2, 4), (4, 8), (8, 16), (32, 64)):
        codec = Codec(setting(tuning=Tuning(bits=bits)))
        assert StoredReplay(40, codec, CLASSES, "balanced").bytes == 40 * (size + 2) + 4 * CLASSES
