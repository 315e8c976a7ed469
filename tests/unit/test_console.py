# SPDX-License-Identifier: Apache-2.0
"""Progress as lines: what a log file gets."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bnngen.cli import console


@pytest.fixture
def told(monkeypatch):
    """A function that returns the lines told so far, and a clock that is set by hand."""
    stream, clock = io.StringIO(), [0.0]
    monkeypatch.setattr(console, "err", Console(file=stream, soft_wrap=True, highlight=False))
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    return lambda: stream.getvalue().splitlines(), clock


def test_a_line_for_each_tenth(told):
    lines, _ = told
    with console.progress() as report:
        for done in range(101):
            report("calibrate", done, 100)
    assert lines() == [f"  calibrate: {done}/100" for done in range(0, 101, 10)]


def test_a_total_that_is_not_known_is_not_told(told):
    lines, _ = told
    with console.progress() as report:
        report("training", 7, 0)
        report("fetch the weights", 0, 0)
    assert lines() == ["  training: 7", "  fetch the weights"]


def test_what_takes_long_is_told_by_the_clock(told):
    lines, clock = told
    with console.progress() as report:
        for done in range(61):
            clock[0] = float(done)
            report("epoch 1/50", done, 100_000)
    assert lines() == [f"  epoch 1/50: {done}/100000" for done in (0, 30, 60)]


def test_a_terminal_has_no_denominator_where_there_is_none():
    from rich.progress import Progress

    bar = Progress(console._Count(), console=Console(file=io.StringIO(), force_terminal=True))
    bar.add_task("", total=None, completed=5)
    bar.add_task("", total=9, completed=5)
    assert [str(console._Count().render(task)) for task in bar.tasks] == ["5", "5/9"]
