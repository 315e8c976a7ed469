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


BITS = [(8, 16), (6, 16), (4, 16), (8, 8), (4, 8), (5, 16), (7, 8), (8, 32), (5, 32)]  # q_f, q_b


@pytest.mark.parametrize("policy", ["balanced", "random"])
@pytest.mark.parametrize("bits", BITS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_state_is_equal_after_every_call(check, shape, bits, policy):
    seed = sum(shape) + bits[0] * bits[1]
    config = {"policy": policy, "new_per_batch": 0 if policy == "balanced" else 6}
    case = random_case(shape, bits, 8 if bits[0] % 2 else 16, config, seed)
    lines = check(case, play(case, random_shows(case, (30, 1, 0, 12, 25), 2)))
    assert len({line[7] for line in lines}) > 8  # tw moves: the comparison is not of zeros


@pytest.mark.parametrize("stream", [8, 16])
@pytest.mark.parametrize("bits", [(8, 16), (8, 32)], ids=str)
@pytest.mark.parametrize("head", ["cwr+", "sgd", "float32"])
def test_other_heads_are_equal(check, head, bits, stream):
    """Classes that come again, a class with one sample, an empty experience, a forgotten class."""
    case = random_case((31, 7), bits, stream, {"head": head}, 9)
    calls = play(case, random_shows(case, (30, 1, 0, 12), 2))
    calls += [("forget", 1, ()), ("scores", 3, ()), *play(case, random_shows(case, (9, 20), 3))]
    lines = check(case, calls)
    assert len({line[7] for line in lines}) > 8


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


@pytest.mark.parametrize("kind", ["cwr 16", "cwr 32", "float32 16"])
@pytest.mark.parametrize("rate", [1e-8, 1e-4, 0.02, 1.0, 40.0, 1e3])
def test_unusual_learning_rates(check, rate, kind):
    head, q_b = kind.split()
    case = random_case((16, 6), (8, int(q_b)), 16, {"lr": rate, "epochs": 6, "head": head}, 11)
    check(case, play(case, random_shows(case, (40, 40), 3)))


@pytest.mark.parametrize("rate", [1e-12, 1e8])
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


def overflow_case(size: int, q_b: int = 16) -> Case:
    """Largest operands everywhere: 256 equal samples of the largest code, and lr large enough to swing."""
    dtype = np.int16
    table = np.full((2, size), np.iinfo(dtype).max, dtype)
    table[1, ::2] = 0
    config = LearnConfig(replay=4, buffer=3, batch=256, epochs=2, lr=20.0, q_b=q_b)
    return Case(HeadInput("features", 0.0, 1.0, 3), 1.0 / np.iinfo(dtype).max, 1, config, table, 5)


@pytest.mark.parametrize("q_b", [16, 32])
@pytest.mark.parametrize("size", [1, 66311])  # the second is the last D with D * 255 * 127 < 2^31
def test_largest_operands_stay_inside_their_bounds(check, size, q_b):
    """The sanitizer watches the C; here the sums reach 255 * L * 256 and 66311 * 255 * 127."""
    case = overflow_case(size, q_b)
    check(case, play(case, [([0, 0, 0], [2, 2, 2]), ([0, 1], [0, 1])]))


@pytest.mark.parametrize(("q_b", "room"), [(16, 2**31), (32, 2**47)])
def test_gradient_reaches_its_bound(q_b, room):
    """One hopeless class: p - onehot is -1 for it in all 256 samples, so dw is P * L * B away from 0."""
    case = overflow_case(1, q_b)
    twin, largest = case.twin().head, 2 ** (q_b - 1) - 1
    acc = np.tile(np.array([[32385, 0, -32385]]), (256, 1))
    g = twin.gradient(acc, np.full(256, 2), largest, 10 if q_b == 16 else 26)
    assert g.min() == -largest and g.max() == largest
    assert abs(int(g[:, 2].sum())) * 255 == 255 * largest * 256 < room
    assert room * twin.k.u_mult < 2**62


@pytest.mark.parametrize("q_b", [8, 16, 32])
def test_consolidation_reaches_its_bound(check, q_b):
    """Weights of full width and of both signs, at one exponent: V comes near the bound and is exact to half a unit. The
    C's sanitizer watches the same after training at a rate that saturates."""
    case = random_case((16, 6), (8, q_b), 16, {"lr": 40.0, "epochs": 6}, 11)
    twin = case.twin().head
    largest = twin.k.l
    past, cur = np.full(6, 2**31 - 1), np.array([1] + [0] * 5)
    twin.cw[:], twin.tw[:] = largest, largest
    twin.tw[0, :8] = -largest
    twin.cw_exp = twin.tw_exp = 20
    bound = 2 * largest * 2**8 * 2**twin.k.share
    assert bound < 2**63 - 2 ** (twin.k.share - 1)
    share = twin._share(2**31 - 1, 1)
    trained = np.where(np.arange(16) < 8, -largest, largest)
    exact = (largest * share + trained * (2**twin.k.share - share)) / 2**twin.k.share
    twin.propose(past, cur)
    unit = 2.0 ** (20 - twin.tw_exp)
    assert np.abs(twin.tw[0] * unit - exact).max() <= unit / 2 + largest * 2.0**-20
    check(case, play(case, random_shows(case, (40, 40, 40), 3)))


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
