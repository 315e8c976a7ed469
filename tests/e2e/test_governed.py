# SPDX-License-Identifier: Apache-2.0
"""Governed learning as a user meets it: verdicts, unknown classes, forgetting, state between sessions and targets."""

from __future__ import annotations

import json

import pytest

from tests.e2e.test_whole_path import SMALL_STREAM

GOVERNED = ("--hold-every", "5", "--reject", "10")


def sessions(text: str) -> list[dict]:
    return json.loads(text)["experiences"]


def test_a_governed_session_equals_its_twin(digits):
    text = digits.good("learn", "--target", "host", "--check", "--forget", "3,7", *GOVERNED, *SMALL_STREAM)
    assert "byte for byte" in text and "accepted" in text and "taken for unknown" in text
    assert any(line.startswith("forgot") for line in text.splitlines())


def test_a_rule_that_nothing_meets_refuses_everything(digits):
    found = sessions(
        digits.good("learn", "--target", "host", "--json", "--hold-every", "5", "--accept-least", "100", *SMALL_STREAM)
    )
    refused = [e for e in found if e["verdict"]["outcome"].startswith("refused")]
    assert refused and len(refused) < len(found) + 1
    assert all(e["verdict"]["right"] < e["verdict"]["judged"] for e in refused)


def test_a_session_goes_on_on_another_target(digits):
    """0 to 6 on this computer, 7 to 9 on the board: the state of one session that shows all of them to either."""
    stream = ("--train-limit", "20", "--test-limit", "8")
    digits.good("learn", "--target", "host", "--order", "0-6", "--save-state", "a.state", *GOVERNED, *stream)
    later = ("--order", "7-9", "--first", "1", "--load-state", "a.state", "--json", *GOVERNED, *stream)
    here = sessions(digits.good("learn", "--target", "host", "--save-state", "b.state", *later))
    board = sessions(digits.good("learn", "--target", "stm32f405", *later))
    assert [e["state"] for e in here] == [e["state"] for e in board]
    again = ("--order", "0-9", "--first", "10", "--load-state", "b.state", "--forget", "0-9", "--json")
    end = sessions(digits.good("learn", "--target", "host", *again, *GOVERNED, *stream))[-1]
    assert end["event"] == "forgot" and end["accuracy_all"] == 0


@pytest.mark.parametrize("options", [("--q-f", "6"), ("--replay", "20"), ("--activations", "int8")], ids=str)
def test_a_state_of_something_else_is_refused(digits, options):
    digits.good("learn", "--target", "host", "--order", "0-2", "--save-state", "c.state", *SMALL_STREAM)
    digits("learn", "--target", "host", "--load-state", "c.state", *options, *SMALL_STREAM).refused("c.state")


def test_a_damaged_state_is_refused(digits):
    digits.good("learn", "--target", "host", "--order", "0-2", "--save-state", "d.state", *SMALL_STREAM)
    path = digits.folder / "d.state"
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    for contents, word in ((bytes(data), "damaged"), (data[:-9], "damaged"), (b"", "no learned state"), (b"PK", "no")):
        path.write_bytes(contents)
        digits("learn", "--target", "host", "--load-state", "d.state", *SMALL_STREAM).refused(word)


def test_run_answers_by_the_learned_head(digits):
    """Classes that the backbone never saw, and what is taken for none of them."""
    stream = ("--order", "0-9", "--first", "10", "--train-limit", "40", "--test-limit", "4")
    digits.good("learn", "--target", "host", "--save-state", "e.state", "--reject", "50", *stream)
    text = digits.good("run", "--data", "digits", "--limit", "40", "--load-state", "e.state", "--reject", "50")
    answers = [line.split()[1] for line in text.splitlines() if line[:1].isdigit()]
    assert len(answers) == 40 and "unknown" in answers and len(set(answers)) > 3
