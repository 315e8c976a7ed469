# SPDX-License-Identifier: Apache-2.0
"""Parts of the export against plain definitions: TensorFlow's padding, separating tensors, two levels."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from bnngen.export.calibrate import two_levels
from bnngen.export.convolutions import same_pads
from bnngen.export.cuts import separators
from bnngen.frontend import spelling


@pytest.mark.parametrize("size", [(1, 1), (5, 8), (9, 4)])
@pytest.mark.parametrize("kernel", [(1, 1), (2, 3), (5, 2)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 2)])
def test_same_pads_are_tensorflows(size, kernel, stride, dilation):
    """One pixel lights up only the outputs that TensorFlow lets it reach: compare whole convolutions."""
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (1, *size, 1)).astype(np.float32)
    w = rng.integers(-9, 9, (*kernel, 1, 1)).astype(np.float32)
    expected = tf.nn.conv2d(x, w, stride, "SAME", dilations=dilation).numpy()
    top, left, bottom, right = same_pads(size, kernel, (stride, stride), (dilation, dilation))
    padded = np.pad(x, [(0, 0), (top, bottom), (left, right), (0, 0)])
    actual = tf.nn.conv2d(padded, w, stride, "VALID", dilations=dilation).numpy()
    np.testing.assert_array_equal(actual, expected)


# -------------------------------------------------------------------------------------- separators


@st.composite
def dags(draw: st.DrawFn) -> list[list[int]]:
    """Sources of each node, 0 being the image; every node is read by a later one, the last by nobody."""
    count = draw(st.integers(1, 9))
    sources = [set(draw(st.lists(st.integers(0, i), min_size=1, max_size=2))) for i in range(count)]
    for i in range(count):  # what nobody reads, the last node reads
        if not any(i in later for later in sources):
            sources[-1].add(i)
    return [sorted(s) for s in sources]


@settings(deadline=None, max_examples=150)
@given(dags())
def test_separators_are_on_every_path(sources):
    def name(i: int) -> str:
        return spelling.INPUT if i == 0 else f"t{i}"

    nodes = [helper.make_node("Any", [name(s) for s in inputs] + ["weight"], [name(i + 1)])
             for i, inputs in enumerate(sources)]  # fmt: skip
    paths = {0: [[0]]}
    for i, inputs in enumerate(sources, start=1):
        paths[i] = [[*path, i] for s in inputs for path in paths[s]]
    on_every_path = set.intersection(*(set(path) for path in paths[len(sources)])) - {0, len(sources)}
    assert separators(nodes, ["weight"]) == {name(i) for i in on_every_path}


# ------------------------------------------------------------------------------------------ levels


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(-20, 20), min_size=1, max_size=25), st.floats(0.01, 100))
def test_two_levels_are_a_fixed_point(values, unit):
    column = np.array(values, np.float32) * np.float32(unit)
    levels = two_levels(column[:, None])
    threshold, low, high = (float(v[0]) for v in (levels.threshold, levels.low, levels.high))
    if np.ptp(column) == 0:
        assert threshold == low == high == column[0]
        return
    below = column.astype(np.float64) < threshold
    assert 0 < below.sum() < len(column)
    assert np.isclose(low, column[below].mean(dtype=np.float64))
    assert np.isclose(high, column[~below].mean(dtype=np.float64))
    assert np.isclose(threshold, (low + high) / 2) and low < high


def test_two_levels_of_two_clusters_and_of_a_dead_channel():
    rng = np.random.default_rng(0)
    two = np.concatenate([rng.normal(-1, 0.1, 700), rng.normal(3, 0.1, 300)])
    rows = np.stack([two, np.zeros(1000), -two], axis=1).astype(np.float32)
    levels = two_levels(rows)
    np.testing.assert_allclose(levels.low, [-1, 0, -3], atol=0.02)
    np.testing.assert_allclose(levels.high, [3, 0, 1], atol=0.02)
    np.testing.assert_allclose(levels.threshold, [1, 0, -1], atol=0.02)


def test_two_levels_never_lose_to_the_mean_split():
    """Lloyd's iteration starts at the mean: its squared error is at most that of the mean's own split."""
    rows = np.random.default_rng(1).gamma(0.7, 1.0, (500, 6)).astype(np.float32)
    levels = two_levels(rows)
    fitted = np.where(rows < levels.threshold, levels.low, levels.high)
    for c in range(6):
        x = rows[:, c].astype(np.float64)
        below = x < x.mean()
        split = np.where(below, x[below].mean(), x[~below].mean())
        assert ((x - fitted[:, c]) ** 2).sum() <= ((x - split) ** 2).sum() + 1e-9
