# SPDX-License-Identifier: Apache-2.0
"""Runs the exported graph over the calibration images: ranges of all tensors, levels of the 1-bit latent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from bnngen.errors import DataError
from bnngen.export.config import Progress
from bnngen.export.session import BATCH, run_batches
from bnngen.frontend import spelling

KEPT_BYTES = 1 << 28  # of the cut tensor, to fit levels on: images beyond are left out of the fit
BATCH_BYTES = 1 << 29  # of all tensors of one batch


@dataclass(frozen=True)
class Observation:
    """What calibration saw. ranges: tensor -> (smallest, largest) value. scores: float32 [N, classes].

    cut: values of the cut tensor in rows, float32 [positions, channels]; None without a cut.
    """

    ranges: dict[str, tuple[float, float]]
    scores: np.ndarray
    cut: np.ndarray | None


def observe(
    model: onnx.ModelProto, images: np.ndarray, tensors: Sequence[str], cut: str | None, progress: Progress
) -> Observation:
    """Run the model over images, float32 [N, H, W, C], and look at the named tensors.

    tensors: real-valued ones, the scores among them. Raises DataError where a value is not finite.
    """
    computed = [name for name in tensors if name != spelling.INPUT]
    lows = {spelling.INPUT: float(images.min())}
    highs = {spelling.INPUT: float(images.max())}
    scores, rows, kept, done = [], [], 0, 0
    for values in run_batches(model, images, computed, _batch(model, images, computed)):
        for name, value in zip(computed, values, strict=True):
            lows[name] = min(lows.get(name, np.inf), _finite(name, float(value.min())))
            highs[name] = max(highs.get(name, -np.inf), _finite(name, float(value.max())))
            if name == cut and kept < KEPT_BYTES:
                rows.append(np.moveaxis(value, 1, -1).reshape(-1, value.shape[1]))
                kept += value.nbytes
        scores.append(values[computed.index(spelling.OUTPUT)])
        done += len(values[0])
        progress("calibrate", done, len(images))
    ranges = {name: (lows[name], highs[name]) for name in tensors}
    return Observation(ranges, np.concatenate(scores), np.concatenate(rows) if cut else None)


def _batch(model: onnx.ModelProto, images: np.ndarray, tensors: Sequence[str]) -> int:
    """Return how many images to run at once: all tensors of a batch lie in memory together."""
    one = sum(value[0].nbytes for value in next(run_batches(model, images[:1], tensors)))
    return max(1, min(BATCH, BATCH_BYTES // one))


def _finite(name: str, value: float) -> float:
    if not np.isfinite(value):
        raise DataError(
            f"tensor {name} takes a value that is not finite: {value}",
            where="calibration",
            why="a range with infinity or NaN has no integer scale",
            fix="look for weights that have diverged, and for a wrong input scale",
        )
    return value


# ------------------------------------------------------------------------------------------- levels


@dataclass(frozen=True)
class Levels:
    """Of each channel: below `threshold` an element is stored as `low`, otherwise as `high`; float64 [C]."""

    threshold: np.ndarray
    low: np.ndarray
    high: np.ndarray


def two_levels(rows: np.ndarray) -> Levels:
    """Return the two levels that represent each column of rows, [positions, channels], best.

    Best is a local minimum of the squared error: Lloyd's iteration from the mean, in one dimension and with
    two levels (S. P. Lloyd, Least squares quantization in PCM, IEEE Trans. Inf. Theory 28(2), 1982). The
    threshold is halfway between the levels. A constant column has low = high = threshold.
    """
    columns = [_two_levels(np.sort(column).astype(np.float64)) for column in rows.T]
    return Levels(*(np.array(part) for part in zip(*columns, strict=True)))


def _two_levels(ordered: np.ndarray) -> tuple[float, float, float]:
    """Return (threshold, low, high) of sorted values.

    It ends: no split comes back, since each has a smaller squared error than the one before.
    """
    sums, count = np.cumsum(ordered), len(ordered)
    threshold = sums[-1] / count
    split = int(np.searchsorted(ordered, threshold))  # so many values are below the threshold
    if ordered[0] == ordered[-1] or split in (0, count):
        return ordered[0], ordered[0], ordered[0]
    while True:
        low, high = sums[split - 1] / split, (sums[-1] - sums[split - 1]) / (count - split)
        threshold = (low + high) / 2
        following = int(np.searchsorted(ordered, threshold))
        if following == split:
            return threshold, low, high
        split = following
