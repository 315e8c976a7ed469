# SPDX-License-Identifier: Apache-2.0
"""The course of an experience: what is refused, and what an empty, short or interrupted one leaves."""

from __future__ import annotations

import numpy as np

from bnngen.continual.twin import E_LABEL, E_STATE, MORE, OK
from tests.learn.script import Case, experience
from tests.learn.test_equality import random_case

NAMES = ("state", "past", "cur", "seen", "cw", "tw", "replay labels", "replay latents")
ITEM = {name: place + 2 for place, name in enumerate(NAMES)}  # a line is: op, status, item, item ...
HEAD = ("past", "cw", "seen", "replay labels", "replay latents")
CALL = {name: (name, 0, ()) for name in ("begin", "step", "end", "abandon")}


def add(case: Case, row: int, label: int):
    return ("add", label, case.latent(row))


def statuses(lines: list[list[str]]) -> list[int]:
    return [int(line[1], 16) - (2**32 if line[1][0] in "89abcdef" else 0) for line in lines]


def test_what_is_refused(check):
    """Every call that is illegal in a phase answers with a status and changes nothing."""
    case = random_case((3, 4), (8, 16), 16, {"batch": 2, "epochs": 1}, 1)
    c, one = CALL, add(case, 1, 1)
    calls = [
        c["step"],
        c["end"],
        c["abandon"],
        one,
        c["begin"],
        c["begin"],
        add(case, 0, 4),
        one,
        add(case, 2, 0),
        add(case, 3, 1),
        c["end"],
        c["step"],
        one,
        c["begin"],
        c["step"],
        c["step"],
        one,
        c["end"],
        c["end"],
    ]
    wanted = [E_STATE] * 4 + [
        OK,
        E_STATE,
        E_LABEL,
        OK,
        OK,
        OK,
        E_STATE,
        MORE,
        E_STATE,
        E_STATE,
        OK,
        OK,
        E_STATE,
        OK,
        E_STATE,
    ]
    lines = check(case, calls)
    assert statuses(lines) == wanted
    for before, after, status in zip(lines, lines[1:], wanted[1:], strict=False):
        assert status >= 0 or before[2:] == after[2:]


def test_an_empty_experience_changes_nothing(check):
    case = random_case((7, 4), (8, 16), 16, {}, 2)
    first = experience(case, range(20), [i % 3 for i in range(20)], case.config.batch)
    lines = check(case, [*first, CALL["begin"], CALL["step"], CALL["step"], CALL["end"]])
    assert statuses(lines[-4:]) == [OK] * 4
    assert lines[-3][2:] == lines[-2][2:] == lines[-4][2:], "a step without samples counts nothing and draws nothing"
    assert [lines[-1][ITEM[name]] for name in HEAD] == [lines[len(first) - 1][ITEM[name]] for name in HEAD]


def test_steps_are_counted_when_they_train():
    """None on an empty experience, and none after the last."""
    case = random_case((7, 4), (8, 16), 16, {"batch": 4, "epochs": 2}, 2)
    twin = case.twin()
    for samples, steps in ((0, 0), (5, 4), (0, 0)):
        twin.begin()
        for row in range(samples):
            assert twin.add(np.array(case.latent(row), np.uint32), row % 2) == OK
        answers = [twin.step() for _ in range(6)]
        assert answers == [MORE] * max(steps - 1, 0) + [OK] * (6 - max(steps - 1, 0))
        assert twin.steps_done == twin.steps_total == steps
        twin.end()


def test_a_step_after_the_last_changes_nothing(check):
    case = random_case((7, 4), (8, 16), 16, {"batch": 4, "epochs": 1}, 2)
    lines = check(case, [CALL["begin"], add(case, 1, 1), *[CALL["step"]] * 3])
    assert statuses(lines)[-3:] == [OK] * 3
    assert lines[-1][2:] == lines[-2][2:] == lines[-3][2:] != lines[-4][2:]


def test_one_sample_is_an_experience(check):
    case = random_case((31, 4), (8, 16), 8, {}, 3)
    lines = check(case, experience(case, [5], [2], case.config.batch))
    assert statuses(lines)[-3:] == [OK, OK, OK]
    assert lines[-1][ITEM["cw"]] != lines[0][ITEM["cw"]]


def test_an_interrupted_experience_leaves_the_head(check):
    """After any number of steps, abandon brings back what the head knew; the next experience learns."""
    case = random_case((31, 6), (8, 16), 16, {}, 4)
    first = experience(case, range(20), [i % 2 for i in range(20)], case.config.batch)
    for steps in (0, 1, 5):
        broken = [CALL["begin"], *[add(case, i, 2 + i % 2) for i in range(30)], *[CALL["step"]] * steps]
        calls = [*first, *broken, ("scores", 3, ()), CALL["abandon"], ("scores", 3, ())]
        calls += experience(case, range(9), [4] * 9, 4)
        lines = check(case, calls)
        before, inside = lines[len(first) - 1], lines[len(first) + len(broken)]
        after = lines[len(first) + len(broken) + 2]
        for name in HEAD:
            assert before[ITEM[name]] == inside[ITEM[name]] == after[ITEM[name]], name
        assert inside[-1] == after[-1]
        assert lines[-1][ITEM["cw"]] != before[ITEM["cw"]]


def test_stopping_early_consolidates(check):
    case = random_case((31, 6), (8, 16), 16, {}, 5)
    adds = [add(case, i, i % 2) for i in range(30)]
    lines = check(case, [CALL["begin"], *adds, CALL["step"], CALL["end"], ("scores", 1, ())])
    assert statuses(lines)[-3:] == [MORE, OK, OK]


def test_classes_never_seen_cannot_win():
    case = random_case((31, 6), (8, 16), 16, {}, 6)
    twin = case.twin()
    assert (twin.scores(case.table) == -(2**31)).all()
    twin.begin()
    for row in range(20):
        twin.add(np.array(case.latent(row), np.uint32), 3 * (row % 2))
    while twin.step() == MORE:
        pass
    twin.end()
    scores = twin.scores(case.table)
    assert (scores[:, [1, 2, 4, 5]] == -(2**31)).all()
    assert (scores[:, [0, 3]] > -(2**31)).all()


def test_same_seed_same_state_other_seed_other_state():
    digests = []
    for seed in (1, 1, 2):
        case = random_case((8, 4), (8, 16), 16, {}, 1)
        twin = Case(case.head, case.scale, case.words, case.config, case.table, seed).twin()
        twin.begin()
        for row in range(40):
            twin.add(np.array(case.latent(row), np.uint32), row % 3)
        while twin.step() == MORE:
            pass
        twin.end()
        digests.append(twin.items())
    assert digests[0] == digests[1] != digests[2]
