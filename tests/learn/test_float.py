# SPDX-License-Identifier: Apache-2.0
"""The float32 head beside what test_equality.py holds against its twin: rows from outside that are no numbers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.learn.script import Case, play, program_lines
from tests.learn.test_equality import random_case, random_shows
from tests.learn.test_restore import put_back, state_after


def last_line(harness, script, case: Case, calls: list) -> list[str]:
    script.write_bytes(case.encode(calls))
    return program_lines([str(harness), str(script)])[-1].split()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_rows_that_no_learner_holds_count_as_zero(harness, tmp_path, value):
    """A row of a restored state that is no number, or beyond the bound, neither hangs nor poisons the others."""
    case = random_case((8, 4), (8, 16), 16, {"head": "float32"}, 3)
    calls = play(case, random_shows(case, (20, 20), 2))
    twin = state_after(case, calls)
    place = twin.names.index("cw")
    ends = []
    for wrong in (value, 0.0):
        items = twin.items()
        rows = np.frombuffer(items[place], "<f4").copy()
        rows[9] = wrong
        items[place] = rows.tobytes()
        ends.append(last_line(harness, tmp_path / "script.bin", case, [put_back(items), ("scores", 5, ())])[-1])
    assert ends[0] == ends[1]
