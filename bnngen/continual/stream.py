# SPDX-License-Identifier: Apache-2.0
"""Class-incremental streams: which samples a learner sees, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnngen.data.dataset import Dataset
from bnngen.errors import UsageError

Array = np.ndarray


@dataclass(frozen=True)
class Experience:
    """What is shown at once: images uint8 [N, H, W, C] (or features [N, D]), labels int64 [N], and the
    classes that are new in it. Labels are indices into the data set's classes."""

    classes: tuple[int, ...]
    images: Array
    labels: Array


@dataclass(frozen=True)
class NewClasses:
    """Scenario NC: `first` classes of `order` in the first experience, `per_experience` in each later one.

    train_cap: most training samples of a class (None: all). seed: decides which, and the order within each
    experience; the order of the classes is `order`.
    """

    order: tuple[int, ...]
    first: int
    per_experience: int
    train_cap: int | None = None
    seed: int = 0


def new_classes(data: Dataset, plan: NewClasses) -> list[Experience]:
    """Cut the training images into experiences. Raises UsageError for a plan that the data cannot serve."""
    _check(data, plan)
    rng = np.random.default_rng(plan.seed)
    experiences = []
    for group in _groups(plan):
        chosen = [capped(np.flatnonzero(data.y_train == c), plan.train_cap, rng) for c in group]
        places = rng.permutation(np.concatenate(chosen))
        experiences.append(Experience(group, data.x_train[places], data.y_train[places]))
    return experiences


def test_images(
    data: Dataset, classes: Sequence[int], cap: int | None = None, seed: int = 0
) -> tuple[Array, Array]:
    """Return (images, labels) of the test set: at most `cap` of each class, grouped by class as given."""
    rng = np.random.default_rng(seed)
    places = np.concatenate([capped(np.flatnonzero(data.y_test == c), cap, rng) for c in classes])
    return data.x_test[places], data.y_test[places]


test_images.__test__ = False  # type: ignore[attr-defined]  # the name is ours, not pytest's


def capped(places: Array, cap: int | None, rng: np.random.Generator) -> Array:
    """Return at most `cap` of the places, a random choice in ascending order; all where cap is None."""
    if cap is None or len(places) <= cap:
        return places
    return np.sort(rng.choice(places, cap, replace=False))


def _groups(plan: NewClasses) -> list[tuple[int, ...]]:
    starts = range(plan.first, len(plan.order), plan.per_experience)
    return [plan.order[: plan.first], *(plan.order[s : s + plan.per_experience] for s in starts)]


def _check(data: Dataset, plan: NewClasses) -> None:
    known = range(len(data.classes))
    wrong = [c for c in plan.order if c not in known]
    if wrong or len(set(plan.order)) != len(plan.order):
        raise UsageError(
            f"the class order {list(plan.order)} does not fit {data.name}",
            where="--order",
            why=f"each of its classes 0 to {len(known) - 1} may stand there once",
            fix="name existing classes, each once",
        )
    if not 1 <= plan.first <= len(plan.order) or plan.per_experience < 1:
        raise UsageError(
            f"{plan.first} classes first and then {plan.per_experience} at a time is no stream",
            where="--first",
            why=f"there are {len(plan.order)} classes, and an experience has at least one",
            fix="choose numbers between 1 and the number of classes",
        )
    empty = [c for c in plan.order if not np.any(data.y_train == c)]
    if empty:
        raise UsageError(
            f"class {empty[0]} has no training image",
            where=data.name,
            why="an experience shows each of its classes",
            fix="leave it out of the order",
        )
