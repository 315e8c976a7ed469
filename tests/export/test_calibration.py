# SPDX-License-Identifier: Apache-2.0
"""Ranges of calibration against plain definitions: extremes, the three methods of saturation, bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bnngen.errors import DataError, UsageError
from bnngen.export.config import (
    MAX_CALIBRATION_IMAGES,
    Calibration,
    ModelInfo,
    check_method,
    choose_images,
)
from bnngen.export.ranges import BINS, RangeMeter


def measured(value: np.ndarray, method: str, batch: int = 4, together: bool = False) -> dict[str, list[float]]:
    meter = RangeMeter("t", method, together)
    for start in range(0, len(value), batch):
        meter.see(value[start : start + batch])
    return meter.range()


def rounding_error(x: np.ndarray, clip: float) -> float:
    """Squared error of int8 with the scale clip / 127, by its definition."""
    scale = clip / 127
    return float(((np.clip(np.rint(x / scale), -127, 127) * scale - x) ** 2).sum())


def best_error(x: np.ndarray) -> float:
    reach = np.abs(x).max()
    return min(rounding_error(x, reach * part) for part in np.linspace(0.02, 1, 393))


@settings(deadline=None, max_examples=60)
@given(arrays.arrays(np.float32, (5, 3, 2, 2), elements=st.floats(-1e4, 1e4, width=32)))
def test_extremes_are_those_of_each_channel(value):
    seen = measured(value, "mse", batch=2)
    np.testing.assert_array_equal(np.float32(seen["lo"]), value.min(axis=(0, 2, 3)))
    np.testing.assert_array_equal(np.float32(seen["hi"]), value.max(axis=(0, 2, 3)))
    reach = np.abs(value).max(axis=(0, 2, 3))
    assert (np.float32(seen["clip"]) <= reach).all()
    assert ((np.float32(seen["clip"]) > 0) == (reach > 0)).all()


SHAPES = {  # rows of values: what the tensors of a network look like
    "gaussian": lambda rng: rng.normal(0, 1, 40_000),
    "relu": lambda rng: np.maximum(rng.normal(0, 1, 40_000), 0),
    "laplace": lambda rng: rng.laplace(0, 1, 40_000),
    "uniform": lambda rng: rng.uniform(-1, 1, 40_000),
    "few large ones": lambda rng: np.concatenate([rng.normal(0, 0.1, 39_990), rng.normal(0, 5, 10)]),
    "gamma": lambda rng: rng.gamma(0.5, 2, 40_000),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_least_squared_error_is_nearly_the_least_of_all(shape):
    """The histogram's choice costs at most five percent more than the best of 393 saturations, tried out."""
    x = SHAPES[shape](np.random.default_rng(2)).astype(np.float32)
    (clip,) = measured(x.reshape(-1, 1, 1, 100), "mse", batch=16)["clip"]
    assert rounding_error(x, clip) <= 1.05 * best_error(x)
    assert rounding_error(x, clip) <= 1.001 * rounding_error(x, np.abs(x).max()), "no saturation would be better"


def test_a_tensor_of_few_values_does_not_saturate():
    codes = np.random.default_rng(3).integers(0, 4, (30, 2, 4, 4)).astype(np.float32) / 3
    seen = measured(codes, "mse")
    assert seen["clip"] == seen["hi"]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_percentile_is_numpys_up_to_a_bin(shape):
    x = SHAPES[shape](np.random.default_rng(4)).astype(np.float32)
    (clip,) = measured(x.reshape(-1, 1, 1, 100), "percentile")["clip"]
    reach, exact = np.abs(x).max(), np.quantile(np.abs(x), 0.9999, method="inverted_cdf")
    assert exact - 1e-6 <= clip <= exact + 2 * reach / BINS + 1e-6
    assert (np.abs(x) <= clip).mean() >= 0.9999


def test_minmax_proposes_nothing_and_others_are_unknown():
    assert measured(np.ones((2, 3, 1, 1), np.float32), "minmax") == {"lo": [1.0] * 3, "hi": [1.0] * 3, "clip": []}
    assert check_method("mse") == "mse"
    with pytest.raises(UsageError, match="no calibration method entropy"):
        check_method("entropy")


@settings(deadline=None, max_examples=40)
@given(st.permutations(range(12)), st.integers(1, 12))
def test_order_and_batches_change_nothing(order, batch):
    """Values grow over five decades, so that ranges of histograms double many times on the way."""
    rng = np.random.default_rng(5)
    value = (rng.normal(0, 1, (12, 3, 4, 4)) * 10.0 ** (np.arange(12) / 2.4)[:, None, None, None]).astype(np.float32)
    value[:, 2] = 0
    for method in ("mse", "percentile"):
        assert measured(value[list(order)], method, batch) == measured(value, method, 12)


def test_a_dead_channel_and_one_that_wakes_late():
    value = np.zeros((8, 2, 3, 3), np.float32)
    value[7, 1] = -0.125
    assert measured(value, "mse", batch=1) == {"lo": [0.0, -0.125], "hi": [0.0, 0.0], "clip": [0.0, 0.125]}


def test_a_flattened_map_is_measured_as_one():
    value = np.random.default_rng(6).normal(0, 1, (8, 50)).astype(np.float32)
    seen = measured(value, "mse", together=True)
    assert [len(seen[key]) for key in ("lo", "hi", "clip")] == [1, 1, 1]
    assert np.float32(seen["hi"]) == [value.max()]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["mse", "minmax"])
def test_a_value_that_is_not_finite_names_its_tensor(bad, method):
    value = np.zeros((2, 3, 2, 2), np.float32)
    value[1, 2, 0, 1] = bad
    with pytest.raises(DataError, match="tensor t takes a value that is not finite"):
        measured(value, method)


@pytest.mark.parametrize(("side", "count"), [(8, 512), (32, 512), (64, 256), (224, 20), (512, 16)])
def test_fewer_images_are_taken_of_large_ones(side, count):
    """Of a thousand, evenly spread, and always the same; of few ones all."""
    x = np.broadcast_to(np.arange(1000, dtype=np.uint16).astype(np.uint8)[:, None, None, None], (1000, side, side, 1))
    info = ModelInfo("m", ("a", "b"), (0, 1), 1.0, 0.0)
    chosen = choose_images(Calibration(x), info, (side, side, 1))
    assert len(chosen) == count <= MAX_CALIBRATION_IMAGES
    places = np.arange(count) * 1000 // count
    np.testing.assert_array_equal(chosen[:, 0, 0, 0], places.astype(np.uint8))
    assert len(choose_images(Calibration(x[:5]), info, (side, side, 1))) == 5
