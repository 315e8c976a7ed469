# SPDX-License-Identifier: Apache-2.0
"""What is measured after an experience: accuracies, forgetting, the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray


def confusion_matrix(labels: Array, predictions: Array, count: int) -> Array:
    """Return int64 [count, count]: rows are the right classes, columns the predicted ones."""
    matrix = np.zeros((count, count), np.int64)
    np.add.at(matrix, (labels, predictions), 1)
    return matrix


def per_class(matrix: Array) -> list[float | None]:
    """Return the accuracy of each class in [0, 1]; None for one without test images."""
    totals = matrix.sum(axis=1)
    return [float(matrix[c, c] / n) if n else None for c, n in enumerate(totals)]


def accuracy(matrix: Array, classes: Sequence[int] | None = None) -> float | None:
    """Return the share of test images that were right, of some classes or of all; None without test images."""
    rows = matrix if classes is None else matrix[list(classes)]
    right = np.trace(matrix) if classes is None else sum(matrix[c, c] for c in classes)
    return float(right / rows.sum()) if rows.sum() else None


def forgetting(history: Sequence[Sequence[float | None]], seen_before: Sequence[int]) -> float | None:
    """Return the mean, over classes seen before the last experience, of the best earlier accuracy minus the last one.

    history: per-class accuracies after each measured experience, the last one last. The measure of Chaudhry et al.,
    Riemannian Walk, 2018, by classes instead of tasks, because classes return. None where nothing was seen before.
    """
    if len(history) < 2:
        return None
    last, drops = history[-1], []
    for c in seen_before:
        earlier = [row[c] for row in history[:-1] if row[c] is not None]
        if earlier and last[c] is not None:
            drops.append(max(earlier) - last[c])
    return float(np.mean(drops)) if drops else None
