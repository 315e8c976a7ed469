# SPDX-License-Identifier: Apache-2.0
"""Governed learning: held-back samples, acceptance and roll-back, the threshold on the unknown; C and twin alike."""

from __future__ import annotations

import numpy as np
import pytest

from bnngen.continual.twin import E_STATE, MORE, OK, Twin
from bnngen.continual.twin_govern import ACCEPTED, REFUSED_DROP, REFUSED_LEAST, REFUSED_NEW
from bnngen.errors import UsageError
from bnngen.ir import HeadInput
from bnngen.lower.learning import LearnConfig, learning_constants
from tests.learn.script import Call, Case
from tests.learn.test_equality import random_case

HOLD = {"hold_every": 3, "hold": 9, "hold_new": 6, "replay": 17, "buffer": 20, "batch": 16, "epochs": 2}
STAYS = ("past", "seen", "cw", "replay labels", "replay latents", "hold seen", "hold labels", "hold latents")
CALL: dict[str, Call] = {name: (name, 0, ()) for name in ("begin", "step", "end", "abandon")}


def separable(config: dict, classes: int = 4, seed: int = 3) -> Case:
    """Classes that a linear head tells apart: row r is of class r mod `classes`; 64 rows."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 24000, (classes, 24))
    rows = centres[np.arange(64) % classes] + rng.integers(0, 6000, (64, 24))
    head = HeadInput("features", 0.0, 1.0, classes)
    return Case(head, 1.0 / 32767, 2, LearnConfig(**HOLD | {"epochs": 12} | config), rows.astype(np.int16), seed)


def show(case: Case, rows: list[int], labels: list[int], steps: int = 12) -> list[Call]:
    adds: list[Call] = [("add", y, case.latent(r)) for r, y in zip(rows, labels, strict=True)]
    return [CALL["begin"], *adds, *[CALL["step"]] * steps, CALL["end"]]


def of_classes(classes: tuple[int, ...], count: int, shift: int = 0) -> tuple[list[int], list[int]]:
    """Rows of the given classes of `separable`, with right labels, or with labels moved on by `shift`."""
    rows = [r for r in range(64) if r % 4 in classes][:count]
    places = {c: i for i, c in enumerate(classes)}
    return rows, [classes[(places[r % 4] + shift) % len(classes)] for r in rows]


def drive(twin: Twin, case: Case, calls: list[Call]) -> None:
    for name, value, latent in calls:
        if name == "add":
            twin.add(np.array(latent, np.uint32), value)
        elif name not in ("scores", "decide"):
            getattr(twin, name)()


def state_after(case: Case, calls: list[Call]) -> Twin:
    twin = case.twin()
    drive(twin, case, calls)
    return twin


def kept(line: list[str], names: tuple[str, ...]) -> list[str]:
    return [line[2 + names.index(name)] for name in STAYS if name in names]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"accept_new": 0},
        {"hold": 0},
        {"hold": 1, "hold_new": 1, "hold_every": 2},
        {"policy": "random", "reject": 10},
        {"replay": 0, "reject": 5},
        {"hold_every": 0, "reject": 20},
        {"hold_every": 0, "reject": 20, "replay": 0},
        {"accept_drop": 0, "accept_least": 60},
        {"q_b": 32, "reject": 10},
        {"head": "float32", "reject": 10},
        {"head": "mean", "reject": 10},
        {"head": "lda", "reject": 10},
        {"head": "ridge"},
        {"policy": "generative", "reject": 10},
        {"policy": "generative", "reject": 10, "hold_every": 0},
    ],
    ids=str,
)
def test_state_is_equal_after_every_call(check, config, seed):
    """Random labels, so that experiences are taken over and refused; decisions on every sixth row."""
    options = HOLD | config
    case = random_case((9, 5), (8, options.pop("q_b", 16)), 16, options, seed)
    rng = np.random.default_rng(seed)
    calls: list[Call] = []
    for size in (30, 25, 0, 1, 30):
        rows, labels = rng.integers(0, 64, size).tolist(), rng.integers(0, 5, size).tolist()
        calls += show(case, rows, labels)
        calls += [("decide", row, ()) for row in range(0, 64, 6)] + [("forget", size % 5, ())] * (size == 25)
    check(case, calls)


def test_a_good_experience_is_taken_over(check):
    case = separable({"accept_drop": 20, "accept_least": 70})
    calls = show(case, *of_classes((0, 1), 30)) + show(case, *of_classes((2, 3), 30), steps=40)
    check(case, calls)
    twin = state_after(case, calls)
    held = twin.held
    assert held.verdict == ACCEPTED and twin.experiences == 2
    assert (held.known, held.judged) == (6, 12), "6 of 10 held-back samples of either experience are kept or judged"
    assert held.before >= 5 and held.after + held.new >= 9


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [({"accept_drop": 10}, REFUSED_DROP), ({"accept_least": 90}, REFUSED_LEAST)],
)
def test_a_bad_experience_is_rolled_back(check, rule, verdict):
    """Labels exchanged: what answers and all memories stay, byte for byte; the next good one is taken over."""
    case = separable({"head": "sgd", "new_per_batch": 15, "lr": 1.0, "epochs": 40} | rule)
    first = show(case, *of_classes((0, 1), 30), steps=90)
    bad = show(case, *of_classes((0, 1), 30, shift=1), steps=90)
    calls = [*first, ("scores", 5, ()), *bad, ("scores", 5, ())]
    lines, names = check(case, calls), case.twin().names
    before, after = lines[len(first)], lines[-1]
    assert kept(before, names) == kept(after, names)
    assert before[-1] == after[-1]
    twin = state_after(case, calls)
    assert (twin.held.verdict, twin.experiences) == (verdict, 1)
    more = show(case, *of_classes((0, 1), 30), steps=90)
    assert state_after(case, calls + more).held.verdict == ACCEPTED


def test_interrupted_at_every_point_leaves_the_learned_state(check):
    """After begin, after k samples, after k steps: what answers and the memories are those before begin()."""
    case = separable({"reject": 10})
    first = show(case, *of_classes((0, 1), 30))
    rows, labels = of_classes((1, 2), 9)
    whole = show(case, rows, labels)
    for length in range(1, len(whole)):  # the last call of `whole` is end
        cut = [*first, ("scores", 5, ()), *whole[:length], ("scores", 5, ()), CALL["abandon"], ("scores", 5, ())]
        lines, names = check(case, cut), case.twin().names
        before, inside, after = lines[len(first)], lines[-3], lines[-1]
        assert kept(before, names) == kept(inside, names) == kept(after, names), length
        assert before[-1] == inside[-1] == after[-1]


def test_without_holding_back_nothing_is_judged(check):
    """The options that say how to judge change no bit but their own, where nothing is held back."""
    case = random_case((9, 5), (8, 16), 16, {}, 1)
    ruled = random_case((9, 5), (8, 16), 16, {"accept_drop": 0, "accept_least": 100, "hold": 3, "hold_new": 2}, 1)
    calls = show(case, list(range(30)), [i % 5 for i in range(30)])
    assert check(case, calls) == check(ruled, calls)


def test_held_back_samples_are_counted_by_class():
    """Labels that alternate with the period are held back alike; a class with one sample is trained on."""
    case = separable({"hold_every": 2, "hold_new": 60})
    twin = case.twin()
    twin.begin()
    rows, labels = of_classes((0, 1), 30)
    for row, label in [*zip(rows, labels, strict=True), (2, 2)]:
        assert twin.add(np.array(case.latent(row), np.uint32), label) == OK
    held = twin.held.labels[: twin.held.filled].tolist()
    assert (held.count(0), held.count(1), held.count(2)) == (7, 7, 0)
    assert sorted(twin.labels[: twin.buffered].tolist()).count(2) == 1
    assert not set(map(tuple, twin.held.latents[: twin.held.filled])) & set(map(tuple, twin.latents[: twin.buffered]))


def test_the_rule_is_exact():
    """At the border an experience is taken over, one sample below it is not."""
    case = separable({"accept_drop": 25, "accept_least": 50})
    held, past = case.twin().held, np.array([1, 1, 0, 0])
    held.kept.labels[:4], held.kept.filled = [0, 1, 0, 1], 4
    answers = np.array([0, 1, 0, 1])

    def scores(wrong: int):
        return lambda latents: np.eye(4, dtype=int)[np.where(np.arange(4) < wrong, 3, answers)] * 9

    held.count_before(scores(0), past)
    held.new = 0
    assert (held.known, held.before) == (4, 4)
    assert held.accepts(scores(1), past) and held.after == 3
    assert not held.accepts(scores(2), past) and held.verdict == REFUSED_DROP
    held.before = 0
    assert held.accepts(scores(2), past)
    assert not held.accepts(scores(3), past) and held.verdict == REFUSED_LEAST


@pytest.mark.parametrize("percent", [1, 10, 50, 99])
def test_the_threshold_rejects_its_share_of_the_samples_it_rests_on(percent):
    case = separable({"reject": percent, "hold": 60, "hold_new": 60, "hold_every": 2, "buffer": 60})
    twin = state_after(case, show(case, *of_classes((0, 1, 2, 3), 64), steps=30))
    latents = twin.held.kept.latents[: twin.held.kept.filled]
    rejected = sum(twin.decide(s) == -1 for s in twin.scores(case.table[latents[:, 0]]))
    assert len(latents) == 32 and rejected == 32 * percent // 100


def test_nothing_is_known_before_the_first_experience(check):
    case = separable({"reject": 5})
    learn = show(case, *of_classes((0, 1), 30), steps=30)
    scores = state_after(case, learn).scores(case.table)
    clear = max(of_classes((0,), 16)[0], key=lambda row: scores[row, 0] - scores[row, 1])
    lines = check(case, [("decide", clear, ()), *learn, ("decide", clear, ())])
    assert lines[0][1] == "ffffffff" and lines[-1][1] == "00000000"


def test_counters_at_their_limit(check):
    """A stream of 2^31 - 1 samples: counts stay there, nothing is held back any more, and the draws stay in range."""
    case = separable({})
    twin = state_after(case, show(case, *of_classes((0, 1), 30))[:-13])  # open, before the first step
    twin.added = 2**31 - 3
    before = twin.held.offered
    for row in range(8):
        assert twin.add(np.array(case.latent(row), np.uint32), row % 2) == OK
    assert twin.added == 2**31 - 1 and twin.held.offered <= before + 1


BAD = [
    {"hold_every": 1},
    {"hold_every": -2},
    {"hold": 65536},
    {"hold_new": 0},
    {"accept_drop": 101},
    {"accept_least": -1},
    {"accept_new": 101},
    {"reject": 100},
]


@pytest.mark.parametrize("config", BAD, ids=str)
def test_options_that_cannot_work_are_refused(config):
    case = separable({})
    with pytest.raises(UsageError):
        learning_constants(case.graph, LearnConfig(**HOLD | config))


def test_illegal_calls_change_nothing(check):
    case = separable({})
    lines = check(case, [CALL["end"], CALL["begin"], ("add", 4, case.latent(0)), ("forget", 0, ()), CALL["end"]])
    assert [line[1] for line in lines] == ["fffffffc", "00000000", "fffffffd", "fffffffc", "00000000"]
    assert E_STATE == -4 and MORE == 1


def test_labels_at_random_are_refused_by_the_samples_of_the_experience(check):
    """What cannot be learned is not right on its own held-back samples, though the known classes do not fall."""
    case = separable({"replay": 40, "hold_every": 2, "accept_new": 90})
    rows = [r for r in range(64) if r % 4 >= 2]
    labels = [2 + int(bit) for bit in np.random.default_rng(5).integers(0, 2, len(rows))]
    calls = show(case, *of_classes((0, 1), 30), steps=90) + show(case, rows, labels, steps=90)
    check(case, calls)
    held = state_after(case, calls).held
    assert held.verdict == REFUSED_NEW and held.after == held.before == held.known
