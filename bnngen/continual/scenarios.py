# SPDX-License-Identifier: Apache-2.0
"""Streams of experiences as pure functions of labels, groups and a seed: which samples are shown, in which order.

nc     new classes: `first` classes, then `per_experience` at a time; the order of the classes is drawn by the seed
       (Lomonaco and Maltoni, CORe50, 2017: NC, NI).
ni     new instances: every experience has a share of the images of all classes.
nicv2  new instances and classes, in small steps (Lomonaco, Maltoni, Pellegrini, arXiv 1907.03799): `first` classes with
       a few groups (tracks, sessions) each, then a class or a few at a time with a few more of their groups; classes
       return until all groups have been shown.
group  one group (a speaker, a site) at a time, with all its images.
lists  experiences that somebody else has written down (data/core50.py).

The same seed gives the same stream to every method: comparisons are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnngen.errors import DataError, UsageError

Array = np.ndarray
SCENARIOS = ("nc", "ni", "nicv2", "group", "core50")
NEEDS_GROUPS = ("nicv2", "group")
NI_EXPERIENCES = 10
FEW_CLASSES = 10  # up to so many classes come in five experiences, more of them in ten
NIC_GROUPS = 2


@dataclass(frozen=True)
class Shown:
    """One experience. classes: those that are new in it. places: int64 [N] into the training set, as shown."""

    classes: tuple[int, ...]
    places: Array


@dataclass(frozen=True)
class Scenario:
    """What a stream is made by; None takes the default of the scenario.

    classes: those of the stream, in ascending order. order: the order of their arrival, instead of the seed's (nc).
    first, per_experience: classes in the first and in later experiences; of "group", groups. experiences: of "ni" how
    many; otherwise the stream ends after so many. groups_per_experience: of "nicv2", of each class. train_limit: most
    training images of a class.
    """

    name: str
    classes: tuple[int, ...]
    order: tuple[int, ...] | None = None
    first: int | None = None
    per_experience: int | None = None
    experiences: int | None = None
    groups_per_experience: int = NIC_GROUPS
    train_limit: int | None = None


def make_stream(scenario: Scenario, labels: Array, groups: Array | None, seed: int) -> list[Shown]:
    """Return the experiences of a seed. labels, groups: int [N] of the training set.

    Raises UsageError for a scenario that these data cannot serve, DataError for data without groups.
    """
    _check(scenario, labels, groups)
    rng = np.random.default_rng([seed, SCENARIOS.index(scenario.name)])
    pools = {c: _pool(labels, c, scenario.train_limit, rng) for c in scenario.classes}
    if scenario.name == "nc":
        parts = _new_classes(scenario, pools, rng)
    elif scenario.name == "ni":
        parts = _new_instances(scenario, pools, groups, rng)
    else:
        assert groups is not None
        make = _small_steps if scenario.name == "nicv2" else _by_group
        parts = make(scenario, pools, groups, rng)
    if scenario.name != "ni":
        parts = parts[: scenario.experiences]
    return shown_as(labels, [rng.permutation(places) for places in parts])


def shown_as(labels: Array, parts: Sequence[Array]) -> list[Shown]:
    """Return experiences of the given places, and which classes are new in each. DataError: an empty one."""
    seen: set[int] = set()
    stream = []
    for number, places in enumerate(parts):
        if len(places) == 0:
            raise DataError(
                f"experience {number} has no image",
                why="an experience shows something",
                fix="fewer experiences, or more images",
            )
        new = tuple(int(c) for c in np.unique(labels[places]) if int(c) not in seen)
        seen.update(new)
        stream.append(Shown(new, np.asarray(places, np.int64)))
    return stream


def defaults(scenario: Scenario) -> tuple[int, int]:
    """Return (first, per_experience) of a scenario by classes, with its defaults filled in."""
    count = len(scenario.classes)
    if scenario.name == "nicv2":
        return scenario.first or max(1, round(count / 5)), scenario.per_experience or 1
    per = scenario.per_experience or max(1, count // (5 if count <= FEW_CLASSES else 10))
    return scenario.first or per, per


def _pool(labels: Array, c: int, limit: int | None, rng: np.random.Generator) -> Array:
    """Return places of a class, a random choice where there are more than `limit`."""
    places = np.flatnonzero(labels == c)
    return places if limit is None or len(places) <= limit else np.sort(rng.choice(places, limit, replace=False))


def _new_classes(scenario: Scenario, pools: dict[int, Array], rng: np.random.Generator) -> list[Array]:
    order = scenario.order or tuple(int(c) for c in rng.permutation(scenario.classes))
    first, per = defaults(scenario)
    starts = [0, *range(first, len(order), per)]
    ends = [*starts[1:], len(order)]
    return [np.concatenate([pools[c] for c in order[a:b]]) for a, b in zip(starts, ends, strict=True)]


def _new_instances(
    scenario: Scenario, pools: dict[int, Array], groups: Array | None, rng: np.random.Generator
) -> list[Array]:
    """Deal out the images of each class, or its groups as wholes where groups are given."""
    count = scenario.experiences or NI_EXPERIENCES
    parts: list[list[Array]] = [[] for _ in range(count)]
    for number, (c, places) in enumerate(pools.items()):
        units = [places[i : i + 1] for i in range(len(places))] if groups is None else _units(places, groups)
        if len(units) < count:
            what = "training images" if groups is None else "groups"
            raise UsageError(
                f"class {c} has {len(units)} {what} for {count} experiences",
                where="--experiences",
                why="in this scenario every experience shows every class",
                fix=f"at most --experiences {len(units)}",
            )
        shuffled = rng.permutation(len(units))
        for place, share in enumerate(np.array_split(shuffled, count)):
            parts[(place + number) % count].extend(units[i] for i in share)
    return [np.concatenate(part) for part in parts]


def _small_steps(
    scenario: Scenario, pools: dict[int, Array], groups: Array, rng: np.random.Generator
) -> list[Array]:
    first, per = defaults(scenario)
    chunks: dict[int, list[Array]] = {}
    for c, places in pools.items():
        units = _units(places, groups)
        order, size = rng.permutation(len(units)), scenario.groups_per_experience
        chunks[c] = [np.concatenate([units[i] for i in order[s : s + size]]) for s in range(0, len(units), size)]
    beginning = [int(c) for c in rng.permutation(scenario.classes)[:first]]
    parts = [np.concatenate([chunks[c].pop(0) for c in beginning])]
    rest = rng.permutation([c for c, left in chunks.items() for _ in left])
    for turn in _distinct([int(c) for c in rest], per):
        parts.append(np.concatenate([chunks[c].pop(0) for c in turn]))
    return parts


def _distinct(classes: list[int], per: int) -> list[list[int]]:
    """Cut a sequence into turns of at most `per` classes, no class twice in one."""
    turns: list[list[int]] = []
    for c in classes:
        if turns and len(turns[-1]) < per and c not in turns[-1]:
            turns[-1].append(c)
        else:
            turns.append([c])
    return turns


def _by_group(scenario: Scenario, pools: dict[int, Array], groups: Array, rng: np.random.Generator) -> list[Array]:
    places = np.sort(np.concatenate(list(pools.values())))
    names = rng.permutation(np.unique(groups[places]))
    per = scenario.per_experience or 1
    first = scenario.first or per
    starts = [0, *range(first, len(names), per)]
    ends = [*starts[1:], len(names)]
    return [places[np.isin(groups[places], names[a:b])] for a, b in zip(starts, ends, strict=True)]


def _units(places: Array, groups: Array) -> list[Array]:
    """Return the places of one class by group; a group's number counts within its class."""
    return [places[groups[places] == g] for g in np.unique(groups[places])]


def _check(scenario: Scenario, labels: Array, groups: Array | None) -> None:
    count = len(scenario.classes)
    if scenario.name in NEEDS_GROUPS and groups is None:
        raise DataError(
            f"scenario {scenario.name} needs groups, and the data have none",
            why="it shows tracks, sessions or speakers, which labels alone do not tell",
            fix="put an array of integers such as track_train beside x_train in the .npz file; --groups names another",
        )
    if count < 2:
        raise UsageError(
            f"a stream of {count} class is nothing to tell apart", where="--classes", fix="name at least two classes"
        )
    empty = [c for c in scenario.classes if not np.any(labels == c)]
    if empty:
        raise UsageError(f"class {empty[0]} has no training image", where="--classes", fix="leave it out")
    if scenario.order is not None and sorted(scenario.order) != sorted(scenario.classes):
        raise UsageError(
            "--order does not name each class of the stream once", where="--order", fix="name each class once"
        )
    if scenario.name in ("nc", "nicv2"):
        first, per = defaults(scenario)
        if first > count or per > count:
            raise UsageError(
                f"{first} classes first and then {per} at a time: there are only {count} classes",
                where="--first" if first > count else "--per-experience",
                fix="choose numbers between 1 and the number of classes",
            )
