# SPDX-License-Identifier: Apache-2.0
"""Train a Larq backbone: Adam, warm-up and cosine decay, resumable after every epoch.

The epoch to keep is chosen on held-out training images; the test set is measured once, at the end. With several
workers each does all of this on its share of every batch, and the chief writes.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from contextlib import nullcontext, suppress
from dataclasses import replace

import numpy as np
import tensorflow as tf

from bnngen.data import DataFetchNeeded, Dataset, holdout, load, subset
from bnngen.errors import DataError, TrainingInterrupted, UsageError
from bnngen.train.config import (
    Progress,
    TrainConfig,
    TrainResult,
    check,
    check_out,
    identity,
    resolved,
    trained_classes,
)
from bnngen.train.keras_datasets import fetch
from bnngen.train.outputs import result_of, write_outputs
from bnngen.train.precision import resolve
from bnngen.train.run import Run, Split
from bnngen.train.state import refuse_lost_state, state_file
from bnngen.train.teacher import Teacher, load_teacher
from bnngen.train.team import Team, gather_team

LOSS_OF_A_WORKER = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError,
                    tf.errors.DeadlineExceededError, tf.errors.InternalError)


def train(config: TrainConfig, progress: Progress = lambda what, done, total: None) -> TrainResult:
    """Train, choose the best epoch, measure it on the test set once, and write the model and its sidecars.

    progress(what, done, total) is called after every step; `what` tells the last epoch's figures.
    Raises UsageError for a request that cannot be met, DataError for data that do not fit or a state that
    cannot be read, and TrainingInterrupted on Ctrl-C or when another worker is lost: what was reached by the last
    whole epoch can then be resumed.
    """
    check(config)
    team = gather_team(config.strategy)
    config, data, teacher = team.together(lambda: _prepared(config, team))
    team.agree(_digest(config, data), "other settings or data")
    run = Run(config, data, team, teacher)
    try:
        result = _fit(run, data, progress)
        _leave(team)
    except KeyboardInterrupt as interrupt:
        raise _interrupted(run) from interrupt
    except LOSS_OF_A_WORKER as error:
        if team.workers == 1:
            raise
        raise _lost(run, error) from error
    return result


def _prepared(config: TrainConfig, team: Team) -> tuple[TrainConfig, Dataset, Teacher | None]:
    """Load the data and the teacher, and fill in what was left to choose."""
    if team.chief:
        check_out(config.out)
        if not (config.resume or config.restart):
            refuse_lost_state(state_file(config.out))
    data = _load(config)
    holdout(len(data.x_train))  # refuses too few images before anything is written
    config = replace(resolved(config, data), precision=resolve(config.precision))
    if config.batch < team.replicas:
        raise UsageError(f"--batch {config.batch} is less than the {team.replicas} devices",
                         why="each takes its share of every batch", fix="give a larger --batch, or fewer devices")
    if config.teacher is None:
        return config, data, None
    names = [data.classes[i] for i in trained_classes(config, data)]
    return config, data, load_teacher(config.teacher, data.shape, names)


def _leave(team: Team) -> None:
    """Wait for the others. The chief has written everything: whom it loses now does not matter."""
    with suppress(tf.errors.OpError) if team.chief else nullcontext():
        team.wait()


def _fit(run: Run, data: Dataset, progress: Progress) -> TrainResult:
    """Train, measure, and on the chief write."""
    config, state = run.config, run.state
    ids = trained_classes(config, data)
    kept, held = holdout(len(data.x_train))
    fit, val = (_split(data.x_train[i], data.y_train[i], ids) for i in (kept, held))
    run.fit_all(fit, val, progress)
    run.model.set_weights(state.best_weights)
    _, test_accuracy = run.evaluate(_split(data.x_test, data.y_test, ids))
    if not math.isfinite(state.best.val_loss):
        raise DataError("the training diverged: its loss is not a number any more", where=f"--lr {config.lr:g}",
                        why="nothing was written; an earlier model is as it was", fix="train with a smaller --lr")
    if not run.team.chief:
        return replace(result_of(state, config, test_accuracy), chief=False)
    result = write_outputs(run.model, state, config, data, test_accuracy)
    if not config.keep_state:
        shutil.rmtree(run.file.parent)
    return replace(result, never_trained=int((~np.isin(data.y_test, data.y_train)).sum()))


def _load(config: TrainConfig) -> Dataset:
    """Load the data, downloading a known set on first use, and keep the trained classes."""
    try:
        data = load(config.data, cache=config.cache)
    except DataFetchNeeded as needed:
        fetch(needed.name, needed.file)
        data = load(config.data, cache=config.cache)
    if len(data.classes) < 2:
        raise DataError(f"{data.name} has one class alone", where="--data", why="there is nothing to tell apart",
                        fix="give images of at least two classes")
    return data if config.classes is None else subset(data, config.classes)


def _split(x: np.ndarray, y: np.ndarray, ids: tuple[int, ...]) -> Split:
    """Labels as outputs of the head: class ids[k] becomes k."""
    output = np.full(max(ids) + 1, -1, dtype=np.int64)
    output[list(ids)] = np.arange(len(ids))
    return x, output[y]


def _digest(config: TrainConfig, data: Dataset) -> bytes:
    """SHA-256 of what must be equal on all workers."""
    settings = identity(config, data) | {"resume": config.resume}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).digest()


def _interrupted(run: Run) -> TrainingInterrupted:
    done = run.saved
    if not done:
        again = "start it again with --restart" if run.file.exists() else "start it again"
        return TrainingInterrupted("training stopped in the first epoch", fix=again)
    return TrainingInterrupted(f"training stopped after {done} of {run.config.epochs} epochs",
                               where=str(run.file), why="the state is kept after every epoch",
                               fix="run the same command with --resume to continue")


def _lost(run: Run, error: tf.errors.OpError) -> TrainingInterrupted:
    """What to say where a step failed because another worker is not there any more."""
    stopped = _interrupted(run)
    return TrainingInterrupted(f"another worker was lost; {stopped.message}", where=stopped.where,
                               why=f"TensorFlow says {type(error).__name__}", fix=f"{stopped.fix}, on every worker")
