# SPDX-License-Identifier: Apache-2.0
"""One continual-learning session on a target: new classes arrive, the device learns them, we measure.

The device gets pixels and labels; backbone, packing, replay memory and head run there. After every
experience the whole test set of the classes seen so far is classified by the learned head. A session may start
from what another one has saved, and may end with classes forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from bnngen.continual.state_file import LearnedState, known_classes, load_state
from bnngen.continual.stream import Experience

Array = np.ndarray
Progress = Callable[[str, int, int], None]
SECONDS_PER_CALL = 2.0  # of training: progress moves, and the line is not kept busy with questions
MOST_STEPS = 1 << 16  # in one call
SUMS = ("past", "sums", "moments")  # state items that add up (bnn_learner_merge in bnn/learn.h)


class Learner(Protocol):
    """What a session needs of a running target (docs/design.md, "Command server")."""

    def learn_init(self, seed: int) -> None: ...
    def begin(self) -> None: ...
    def add(self, label: int, image: Array) -> None: ...
    def step(self, most: int) -> tuple[int, bool]: ...
    def end(self) -> Verdict: ...
    def forget(self, label: int) -> None: ...
    def classify(self, image: Array) -> Array: ...
    def decide(self, image: Array) -> int: ...
    def state(self) -> list[int]: ...
    def sizes(self) -> list[int]: ...
    def read(self, item: int, offset: int, count: int) -> bytes: ...
    def write(self, item: int, data: bytes) -> None: ...
    def restore(self) -> None: ...
    def merge(self, item: int, data: bytes) -> None: ...


class Verdict(Protocol):
    """What end() says of an experience (docs/numerics.md, section 5.12)."""

    outcome: str
    known: int
    before: int
    after: int
    judged: int
    right: int
    new: int
    new_right: int


@dataclass(frozen=True)
class Course:
    """What a session consists of. test: (images uint8 [N, H, W, C], labels int [N]) of all its classes. start: what was
    learned before; merge: what another target has learned, to be added; forget: classes to forget at the end; decide:
    measure what is rejected as unknown too."""

    experiences: Sequence[Experience]
    test: tuple[Array, Array]
    seed: int
    start: LearnedState | None = None
    forget: tuple[int, ...] = ()
    decide: bool = False
    merge: LearnedState | None = None


@dataclass(frozen=True)
class Outcome:
    """After one experience, or after classes were forgotten (`event`). accuracy_seen: over test images of classes seen
    so far; accuracy_all: over all test images of the session, classes to come included. per_class: by class id, seen
    ones only. state: CRC-32 of every part of the learned state. verdict: of the target on the experience, with its
    counts. rejected: share of test images taken for unknown, of classes seen and of the others, where asked for."""

    experience: int
    classes: tuple[int, ...]
    samples: int
    steps: int
    accuracy_seen: float
    accuracy_all: float
    per_class: dict[int, float]
    state: tuple[int, ...]
    event: str = "learned"
    verdict: dict[str, str | int] = field(default_factory=dict)
    rejected: dict[str, float] = field(default_factory=dict)


def run_session(device: Learner, course: Course, progress: Progress) -> list[Outcome]:
    """Forget everything or start from what was saved, learn one experience after another, and measure after each.

    An experience that the target refuses is measured too: its classes were seen, and are not known.
    """
    device.learn_init(course.seed)
    seen: list[int] = []
    if course.start is not None:
        load_state(device, course.start)
        seen.extend(c for c in known_classes(course.start) if np.any(course.test[1] == c))
    if course.merge is not None:
        _merge(device, course.merge, progress)
        seen.extend(c for c in known_classes(course.merge) if np.any(course.test[1] == c) and c not in seen)
    outcomes = []
    for number, experience in enumerate(course.experiences):
        steps = train_experience(device, experience, f"experience {number}", progress)
        verdict = device.end()
        seen.extend(c for c in experience.classes if c not in seen)
        shown = (number, experience.classes, len(experience.labels), steps)
        outcomes.append(_measure(device, course, shown, seen, progress))
        outcomes[-1] = replace(outcomes[-1], verdict=_counts(verdict))
    if course.forget:
        for label in course.forget:
            device.forget(label)
        seen = [c for c in seen if c not in course.forget]
        shown = (len(course.experiences), course.forget, 0, 0)
        outcomes.append(replace(_measure(device, course, shown, seen, progress), event="forgot"))
    return outcomes


def _merge(device: Learner, other: LearnedState, progress: Progress) -> None:
    """Add another learner's sums as an experience, and solve."""
    device.begin()
    for number, (name, data) in enumerate(other.items.items()):
        if name in SUMS:
            device.merge(number, data)
    total, more = 0, True
    while more:
        steps, more = device.step(1)
        total += steps
        progress("merging", total, 0)
    device.end()


