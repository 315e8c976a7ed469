# SPDX-License-Identifier: Apache-2.0
"""One run of one seed, in whatever process: learn experience after experience, test, keep what was found.

A job that was stopped begins again: the learner is deterministic, so it learns the first experiences once more, and
tests only those that had not been tested. Its state after each must then be the recorded one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from bnngen.continual.scenarios import Shown, make_stream, shown_as
from bnngen.errors import BnngenError, DataError
from bnngen.simulate.config import PIXELS, Job
from bnngen.simulate.learners import Learner, open_learner
from bnngen.simulate.measure import accuracy, confusion_matrix, forgetting, per_class
from bnngen.simulate.results import append_part, read_part, write_result

Array = np.ndarray


@dataclass(frozen=True)
class Failure:
    """A BnngenError as data: it crosses the border of a process whatever its class."""

    message: str
    where: str
    why: str
    fix: str

    def error(self) -> BnngenError:
        return BnngenError(self.message, where=self.where, why=self.why, fix=self.fix)


@dataclass(frozen=True)
class Samples:
    """Everything a job learns and tests on. labels count the classes of the stream from 0."""

    stream: list[Shown]
    train: Array
    train_labels: Array
    test: Array
    test_labels: Array
    classes: tuple[int, ...]


def run_job(job: Job) -> Failure | None:
    """Do a job and write its result file. Returns what a user can act on when it fails."""
    try:
        samples = load_samples(job)
        size = samples.train[:1].reshape(1, -1).view(job.run.inputs.dtype).shape[1]
        learner = open_learner(job.run, size, job.seed)
        try:
            rows = _learn_all(job, samples, learner)
            write_result(job, rows, learner.memory)
        finally:
            learner.close()
    except BnngenError as error:
        return Failure(error.message, error.where, error.why, error.fix)
    return None


def load_samples(job: Job) -> Samples:
    """Open the inputs of a job and make its stream."""
    inputs = job.run.inputs
    with np.load(inputs.stream) as archive:
        files = {name: archive[name] for name in archive.files}
    stream = stream_of(job, files)
    rank = np.full(int(max(files["y_train"].max(), files["y_test"].max())) + 1, -1)
    rank[list(job.scenario.classes)] = range(len(job.scenario.classes))
    train, test = (np.load(path, mmap_mode="r") for path in (inputs.train, inputs.test))
    places = files["test"]
    test = np.ascontiguousarray(test[places]) if inputs.kind != PIXELS else test[places]
    return Samples(
        stream, train, rank[files["y_train"]], test, rank[files["y_test"][places]], job.scenario.classes
    )


def stream_of(job: Job, files: dict[str, Array]) -> list[Shown]:
    """Return the experiences of a job's seed: made by its scenario, or as they stand in written lists."""
    if job.scenario.name != "core50":
        return make_stream(job.scenario, files["y_train"], files.get("groups"), job.seed)
    runs = {name.split("_")[1] for name in files if name.startswith("part_")}
    if str(job.seed) not in runs:
        raise DataError(
            f"there are no lists of run {job.seed}",
            why=f"a seed is the number of a run; the lists have runs {', '.join(sorted(runs))}",
            fix="fewer --seeds",
        )
    names = takewhile(files.__contains__, (f"part_{job.seed}_{n}" for n in range(len(files))))
    return shown_as(files["y_train"], [files[name] for name in names][: job.scenario.experiences])


def _learn_all(job: Job, samples: Samples, learner: Learner) -> list[dict]:
    rows = read_part(job.part)[: len(samples.stream)]
    history = [row["per_class"] for row in rows if row["per_class"] is not None]
    seen: list[int] = []
    for number, shown in enumerate(samples.stream):
        start = time.monotonic()
        places = np.sort(shown.places)  # one pass over the file; `back` gives the order of the stream
        back = np.argsort(np.argsort(shown.places))
        shown_samples = samples.train[places][back]
        steps, verdict = learner.learn(shown_samples, samples.train_labels[shown.places])
        before = list(seen)
        seen += [samples.classes.index(c) for c in shown.classes]
        if number < len(rows):
            _same_state(rows[number], learner.state(), number)
            continue
        row = {
            "experience": number,
            "classes": list(shown.classes),
            "samples": len(shown.places),
            "steps": steps,
            "verdict": verdict,
            "learn_seconds": round(time.monotonic() - start, 3),
            "state": learner.state(),
        }
        last = number == len(samples.stream) - 1
        row |= _test(job, samples, learner, (number, last), (before, seen, history))
        rows.append(row)
        append_part(job.part, row)
    return rows


def _test(
    job: Job, samples: Samples, learner: Learner, place: tuple[int, bool], past: tuple[list, list, list]
) -> dict:
    """Return the measured part of a row. place: (number, whether it is the last). past: classes seen before, classes
    seen now, per-class accuracies so far, to which this test is added."""
    (number, last), (before, seen, history) = place, past
    names = ("accuracy_seen", "accuracy_all", "forgetting", "per_class", "confusion", "test_seconds")
    if not last and (number + 1) % job.evaluate_every:
        return dict.fromkeys(names)
    start = time.monotonic()
    matrix = confusion_matrix(samples.test_labels, learner.predict(samples.test), len(samples.classes))
    history.append(per_class(matrix))
    values = (
        accuracy(matrix, seen),
        accuracy(matrix),
        forgetting(history, before),
        history[-1],
        matrix.tolist() if last else None,
        round(time.monotonic() - start, 3),
    )
    return dict(zip(names, values, strict=True))


def _same_state(row: dict, state: list[int], number: int) -> None:
    """Raise BnngenError when a job that begins again does not come by the same state."""
    if row["state"] != state:
        raise BnngenError(
            f"experience {number} was learned otherwise than before",
            why="the same program, seed and data give the same bytes",
            fix="delete the output folder and begin anew; if it happens again, it is a defect",
        )
