# SPDX-License-Identifier: Apache-2.0
"""Train a Larq backbone: Adam, warm-up and cosine decay, resumable after every epoch.

The order of the images and their augmentation follow from (seed, epoch) alone, so a resumed run does what
an uninterrupted one would have done. The epoch to keep is chosen on held-out training images; the test
set is measured once, at the end.
"""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from bnngen.data import DataFetchNeeded, Dataset, holdout, load, subset
from bnngen.errors import DataError, TrainingInterrupted, UsageError
from bnngen.train.augment import NO_AUGMENTATION, augment, augmentation_for
from bnngen.train.config import (
    INPUT_OFFSET,
    INPUT_SCALE,
    Progress,
    TrainConfig,
    TrainResult,
    check,
    identity,
    resolved,
    trained_classes,
)
from bnngen.train.keras_datasets import fetch
from bnngen.train.models import BACKBONES
from bnngen.train.outputs import write_log, write_outputs
from bnngen.train.state import (
    EpochLog,
    RunState,
    damaged,
    load_state,
    refuse_lost_state,
    save_state,
    state_file,
)

WARMUP_SHARE = 0.05  # of all steps: until batch norm and Adam's moments have settled
EVAL_BATCH = 500

Split = tuple[np.ndarray, np.ndarray]  # uint8 images [N, H, W, C], int64 outputs of the head [N]


def train(config: TrainConfig, progress: Progress = lambda what, done, total: None) -> TrainResult:
    """Train, choose the best epoch, measure it on the test set once, and write the model and its sidecars.

    progress(what, done, total) is called after every step; `what` tells the last epoch's figures.
    Raises UsageError for a request that cannot be met, DataError for data that do not fit or a state that
    cannot be read, and TrainingInterrupted on Ctrl-C: what was reached by the last whole epoch can then be
    resumed.
    """
    check(config)
    if not (config.resume or config.restart):
        refuse_lost_state(state_file(config.out))
    data = _load(config)
    config = resolved(config, data)
    ids = trained_classes(config, data)
    kept, held = holdout(len(data.x_train))
    fit, val = (_split(data.x_train[i], data.y_train[i], ids) for i in (kept, held))
    config.out.parent.mkdir(parents=True, exist_ok=True)
    run = _Run(config, data)
    try:
        run.fit_all(fit, val, progress)
        run.model.set_weights(run.state.best_weights)
        _, test_accuracy = run.evaluate(_split(data.x_test, data.y_test, ids))
        if not math.isfinite(run.state.best.val_loss):
            raise DataError("the training diverged: its loss is not a number any more", where=f"--lr {config.lr:g}",
                            why="nothing was written; an earlier model is as it was", fix="train with a smaller --lr")
        result = write_outputs(run.model, run.state, config, data, test_accuracy)
    except KeyboardInterrupt as interrupt:
        raise _interrupted(run) from interrupt
    if not config.keep_state:
        shutil.rmtree(run.file.parent)
    return result


