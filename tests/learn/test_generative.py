# SPDX-License-Identifier: Apache-2.0
"""The generative replay memory: equal to its twin, exact to forget, and a model of what it was shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnngen.continual.twin_generative import GenerativeMemory, bits_of
from bnngen.continual.twin_replay import Pcg32
from bnngen.errors import UsageError
from bnngen.lower.learning import LearnConfig, learning_constants
from tests.learn.script import Case, play
from tests.learn.test_equality import random_case, random_shows
from tests.learn.test_restore import E_FORMAT, changed, learned, put_back, run

OPTIONS = {"policy": "generative", "replay": 40, "components": 3}


def generative_case(shape: tuple[int, int], change: dict, seed: int = 3, words: int | None = None) -> Case:
    case = random_case(shape, (8, 16), 16, OPTIONS | change, seed)
    return case if words is None else replace(case, words=words)


def memory_of(components: int, capacity: int = 3, words: int = 1, replay: int = 300) -> GenerativeMemory:
    config = LearnConfig(policy="generative", replay=replay, components=components)
    return GenerativeMemory(config, capacity, words, Pcg32(5))


@pytest.mark.parametrize("head", ["cwr", "sgd"])
@pytest.mark.parametrize("components", [1, 3, 16])
def test_state_is_equal_after_every_call(check, components, head):
    """New classes, a class with one sample, more components than samples, an empty experience, classes that return."""
    case = generative_case((31, 8), {"components": components, "head": head, "buffer": 25})
    calls = play(case, random_shows(case, (30, 1, 0, 12, 25, 20, 20), 2))
    lines = check(case, calls)
    assert len({line[9] for line in lines}) >= 5, "the mixtures change with each experience that has samples"


def test_forgotten_classes_and_abandoned_experiences(check):
    case = generative_case((9, 5), {})
    shows = random_shows(case, (20, 20, 20), 2)
    calls = play(case, shows[:2])
    open_ = [("begin", 0, ()), ("add", 4, case.latent(7)), ("step", 0, ()), ("abandon", 0, ())]
    calls += [("forget", 1, ()), ("forget", 4, ()), *open_, *play(case, shows[2:])]
    calls += [("forget", c, ()) for c in range(5)] + play(case, shows[:1])
    check(case, calls)


@pytest.mark.parametrize("replay", [0, 1, 2, 65535])
def test_sizes_of_the_memory(check, replay):
    """None; less than one sample a class, so that some classes are never drawn; more than has ever been shown."""
    case = generative_case((7, 6), {"replay": replay})
    twin_items = len(case.twin().items())
    lines = check(case, play(case, random_shows(case, (20, 20, 20, 20), 2)))
    assert len(lines[0]) == twin_items + 2
    assert twin_items == (11 if replay else 9)


def test_counts_reach_their_limit_and_are_halved(check):
    """300 equal samples in one component: n passes 255, and a bit that is always set stays certain."""
    case = generative_case((3, 2), {"components": 1, "buffer": 400, "epochs": 1, "batch": 64})
    calls = play(case, [([5] * 400, [1] * 400), ([6] * 300, [1] * 300)])
    check(case, calls)
    memory = memory_of(1)
    latents = np.array([[0xFFFF0000]] * 300, np.uint32)
    memory.refill(latents, np.zeros(300, np.int64), 0)
    ones, n = memory.ones[0, 0], int(memory.n[0, 0])
    assert 128 < n <= 255 and (ones[16:] >= n - 1).all() and (ones[:16] <= 1).all()


@pytest.mark.parametrize("words", [1, 4, 2048])
def test_longest_latents_stay_inside_32_bits(check, words):
    """65,536 bits, all against the component: the distance is 65536 * 255 and its product with a count below 2^32."""
    change = {"components": 2, "buffer": 300, "epochs": 1, "batch": 2, "replay": 9, "new_per_batch": 1}
    case = generative_case((2, 2), change if words < 2048 else change | {"buffer": 6}, words=words)
    ones = [("add", 1, (row, *[2**32 - 1] * (words - 1))) for row in range(6)]
    zeros = [("add", 1, (row, *[0] * (words - 1))) for row in range(6)]
    steps = [("step", 0, ())] * 2
    calls = [("begin", 0, ()), *ones, *steps, ("end", 0, ()), ("begin", 0, ()), *zeros, *steps, ("end", 0, ())]
    check(case, calls)


def test_distance_reaches_its_bound():
    memory = memory_of(2, words=2048)
    memory.n[0], memory.ones[0] = 255, 255
    far = memory.distances(np.zeros(65536, np.int64), 0)
    assert far.max() * 255 == 65536 * 255 * 255 < 2**32


@pytest.mark.parametrize("components", [0, 17])
def test_components_that_cannot_be_are_refused(components):
    case = generative_case((3, 2), {"components": components})
    with pytest.raises(UsageError) as caught:
        learning_constants(case.graph, case.config)
    assert caught.value.where == "--components"


def test_latents_that_are_too_long_are_refused():
    case = generative_case((3, 2), {}, words=2049)
    with pytest.raises(UsageError) as caught:
        learning_constants(case.graph, case.config)
    assert caught.value.where == "--policy"


def test_memory_is_itemised():
    case = generative_case((3, 6), {"components": 4}, words=4)
    program = learning_constants(case.graph, case.config)
    sizes = {buffer.name: buffer.bytes for buffer in program.buffers}
    assert sizes["mix_counts"] == 6 * 4 and sizes["mix_ones"] == 6 * 4 * 128
    assert "replay_latents" not in sizes


def test_parts_are_equal_and_no_class_stands_for_more_than_it_had():
    memory = memory_of(2, capacity=6, replay=11)
    memory.refill(np.zeros((43, 1), np.uint32), np.array([5] * 20 + [2] * 20 + [3] * 3), 0)
    assert memory.counts().tolist() == [0, 0, 4, 3, 0, 3] and memory.filled == 10


def test_forgetting_is_exact():
    """What is left is what a memory holds that was never shown the class, in any order of the others."""
    rng = np.random.default_rng(1)
    latents = rng.integers(0, 2**32, (60, 2), dtype=np.uint32)
    labels = rng.integers(0, 3, 60)
    whole, without = memory_of(3, words=2), memory_of(3, words=2)
    whole.refill(latents, labels, 0)
    whole.forget(1)
    without.refill(latents[labels != 1], labels[labels != 1], 0)
    assert whole.items() == without.items() and whole.seen.tolist() == without.seen.tolist()


def test_draws_follow_the_counts():
    """Two clusters, 3 to 1, in a class of two components, and a second class: drawn as they were counted."""
    rng = np.random.default_rng(2)
    first = np.where(rng.random((400, 64)) < np.where(np.arange(400) % 4 == 0, 0.9, 0.1)[:, None], 1, 0)
    latents = np.packbits(first.astype(bool), axis=1, bitorder="little").view("<u4")
    memory = memory_of(2, words=2, replay=200)
    memory.refill(latents, np.zeros(400, np.int64), 0)
    memory.refill(latents[:100], np.full(100, 2), 1)
    drawn, labels = memory.draw(4000)
    assert abs((labels == 0).mean() - 0.5) < 5 * 0.5 / 4000**0.5
    bits = bits_of(drawn[labels == 0])
    high = bits.mean(axis=1) > 0.5
    share = memory.n[0].astype(float) / memory.n[0].sum()
    assert abs(high.mean() - share[memory.ones[0].mean(axis=1).argmax()]) < 5 * 0.5 / len(bits) ** 0.5
    for part, expected in ((bits[high], 0.9), (bits[~high], 0.1)):
        assert np.abs(part.mean(axis=0) - expected).max() < 0.15, "of a component's last 130 to 255 samples"


@pytest.mark.parametrize("change", [
    ("state", 32, 1, "I"),  # samples that the memory stands for
    ("seen", 0, 0, "I"),
    ("seen", 12, 5, "I"),  # of a class without components
    ("mixture counts", 0, 0, "B"),
    ("mixture counts", 3, 2, "B"),  # begun, without a sample
    ("mixture counts", 9, 9, "B"),
    ("mixture ones", 40, 200, "B"),  # more than samples
], ids=str)  # fmt: skip
def test_a_state_that_cannot_be_is_refused(harness, tmp_path, change):
    case, before, after = learned({"policy": "generative", "components": 3})
    calls = [*before, put_back(changed(case, before, *change)), *after]
    assert run(harness, tmp_path, case, calls)[len(before)][1] == E_FORMAT


def test_unused_component_takes_the_next_sample():
    memory = memory_of(3)
    memory.refill(np.array([[0], [0], [2**32 - 1]], np.uint32), np.zeros(3, np.int64), 0)
    assert memory.n[0].tolist() == [3, 3, 3] and memory.ones[0, :, 0].tolist() == [1, 1, 2]
    memory.refill(np.array([[0], [2**32 - 1]], np.uint32), np.zeros(2, np.int64), 1)
    assert memory.n[0].tolist() == [4, 3, 4], "of equally near ones the first"
