# SPDX-License-Identifier: Apache-2.0
"""One continual-learning session on a target: new classes arrive, the device learns them, we measure.

The device gets pixels and labels; backbone, packing, replay memory and head run there. After every
experience the whole test set of the classes seen so far is classified by the learned head.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bnngen.continual.stream import Experience

Array = np.ndarray
Progress = Callable[[str, int, int], None]
SECONDS_PER_CALL = 2.0  # of training: progress moves, and the line is not kept busy with questions
MOST_STEPS = 1 << 16  # in one call


class Learner(Protocol):
    """What a session needs of a running target (docs/design.md, "Command server")."""

    def learn_init(self, seed: int) -> None: ...
    def begin(self) -> None: ...
    def add(self, label: int, image: Array) -> None: ...
    def step(self, most: int) -> tuple[int, bool]: ...
    def end(self) -> None: ...
    def classify(self, image: Array) -> Array: ...
    def state(self) -> list[int]: ...


@dataclass(frozen=True)
class Outcome:
    """After one experience. accuracy_seen: over test images of classes seen so far; accuracy_all: over
    all test images of the session, classes to come included. per_class: by class id, seen ones only.
    state: CRC-32 of every part of the learned state."""

    experience: int
    classes: tuple[int, ...]
    samples: int
    steps: int
    accuracy_seen: float
    accuracy_all: float
    per_class: dict[int, float]
    state: tuple[int, ...]


def run_session(
    device: Learner,
    experiences: Sequence[Experience],
    test: tuple[Array, Array],
    seed: int,
    progress: Progress,
) -> list[Outcome]:
    """Forget everything, then learn one experience after another and measure after each.

    test: (images uint8 [N, H, W, C], labels int [N]) of all classes of the session.
    """
    device.learn_init(seed)
    seen: list[int] = []
    outcomes = []
    for number, experience in enumerate(experiences):
        steps = learn_experience(device, experience, f"experience {number}", progress)
        seen.extend(c for c in experience.classes if c not in seen)
        right = _classify(device, test, seen, f"test {number}", progress)
        outcomes.append(
            Outcome(
                number,
                experience.classes,
                len(experience.labels),
                steps,
                float(np.concatenate(list(right.values())).mean()),
                float(sum(r.sum() for r in right.values()) / len(test[1])),
                {c: float(r.mean()) for c, r in right.items()},
                tuple(device.state()),
            )
        )
    return outcomes


def learn_experience(device: Learner, experience: Experience, what: str, progress: Progress) -> int:
    """Show one experience and train until the device is done; return the number of steps."""
    device.begin()
    count = len(experience.labels)
    for index, (image, label) in enumerate(zip(experience.images, experience.labels, strict=True)):
        device.add(int(label), image)
        progress(f"{what}, showing", index + 1, count)
    steps = train(device, what, progress)
    device.end()
    return steps


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
