# SPDX-License-Identifier: Apache-2.0
"""Accuracies of a learner over a stream of experiences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class History:
    """What was right after each experience.

    groups: classes new in each experience. labels: int [N] of the test set. right: bool [experiences, N],
    whether test sample n was classified correctly after experience i. Accuracies are fractions, 0 to 1.
    """

    groups: tuple[tuple[int, ...], ...]
    labels: Array
    right: Array

    def accuracy_seen(self, after: int) -> float:
        """Over test samples of the classes shown up to and including experience `after`."""
        seen = [c for group in self.groups[: after + 1] for c in group]
        return float(self.right[after][np.isin(self.labels, seen)].mean())


def history(groups: Sequence[tuple[int, ...]], labels: Array, predictions: Sequence[Array]) -> History:
    """Return the history of class predictions, one array [N] after each experience."""
    right = np.array([np.asarray(p) == labels for p in predictions], bool)
    return History(tuple(groups), np.asarray(labels), right)
