# SPDX-License-Identifier: Apache-2.0
"""Streams: what each scenario promises, for any seed, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from bnngen.continual.scenarios import Scenario, make_stream
from bnngen.errors import DataError, UsageError

CLASSES, EACH, TRACKS = 10, 24, 6
LABELS = np.random.default_rng(5).permutation(np.repeat(np.arange(CLASSES), EACH))
GROUPS = np.zeros_like(LABELS)
for _c in range(CLASSES):
    GROUPS[np.flatnonzero(_c == LABELS)] = np.arange(EACH) % TRACKS
ALL = tuple(range(CLASSES))
SEEDS = range(5)


def made(name: str, seed: int = 0, classes: tuple[int, ...] = ALL, **options: object) -> list:
    return make_stream(Scenario(name, classes, **options), LABELS, GROUPS, seed)


def shown_once(stream: list, classes: tuple[int, ...] = ALL) -> bool:
    places = np.concatenate([shown.places for shown in stream])
    return np.array_equal(np.sort(places), np.flatnonzero(np.isin(LABELS, classes)))


@pytest.mark.parametrize("name", ["nc", "ni", "nicv2", "group"])
def test_a_seed_decides_the_stream(name):
    options = {"experiences": TRACKS} if name == "ni" else {}
    first, again, other = (made(name, seed, **options) for seed in (1, 1, 2))
    assert all(np.array_equal(a.places, b.places) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a.places, b.places) for a, b in zip(first, other, strict=False))
    new = [c for shown in first for c in shown.classes]
    assert sorted(new) == list(ALL), "each class is new once"


@pytest.mark.parametrize("seed", SEEDS)
def test_nc_shows_each_class_in_one_experience(seed):
    stream = made("nc", seed, first=4, per_experience=3)
    assert [len(shown.classes) for shown in stream] == [4, 3, 3]
    assert all(set(LABELS[shown.places]) == set(shown.classes) for shown in stream)
    assert shown_once(stream)
    assert [len(shown.classes) for shown in made("nc", seed)] == [2] * 5


def test_nc_takes_a_given_order_and_a_part_of_the_classes():
    stream = made("nc", classes=(1, 4, 7, 9), order=(9, 1, 7, 4), per_experience=1, train_limit=5)
    assert [shown.classes for shown in stream] == [(9,), (1,), (7,), (4,)]
    assert [len(shown.places) for shown in stream] == [5] * 4
    assert len(made("nc", experiences=2)) == 2


@pytest.mark.parametrize("seed", SEEDS)
def test_ni_shows_all_classes_in_every_experience(seed):
    stream = make_stream(Scenario("ni", ALL, experiences=5), LABELS, None, seed)
    assert len(stream) == 5
    assert all(set(LABELS[shown.places]) == set(ALL) for shown in stream)
    assert shown_once(stream)
    sizes = [len(shown.places) for shown in stream]
    assert max(sizes) - min(sizes) <= CLASSES


def test_ni_keeps_groups_whole():
    stream = made("ni", experiences=3)
    for shown in stream:
        for c in ALL:
            tracks, counts = np.unique(GROUPS[shown.places[LABELS[shown.places] == c]], return_counts=True)
            assert len(tracks) == TRACKS // 3 and set(counts) == {EACH // TRACKS}


@pytest.mark.parametrize("seed", SEEDS)
def test_nicv2_brings_a_class_and_a_few_tracks_at_a_time_and_classes_return(seed):
    stream = made("nicv2", seed, groups_per_experience=2)
    assert len(stream[0].classes) == 2  # a fifth, as 10 of CORe50's 50
    assert len(stream) == 1 + CLASSES * TRACKS // 2 - 2
    for shown in stream[1:]:
        assert len(set(LABELS[shown.places])) == 1
        assert len(set(GROUPS[shown.places])) == 2
    assert shown_once(stream)
    later = [LABELS[shown.places[0]] for shown in stream[1:]]
    assert len(later) > len(set(later)), "classes return"


def test_nicv2_with_several_classes_at_a_time():
    stream = made("nicv2", 3, first=3, per_experience=4)
    assert all(len(set(LABELS[shown.places])) <= 4 for shown in stream[1:])
    assert shown_once(stream)


@pytest.mark.parametrize("seed", SEEDS)
def test_group_shows_one_group_at_a_time(seed):
    stream = made("group", seed)
    assert len(stream) == TRACKS
    assert all(len(set(GROUPS[shown.places])) == 1 for shown in stream)
    assert shown_once(stream)
    assert stream[0].classes == ALL and all(shown.classes == () for shown in stream[1:])


REFUSED = {
    "one class": dict(name="nc", classes=(3,)),
    "no image of a class": dict(name="nc", classes=(3, 12)),
    "more first than there are": dict(name="nc", first=11),
    "more at a time than there are": dict(name="nicv2", per_experience=11),
    "more experiences than tracks": dict(name="ni", experiences=TRACKS + 1),
    "an order of other classes": dict(name="nc", order=(0, 1, 2)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    with pytest.raises(UsageError) as error:
        made(**REFUSED[case])
    assert error.value.fix


@pytest.mark.parametrize("name", ["nicv2", "group"])
def test_groups_must_be_there(name):
    with pytest.raises(DataError, match="needs groups"):
        make_stream(Scenario(name, ALL), LABELS, None, 0)


def test_more_experiences_than_images_of_a_class():
    with pytest.raises(UsageError, match="24 training images for 25 experiences"):
        make_stream(Scenario("ni", ALL, experiences=25), LABELS, None, 0)