class _Run:
    """Model, optimizer and state of one run."""

    def __init__(self, config: TrainConfig, data: Dataset) -> None:
        tf.keras.utils.set_random_seed(config.seed)
        self.config = config
        self.file = state_file(config.out)
        self.augmentation = augmentation_for(data.shape) if config.augment else NO_AUGMENTATION
        self.model = BACKBONES[config.backbone](data.shape, len(trained_classes(config, data)))
        if config.init is not None:
            _start_from(self.model, config.init)
        self.optimizer = tf.keras.optimizers.Adam(config.lr, jit_compile=False)
        self.optimizer.build(self.model.trainable_variables)
        self.state = RunState(identity(config, data))
        if config.resume:
            self._continue(load_state(self.file, self.state.identity))
        self.saved = len(self.state.log)  # epochs that are on disk
        self._train_step = tf.function(self._step, reduce_retracing=True)
        self._scores = tf.function(lambda x: self.model(_scaled(x), training=False), reduce_retracing=True)

    def _continue(self, state: RunState) -> None:
        """Take up the weights and the optimizer where the interrupted run left them."""
        try:
            self.model.set_weights(state.best_weights)  # needed at the end: whether they fit is seen now
            self.model.set_weights(state.weights)
            for variable, value in zip(self.optimizer.variables, state.optimizer, strict=True):
                variable.assign(value)
        except ValueError as error:
            raise damaged(self.file, error) from error
        self.state = state

    def fit_all(self, fit: Split, val: Split, progress: Progress) -> None:
        """Train the epochs that are still to be done, saving the state after each."""
        state = self.state
        while len(state.log) < self.config.epochs:
            started = time.monotonic()
            lr, loss, accuracy = self._fit_epoch(fit, progress)
            val_loss, val_accuracy = self.evaluate(val)
            state.log.append(EpochLog(len(state.log) + 1, lr, loss, accuracy, val_loss, val_accuracy,
                                      time.monotonic() - started))
            state.weights = self.model.get_weights()
            state.optimizer = [v.numpy() for v in self.optimizer.variables]
            if state.best is state.log[-1]:
                state.best_weights = state.weights
            save_state(self.file, state)
            self.saved = len(state.log)
            write_log(state.log, self.file.with_name("log.csv"))  # to look at; OUT.log.csv is the model's

    def evaluate(self, split: Split) -> tuple[float, float]:
        """Return the mean cross-entropy in nats and the share of right answers."""
        loss, right = 0.0, 0
        for i in range(0, len(split[0]), EVAL_BATCH):
            x, y = (part[i:i + EVAL_BATCH] for part in split)
            scores = self._scores(tf.constant(x)).numpy()
            loss -= float(np.log(np.maximum(scores[np.arange(len(y)), y], 1e-7)).sum())
            right += int((scores.argmax(axis=1) == y).sum())
        return loss / len(split[0]), right / len(split[0])

    def _fit_epoch(self, fit: Split, progress: Progress) -> tuple[float, float, float]:
        """One pass over the training images; returns the last learning rate, mean loss and accuracy."""
        epoch, batch = len(self.state.log), self.config.batch
        steps = math.ceil(len(fit[0]) / batch)
        total = self.config.epochs * steps
        rng = np.random.default_rng([self.config.seed, epoch])
        order = rng.permutation(len(fit[0]))
        what = _figures(self.state.log, self.config.epochs)
        loss, right, lr = 0.0, 0, 0.0
        for i in range(steps):
            chosen = order[i * batch:(i + 1) * batch]
            x = augment(fit[0][chosen], self.augmentation, rng)
            lr = learning_rate(epoch * steps + i, total, self.config.lr)
            batch_loss, batch_right = self._train_step(*map(tf.constant, (x, fit[1][chosen], lr)))
            loss += float(batch_loss)
            right += int(batch_right)
            progress(what, epoch * steps + i + 1, total)
        return lr, loss / len(order), right / len(order)

    def _step(self, x: tf.Tensor, y: tf.Tensor, lr: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One Adam step on a batch; returns the summed loss and the number of right answers."""
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            scores = self.model(_scaled(x), training=True)
            loss = tf.reduce_sum(tf.keras.losses.sparse_categorical_crossentropy(y, scores))
            mean = loss / tf.cast(tf.shape(x)[0], tf.float32)
        self.optimizer.learning_rate.assign(lr)
        self.optimizer.apply_gradients(zip(tape.gradient(mean, variables), variables, strict=True))
        return loss, tf.reduce_sum(tf.cast(tf.argmax(scores, axis=1) == y, tf.int32))


def learning_rate(step: int, total: int, peak: float) -> float:
    """Linear warm-up, then half a cosine down to zero (Loshchilov & Hutter, ICLR 2017, without restarts)."""
    warmup = max(1, round(total * WARMUP_SHARE))
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


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


def _scaled(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(x, tf.float32) * INPUT_SCALE + INPUT_OFFSET


def _start_from(model: tf.keras.Model, path: Path) -> None:
    """Copy the weights of all layers but a head of another size; UsageError where others do not fit."""
    try:
        donor = tf.keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError("the model to start from cannot be read", where=str(path), why=str(error),
                         fix="give a .keras file that `bnngen train` wrote") from error
    weights = {layer.name: layer.get_weights() for layer in donor.layers}
    for layer in model.layers:
        old, new = weights.get(layer.name, []), layer.get_weights()
        if [w.shape for w in old] == [w.shape for w in new]:
            layer.set_weights(old)
        elif layer.name != "logits":
            raise UsageError(f"layer {layer.name} does not fit", where=str(path),
                             why="--init takes the weights of the same backbone with the same input channels",
                             fix="give a model of the same backbone, or leave --init out")


def _figures(log: list[EpochLog], epochs: int) -> str:
    """The running epoch, and how the last one went."""
    if not log:
        return f"epoch 1/{epochs}"
    last = log[-1]
    return f"epoch {last.epoch + 1}/{epochs}, loss {last.train_loss:.3f}, held-out {last.val_accuracy:.1%}"


def _interrupted(run: _Run) -> TrainingInterrupted:
    done = run.saved
    if not done:
        again = "start it again with --restart" if run.file.exists() else "start it again"
        return TrainingInterrupted("training stopped in the first epoch", fix=again)
    return TrainingInterrupted(f"training stopped after {done} of {run.config.epochs} epochs",
                               where=str(run.file), why="the state is kept after every epoch",
                               fix="run the same command with --resume to continue")