def _counts(verdict: Verdict) -> dict[str, str | int]:
    names = ("outcome", "known", "before", "after", "judged", "right", "new", "new_right")
    return {name: getattr(verdict, name) for name in names}


def _measure(
    device: Learner, course: Course, shown: tuple[int, tuple[int, ...], int, int], seen: list[int], progress: Progress
) -> Outcome:
    """shown: number, classes, samples and steps of the experience."""
    right = _classify(device, course.test, seen, f"test {shown[0]}", progress)
    hits = np.concatenate([*right.values(), np.zeros(0, bool)])
    return Outcome(
        *shown,
        float(hits.mean()) if len(hits) else 0.0,
        float(hits.sum() / len(course.test[1])),
        {c: float(r.mean()) for c, r in right.items()},
        tuple(device.state()),
        rejected=_rejected(device, course.test, seen, progress) if course.decide else {},
    )


def _rejected(device: Learner, test: tuple[Array, Array], seen: Sequence[int], progress: Progress) -> dict[str, float]:
    """Return the share of test images taken for unknown, of classes seen ("known") and of the others ("unknown")."""
    unknown = np.zeros(len(test[1]), bool)
    for index, image in enumerate(test[0]):
        unknown[index] = device.decide(image) < 0
        progress("decisions", index + 1, len(unknown))
    known = np.isin(test[1], seen)
    parts = {"known": unknown[known], "unknown": unknown[~known]}
    return {name: float(part.mean()) for name, part in parts.items() if len(part)}


def learn_experience(device: Learner, experience: Experience, what: str, progress: Progress) -> int:
    """Show one experience, train until the device is done, and close it; return the number of steps."""
    steps = train_experience(device, experience, what, progress)
    device.end()
    return steps


def train_experience(device: Learner, experience: Experience, what: str, progress: Progress) -> int:
    """Show one experience and train until the device is done; return the number of steps."""
    device.begin()
    count = len(experience.labels)
    for index, (image, label) in enumerate(zip(experience.images, experience.labels, strict=True)):
        device.add(int(label), image)
        progress(f"{what}, showing", index + 1, count)
    return train(device, what, progress)


def train(device: Learner, what: str, progress: Progress) -> int:
    """Train on what has been shown until the device is done; return the number of steps."""
    total, most, more = 0, 1, True
    while more:
        start = time.monotonic()
        steps, more = device.step(most)
        most = _steps_per_call(most, steps, time.monotonic() - start)
        total += steps
        progress(f"{what}, training", total, 0)
    return total


def _steps_per_call(most: int, steps: int, seconds: float) -> int:
    """Return how many steps to ask for next: what SECONDS_PER_CALL allow, but at most twice as many as before.

    The first call asks for one: how long a minibatch takes on this core is not known. Steps are the same
    however they are asked for, so this changes no result.
    """
    if seconds * 2 * most <= SECONDS_PER_CALL * steps:
        return min(2 * most, MOST_STEPS)
    return max(1, int(SECONDS_PER_CALL * steps / seconds))


def _classify(
    device: Learner, test: tuple[Array, Array], seen: Sequence[int], what: str, progress: Progress
) -> dict[int, Array]:
    """Return, for each seen class, which of its test images the learned head gets right."""
    images, labels = test
    chosen = np.flatnonzero(np.isin(labels, seen))
    right = np.zeros(len(labels), bool)
    for index, place in enumerate(chosen):
        right[place] = int(np.argmax(device.classify(images[place]))) == labels[place]
        progress(what, index + 1, len(chosen))
    return {c: right[labels == c] for c in seen if np.any(labels == c)}
