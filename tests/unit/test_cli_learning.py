# SPDX-License-Identifier: Apache-2.0
"""What the command line says and takes for learning: spellings, order of options, files that could not be written."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pytest

from bnngen.cli.build import Policy, build_options
from bnngen.cli.learning import Asked, _is_judged, _print_answers, check_writable
from bnngen.cli.simulate import simulate
from bnngen.errors import UsageError
from bnngen.session import Outcome


def outcome(verdict: dict) -> Outcome:
    known = {"experience": 0, "classes": (0,), "samples": 1, "steps": 1, "accuracy_seen": 1.0, "accuracy_all": 1.0}
    known |= {"per_class": {}, "state": ()}
    return Outcome(**known, verdict=verdict)


def test_policy_has_the_spelling_of_the_papers_too() -> None:
    policy = Policy(["balanced", "random"])
    assert policy.convert("class-balanced", None, None) == policy.convert("balanced", None, None) == "balanced"
    with pytest.raises(click.BadParameter):
        policy.convert("class", None, None)


def test_simulate_lists_learning_options_in_the_order_of_build() -> None:
    @build_options
    def probe() -> None: ...

    names = [option.name for option in reversed(probe.__click_params__)]
    shown = [option.name for option in simulate.params if option.name in names]
    assert shown == names
    assert shown[0] == "kernels"
    assert shown.index("head") < shown.index("replay") < shown.index("hold_every") < shown.index("tail")


def test_an_experience_without_held_back_samples_was_not_judged() -> None:
    assert not _is_judged(outcome({"outcome": "accepted", "new": 0, "known": 0}))
    assert not _is_judged(outcome({}))
    assert _is_judged(outcome({"outcome": "accepted", "new": 3, "known": 0}))


def test_a_file_that_could_not_be_written_is_refused_before_the_session(tmp_path: Path) -> None:
    check_writable(tmp_path / "a.state", "--save-state")
    with pytest.raises(UsageError, match="there is no folder") as caught:
        check_writable(tmp_path / "none" / "a.state", "--save-state")
    assert caught.value.where == "--save-state"


def test_answers_of_the_learned_head_come_with_their_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    images = {str(i): np.zeros((1, 1, 1), np.uint8) for i in range(4)}
    _print_answers(Asked(images, ["cat", "dog"], [0, 1, 1, 0]), [0, 1, -1, 1])
    said = capsys.readouterr().out
    assert "50.00% of 4 test images; 1 taken for unknown" in said and "unknown  dog" in said
