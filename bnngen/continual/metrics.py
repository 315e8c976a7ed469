# SPDX-License-Identifier: Apache-2.0
"""Accuracies of a learner over a stream of experiences, and what it forgot."""

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

    def accuracy_all(self, after: int) -> float:
        """Over the whole test set, classes still to come included."""
        return float(self.right[after].mean())

    def accuracy_of(self, after: int, group: int) -> float:
        """Over test samples of the classes that experience `group` brought."""
        return float(self.right[after][np.isin(self.labels, self.groups[group])].mean())

    def matrix(self) -> Array:
        """Return [experiences, experiences]: accuracy_of(after, group), NaN for groups still to come."""
        count = len(self.groups)
        table = np.full((count, count), np.nan)
        for after in range(count):
            table[after, : after + 1] = [self.accuracy_of(after, group) for group in range(after + 1)]
        return table

    def forgetting(self) -> float:
        """Mean over all groups but the last of (best accuracy before the end) - (accuracy at the end).

        Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning". 0 for a single experience.
        """
        table = self.matrix()
        if len(table) < 2:
            return 0.0
        return float(np.mean(np.nanmax(table[:-1, :-1], axis=0) - table[-1, :-1]))


def history(groups: Sequence[tuple[int, ...]], labels: Array, predictions: Sequence[Array]) -> History:
    """Return the history of class predictions, one array [N] after each experience."""
    right = np.array([np.asarray(p) == labels for p in predictions], bool)
    return History(tuple(groups), np.asarray(labels), right)
