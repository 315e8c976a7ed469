# SPDX-License-Identifier: Apache-2.0
"""Runs the exported graph over the calibration images: ranges of all tensors, levels of the 1-bit latent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from bnngen.export.config import Progress
from bnngen.export.ranges import RangeMeter
from bnngen.export.session import BATCH, runner
from bnngen.frontend import spelling

KEPT_BYTES = 1 << 26  # of the cut tensor, to fit levels on: images beyond are left out of the fit
BATCH_BYTES = 1 << 27  # of all tensors of one batch
HEAD_FINEST = 128  # the range reaches at least this part of the largest root to either side: a centre fits 32 bits
HEAD_QUANTILES = (0.0005, 0.9995)  # of what the learned head reads: operands cover this range


@dataclass(frozen=True)
class Observation:
    """What calibration saw. ranges: tensor -> metadata of its range. scores: float32 [N, classes].

    cut: values of the cut tensor in rows, float32 [positions, channels]; features: of the head's input, float32
    [images, features]; None without a cut.
    """

    ranges: dict[str, dict[str, list[float]]]
    scores: np.ndarray
    cut: np.ndarray | None
    features: np.ndarray | None


@dataclass(frozen=True)
class Watch:
    """What to look at. tensors: the real-valued ones, the image and the scores among them. cut: the tensor whose
    values are kept, None without one, then features, the head's input, are kept too. method: of calibration, one of
    config.METHODS."""

    tensors: Sequence[str]
    cut: str | None
    method: str
    features: str | None = None


def observe(model: onnx.ModelProto, images: np.ndarray, watch: Watch, progress: Progress) -> Observation:
    """Run the model over images, float32 [N, H, W, C]. Raises DataError where a value is not finite."""
    meters = _meters(model, watch)
    computed = [name for name in meters if name != spelling.INPUT]
    run = runner(model, computed)
    scores, rows, features, kept, done, batch = [], [], [], 0, 0, 1
    while done < len(images):
        part = images[done : done + batch]
        values = dict(zip(computed, run(part), strict=True))
        for name, meter in meters.items():
            meter.see(values[name] if name in values else np.moveaxis(part, -1, 1))
        if watch.cut and kept < KEPT_BYTES:
            value = values[watch.cut]
            rows.append(np.moveaxis(value, 1, -1).reshape(-1, value.shape[1]))
            kept += value.nbytes
        if watch.cut and watch.features:
            features.append(values[watch.features].reshape(len(part), -1))
        scores.append(values[spelling.OUTPUT])
        done += len(part)
        batch = max(1, min(BATCH, BATCH_BYTES * len(part) // sum(value.nbytes for value in values.values())))
        progress("calibrate", done, len(images))
    ranges = {name: meter.range() for name, meter in meters.items()}
    cut, vectors = (np.concatenate(part) if part else None for part in (rows, features))
    return Observation(ranges, np.concatenate(scores), cut, vectors)


def _meters(model: onnx.ModelProto, watch: Watch) -> dict[str, RangeMeter]:
    """Return a meter for every tensor that needs a range: transposed maps, and vectors as maps of one pixel, need none.

    A vector that is a flattened map has one range for all elements: channels repeat at every position.
    """
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == TensorProto.INT64}
    together = set()
    wanted = dict.fromkeys(watch.tensors)
    for node in model.graph.node:
        (output,) = node.output
        if node.op_type == "Reshape" and shapes[node.input[1]].shape == (2,):
            together.add(output)
        elif node.op_type in ("Transpose", "Reshape"):
            wanted.pop(output, None)
    return {name: RangeMeter(name, watch.method, together=name in together) for name in wanted}


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


def levels_beside(rows: np.ndarray, threshold: np.ndarray) -> Levels:
    """Return given thresholds [channels], and the means of the values on either side of them.

    A side without a value takes the threshold itself, and the lower level stays below it: a level must have the sign
    that its bit stands for.
    """
    values = rows.astype(np.float64)
    below = values < threshold
    counts = np.maximum(below.sum(axis=0), 1), np.maximum((~below).sum(axis=0), 1)
    low = np.where(below.any(axis=0), np.where(below, values, 0).sum(axis=0) / counts[0], threshold)
    high = np.where((~below).any(axis=0), np.where(below, 0, values).sum(axis=0) / counts[1], threshold)
    least = np.finfo(np.float32).eps * np.maximum(np.abs(threshold), np.abs(high - threshold))
    return Levels(threshold, np.minimum(low, threshold - least), high)


def head_map(features: np.ndarray) -> dict[str, Any]:
    """Return the metadata of what the learned head reads: roots of the features, less their mean (numerics.md, 5.1).

    features: float32 [images, features]. The root evens out channels of different size, the mean takes away what all
    classes have in common; both are known before deployment. The range leaves out one value in a thousand.
    """
    roots = signed_root(features.astype(np.float64))
    mean = roots.mean(axis=0)
    lo, hi = np.quantile(roots - mean, HEAD_QUANTILES)
    least = float(np.abs(roots).max()) / HEAD_FINEST or 1.0  # features that hardly differ: other images' may
    lo, hi = min(lo, -least), max(hi, least)
    return {"root": True, "mean": mean.tolist(), "lo": float(lo), "hi": float(hi)}


def signed_root(values: np.ndarray) -> np.ndarray:
    """Return the square roots of the magnitudes, with the values' signs."""
    return np.sign(values) * np.sqrt(np.abs(values))


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
