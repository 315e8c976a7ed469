# SPDX-License-Identifier: Apache-2.0
"""Statistics and measures against tables and examples worked by hand; result files that were cut off."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bnngen.report.simulation import front
from bnngen.simulate.measure import accuracy, confusion_matrix, forgetting, per_class
from bnngen.simulate.results import PART_KEYS, append_part, read_part, write_csv
from bnngen.simulate.statistics import half_width, mean_std, paired, t_cdf, t_quantile

# Student's t at 97.5 %: degrees of freedom -> value, as tables print them
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262, 29: 2.045, 120: 1.980}


@pytest.mark.parametrize("freedom", TABLE)
def test_quantiles_are_those_of_the_tables(freedom):
    assert t_quantile(0.975, freedom) == pytest.approx(TABLE[freedom], abs=6e-4)


def test_t_cdf_is_symmetric_and_for_one_degree_the_arc_tangent():
    assert t_cdf(0.0, 7) == 0.5
    assert t_cdf(1.3, 5) + t_cdf(-1.3, 5) == pytest.approx(1)
    assert t_cdf(2.5, 1) == pytest.approx(0.5 + np.arctan(2.5) / np.pi)


def test_intervals():
    values = [0.5, 0.6, 0.7]
    assert mean_std(values) == pytest.approx((0.6, 0.1))
    assert mean_std([0.3]) == (0.3, 0.0)
    assert half_width([0.3]) is None
    assert half_width(values) == pytest.approx(4.303 * 0.1 / np.sqrt(3), rel=1e-3)
    mean, width = paired(values, [0.4, 0.5, 0.6])
    assert mean == pytest.approx(0.1) and width == pytest.approx(0, abs=1e-12)


def test_confusion_and_accuracies():
    matrix = confusion_matrix(np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0]), 3)
    assert matrix.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert per_class(matrix) == [0.5, pytest.approx(2 / 3), None]
    assert accuracy(matrix) == pytest.approx(3 / 5)
    assert accuracy(matrix, [0]) == 0.5
    assert accuracy(matrix, [2]) is None


def test_forgetting_is_the_fall_from_the_best_of_each_class_seen_before():
    history = [[0.9, 0.0, None], [0.7, 0.8, None], [0.8, 0.6, 0.5]]
    assert forgetting(history[:1], []) is None
    assert forgetting(history[:2], [0]) == pytest.approx(0.2)
    assert forgetting(history, [0, 1]) == pytest.approx((0.1 + 0.2) / 2)
    assert forgetting(history, [2]) is None, "a class without test images says nothing"


def row_of(number: int) -> dict:
    """A finished experience as far as a part's reader looks at it."""
    return dict.fromkeys(PART_KEYS) | {"experience": number}


def test_a_part_that_was_cut_off_keeps_its_whole_lines(tmp_path):
    part = tmp_path / "seeds" / "3.part"
    assert read_part(part) == []
    for number in range(2):
        append_part(part, row_of(number))
    whole = part.read_text(encoding="utf-8")
    part.write_text(whole + '{"experience": 2, "accu', encoding="utf-8")
    assert [row["experience"] for row in read_part(part)] == [0, 1]
    append_part(part, row_of(2))
    assert [json.loads(line)["experience"] for line in part.read_text(encoding="utf-8").splitlines()] == [0, 1, 2]


@pytest.mark.parametrize("damage", [b"\xff\xfe\x00\n", b"7\n", b"{}\n", b'{"experience": 1}\n', b"\n", b"null\n"])
def test_a_damaged_part_keeps_what_stands_in_front_of_the_damage(tmp_path, damage):
    part = tmp_path / "3.part"
    for number in range(3):
        append_part(part, row_of(number))
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(lines[0] + damage + lines[2])
    assert read_part(part) == [row_of(0)]
    assert part.read_bytes() == lines[0]
    part.write_bytes(lines[0] + lines[2])
    assert read_part(part) == [row_of(0)], "a line is missing in the middle"


def test_csv_leaves_nothing_beside_it(tmp_path):
    write_csv(tmp_path / "a.csv", ["x", "y"], [{"x": 1, "y": None}])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "x,y\n1,\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_front_is_what_no_smaller_run_beats():
    assert front([(4, 0.5), (1, 0.4), (2, 0.3), (8, 0.5), (8, 0.6)]) == [(1, 0.4), (4, 0.5), (8, 0.6)]
