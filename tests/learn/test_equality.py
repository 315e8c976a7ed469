# SPDX-License-Identifier: Apache-2.0
"""The C learner equals the twin in every bit of the state after every call."""

from __future__ import annotations

import numpy as np
import pytest

from bnngen.continual.twin import MORE
from bnngen.ir import HeadInput
from bnngen.lower.learning import LearnConfig
from tests.learn.script import Case, play

SMALL = {"replay": 17, "buffer": 20, "batch": 16, "epochs": 2}
DTYPES = {8: np.int8, 16: np.int16}


def random_case(shape: tuple[int, int], bits: tuple[int, int], stream: int, config: dict, seed: int) -> Case:
    """A head of shape (D, C) and bits (q_f, q_b) over a table of 64 random stream vectors."""
    rng = np.random.default_rng(seed)
    dtype = DTYPES[stream]
    limit = np.iinfo(dtype).max
    table = rng.integers(-limit // 8, limit, (64, shape[0]), endpoint=True).astype(dtype)
    head = HeadInput("features", -0.37, 4.0, shape[1])
    options = LearnConfig(q_f=bits[0], q_b=bits[1], **{**SMALL, **config})
    return Case(head, 4.0 / limit, 1 + seed % 3, options, table, seed)


def random_shows(case: Case, sizes: tuple[int, ...], per_experience: int) -> list:
    """Experiences of the given sizes; each draws its labels from `per_experience` classes, in turn."""
    rng = np.random.default_rng(case.seed + 1000)
    shows = []
    for number, size in enumerate(sizes):
        classes = (number * per_experience + np.arange(per_experience)) % case.head.capacity
        shows.append((rng.integers(0, len(case.table), size), rng.choice(classes, size)))
    return shows


SHAPES = [  # (D, C): one weight a class; odd sizes; the size of a small model; many classes
    (1, 2),
    (31, 10),
    (128, 10),
    (128, 50),
]


@pytest.mark.parametrize("policy", ["balanced", "random"])
@pytest.mark.parametrize("bits", [(8, 16), (6, 16), (4, 16), (8, 8), (4, 8), (5, 16), (7, 8)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_state_is_equal_after_every_call(check, shape, bits, policy):
    seed = sum(shape) + bits[0] * bits[1]
    config = {"policy": policy, "new_per_batch": 0 if policy == "balanced" else 6}
    case = random_case(shape, bits, 8 if bits[0] % 2 else 16, config, seed)
    lines = check(case, play(case, random_shows(case, (30, 1, 0, 12, 25), 2)))
    assert len({line[7] for line in lines}) > 8  # tw moves: the comparison is not of zeros


@pytest.mark.parametrize("seed", range(6))
def test_instances_of_known_classes_come_again(check, seed):
    case = random_case(
        (31, 4), (8, 16), 16, {"replay": 9, "buffer": 8, "policy": ["balanced", "random"][seed % 2]}, seed
    )
    check(case, play(case, random_shows(case, (20, 20, 20, 20), 4)))


def test_more_classes_than_replay_slots(check):
    """Quotas of 0 and 1: some classes have no member although they were seen."""
    case = random_case((5, 12), (8, 16), 8, {"replay": 5}, 3)
    check(case, play(case, random_shows(case, (15, 15, 15, 15, 15, 15), 2)))


@pytest.mark.parametrize("rate", [1e-12, 1e-4, 0.02, 1.0, 40.0, 1e8])
def test_extreme_learning_rates(check, rate):
    """The exponents reach e_max with the first rate and e_min, where weights are clamped, with the last."""
    case = random_case((16, 6), (8, 16), 16, {"lr": rate, "epochs": 6}, 11)
    check(case, play(case, random_shows(case, (40, 40), 3)))


def test_a_small_batch_among_many_classes_keeps_one_new_sample(check):
    """4 samples a batch, one new class among eleven: the share rounds to 0, and 1 is taken."""
    case = random_case((5, 12), (8, 16), 8, {"batch": 4, "epochs": 1, "replay": 24}, 3)
    check(case, play(case, [(range(22), list(range(11)) * 2), (range(5), [11] * 5)]))


def test_rates_at_the_ends_reach_the_limits_of_the_exponents():
    for rate, limit in ((1e-12, "e_max"), (1e8, "e_min")):
        case = random_case((16, 6), (8, 16), 16, {"lr": rate, "epochs": 6}, 11)
        twin = case.twin()
        twin.begin()
        for row in range(40):
            twin.add(np.array(case.latent(row), np.uint32), row % 3)
        reached = set()
        while twin.step() == MORE:
            reached.add(twin.head.tw_exp)
        assert getattr(twin.head.k, limit) in reached


def test_features_that_are_all_zero(check):
    """No gradient, no weights: exponents stay at the top, and the empty rows consolidate to empty rows."""
    case = random_case((5, 4), (8, 16), 16, {}, 3)
    case = Case(case.head, case.scale, case.words, case.config, np.zeros_like(case.table), 3)
    check(case, play(case, [(range(20), [0, 1] * 10), (range(20), [1, 2] * 10)]))


def overflow_case(size: int, stream: int = 16) -> Case:
    """Largest operands everywhere: 256 equal samples of the largest code, and lr large enough to swing."""
    dtype = DTYPES[stream]
    table = np.full((2, size), np.iinfo(dtype).max, dtype)
    table[1, ::2] = 0
    config = LearnConfig(replay=4, buffer=3, batch=256, epochs=2, lr=20.0)
    return Case(HeadInput("features", 0.0, 1.0, 3), 1.0 / np.iinfo(dtype).max, 1, config, table, 5)


@pytest.mark.parametrize("size", [1, 66311])  # the second is the last D with D * 255 * 127 < 2^31
def test_largest_operands_stay_inside_int32(check, size):
    """The sanitizer watches the C; here the sums reach 255 * 32767 * 256 and 66311 * 255 * 127."""
    case = overflow_case(size)
    check(case, play(case, [([0, 0, 0], [2, 2, 2]), ([0, 1], [0, 1])]))


def test_gradient_reaches_its_bound():
    """One hopeless class: p - onehot is -1 for it in all 256 samples, so dw is P * L * B away from 0."""
    case = overflow_case(1)
    twin = case.twin().head
    acc = np.tile(np.array([[32385, 0, -32385]]), (256, 1))
    g = twin.gradient(acc, np.full(256, 2), 32767, 10)
    assert g.min() == -32767 and g.max() == 32767
    assert abs(int(g[:, 2].sum())) * 255 == 255 * 32767 * 256 < 2**31


def test_exponents_follow_the_weights():
    """They fall at once when weights grow, climb by at most 8 a step when they shrink, and start at the top."""
    case = random_case((16, 6), (8, 16), 16, {"lr": 40.0, "epochs": 12}, 11)
    twin = case.twin()
    assert twin.head.tw_exp == twin.head.cw_exp == twin.head.k.e_max
    for rows, labels in random_shows(case, (40, 40, 40), 3):
        twin.begin()
        for row, label in zip(rows, labels, strict=True):
            twin.add(np.array(case.latent(int(row)), np.uint32), int(label))
        exponents = [twin.head.cw_exp]
        while twin.step() == MORE:
            exponents.append(twin.head.tw_exp)
            assert np.abs(twin.head.tw).max() > 16383 or twin.head.tw_exp - exponents[-2] == 8
        twin.end()
        assert max(np.diff(exponents)) <= 8
        assert np.abs(twin.head.cw).max() > 16383  # no bit of the stored width is idle
    assert min(np.diff(exponents)) < 0 < max(np.diff(exponents))
