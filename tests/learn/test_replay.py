# SPDX-License-Identifier: Apache-2.0
"""Replay memory and buffer: never too many, the shares that are promised, and no sample preferred."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnngen.continual.twin_replay import Pcg32, TwinMemory
from bnngen.lower.learning import LearnConfig
from tests.learn.test_equality import random_case


def refill(memory: TwinMemory, labels: list[int], experience: int) -> None:
    """Offer samples whose latent is a number of their own."""
    start = int(memory.seen.sum())
    latents = np.arange(start, start + len(labels), dtype=np.uint32)[:, None]
    memory.refill(latents, np.array(labels, np.int64), experience)


@given(st.integers(1, 40), st.lists(st.lists(st.integers(0, 7), max_size=30), max_size=6), st.booleans())
@settings(deadline=None, max_examples=80)
def test_never_above_its_slots(slots, experiences, balanced):
    memory = TwinMemory(LearnConfig(replay=slots, policy="balanced" if balanced else "random"), 8, 1, Pcg32(7))
    for number, labels in enumerate(experiences):
        refill(memory, labels, number)
        kept = memory.latents[: memory.filled, 0]
        assert memory.filled <= slots
        assert len(set(kept.tolist())) == memory.filled  # no sample twice
        if balanced and memory.seen.any():
            for c, quota in memory.quotas().items():
                assert len(memory._members(c)) == min(quota, memory.seen[c]) or memory.seen[c] > quota
                assert len(memory._members(c)) <= quota
    if balanced and memory.seen.any():
        assert sum(memory.quotas().values()) == slots


def test_quota_gives_the_rest_to_the_lowest_classes():
    memory = TwinMemory(LearnConfig(replay=11), 8, 1, Pcg32(7))
    refill(memory, [6, 2, 5] * 20, 0)
    assert memory.quotas() == {2: 4, 5: 4, 6: 3}
    assert np.bincount(memory.labels[: memory.filled]).tolist() == [0, 0, 4, 0, 0, 4, 3]
    refill(memory, [0] * 20, 1)
    assert memory.quotas() == {0: 3, 2: 3, 5: 3, 6: 2}
    assert memory.filled == 11


@pytest.mark.parametrize("policy", ["balanced", "random"])
def test_every_offered_sample_is_equally_likely(policy):
    """40 samples of one class in two experiences, 10 slots, 3,000 seeds: a quarter each, five sigma."""
    counts = np.zeros(40)
    for seed in range(3000):
        memory = TwinMemory(LearnConfig(replay=10, policy=policy), 2, 1, Pcg32(seed))
        refill(memory, [0] * 20, 0)
        refill(memory, [0] * 20, 1)
        counts[memory.latents[:, 0]] += 1
    sigma = (3000 * 0.25 * 0.75) ** 0.5
    assert counts.sum() == 30000
    assert np.abs(counts - 750).max() < 5 * sigma


def test_random_policy_keeps_equal_shares_of_experiences():
    """Five experiences of 30 samples, 60 slots, 400 seeds: 12 slots each in the mean."""
    shares = np.zeros(5)
    for seed in range(400):
        memory = TwinMemory(LearnConfig(replay=60, policy="random"), 5, 1, Pcg32(seed))
        for number in range(5):
            refill(memory, [number] * 30, number)
        shares += np.bincount(memory.labels[: memory.filled], minlength=5) / 400
    # The first experience had 30 samples for 60 slots, and the second filled the rest: equal from then on.
    assert shares.sum() == pytest.approx(60)
    assert shares == pytest.approx([12] * 5, abs=0.7)


def test_buffer_is_a_reservoir():
    """50 samples for 20 buffer slots, 1,500 seeds: each stays with probability 0.4, within five sigma."""
    counts = np.zeros(50)
    case = random_case((1, 2), (8, 16), 16, {}, 1)
    for seed in range(1500):
        twin = case.twin()
        twin.random.state = Pcg32(seed).state
        twin.begin()
        for row in range(50):
            twin.add(np.array(case.latent(row), np.uint32), 0)
        counts[twin.latents[:, 0]] += 1
    sigma = (1500 * 0.4 * 0.6) ** 0.5
    assert counts.sum() == 1500 * 20
    assert np.abs(counts - 600).max() < 5 * sigma
