# SPDX-License-Identifier: Apache-2.0
"""Model, optimizer and state of one training run, and its epochs.

The order of the images and their augmentation follow from (seed, epoch) alone, so a resumed run does what
an uninterrupted one would have done.
"""

from __future__ import annotations

import io
import math
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from bnngen.data import Dataset
from bnngen.errors import UsageError
from bnngen.train.augment import NO_AUGMENTATION, augment, augmentation_for
from bnngen.train.config import INPUT_OFFSET, INPUT_SCALE, Progress, TrainConfig, identity, trained_classes
from bnngen.train.models import build
from bnngen.train.outputs import write_log
from bnngen.train.precision import policy
from bnngen.train.state import EpochLog, RunState, damaged, load_state, save_state, state_file
from bnngen.train.teacher import Teacher, distillation
from bnngen.train.team import Team

WARMUP_SHARE = 0.05  # of all steps: until batch norm and Adam's moments have settled
EVAL_BATCH = 500

Split = tuple[np.ndarray, np.ndarray]  # uint8 images [N, H, W, C], int64 outputs of the head [N]


class Run:
    """One run on one worker.

    `trained` is the model in the form in which it takes its steps: under a precision policy, spread over replicas.
    `model` has the same weights in plain float32; it is what is measured and kept. They are one where nothing differs.
    """

    def __init__(self, config: TrainConfig, data: Dataset, team: Team, teacher: Teacher | None = None) -> None:
        tf.keras.utils.set_random_seed(config.seed)
        self.config, self.team, self.teacher = config, team, teacher
        self.file = state_file(config.out)
        self.augmentation = augmentation_for(data.shape) if config.augment else NO_AUGMENTATION
        self._build(data)
        self.state = RunState(identity(config, data))
        if config.resume:
            self._continue(self._saved_state())
        self.saved = len(self.state.log)  # epochs that are on disk
        self._train_step = tf.function(self._global_step, reduce_retracing=True)
        self._scores = tf.function(lambda x: self.model(_scaled(x), training=False), reduce_retracing=True)

    def _build(self, data: Dataset) -> None:
        config, ids = self.config, trained_classes(self.config, data)
        size = (config.backbone, data.shape, len(ids), config.form)
        with self.team.strategy.scope(), policy(config.precision):
            self.trained = build(*size, sync=self.team.replicas > 1)
            self.optimizer = tf.keras.optimizers.Adam(config.lr, jit_compile=False)
            if config.precision == "mixed_float16":
                self.optimizer = tf.keras.mixed_precision.LossScaleOptimizer(self.optimizer)
            if config.init is not None:
                _start_from(self.trained, config.init)
            self.optimizer.build(self.trained.trainable_variables)
        if self.teacher is not None:  # both outputs: the loss needs the scores before softmax as well
            logits = self.trained.get_layer("logits").output
            self._outputs = tf.keras.Model(self.trained.input, [self.trained.output, logits])
        # Outside the scope: what it holds must be readable by one worker alone.
        plain = self.team.replicas == 1 and config.precision == "float32"
        self.model = self.trained if plain else build(*size)

    def _saved_state(self) -> RunState:
        """Read the state that the chief has; the other workers need no file."""
        if self.team.workers == 1:
            return load_state(self.file, self.state.identity)

        def read() -> bytes:
            load_state(self.file, self.state.identity)  # what is wrong with it is said before it is sent
            return self.file.read_bytes()

        return load_state(self.file, self.state.identity, io.BytesIO(self.team.from_chief(read)))

    def _continue(self, state: RunState) -> None:
        """Take up the weights and the optimizer where the interrupted run left them."""
        try:
            self.trained.set_weights(state.best_weights)  # needed at the end: whether they fit is seen now
            self.trained.set_weights(state.weights)
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
            state.weights = self.trained.get_weights()
            state.optimizer = [v.numpy() for v in self.optimizer.variables]
            if self.model is not self.trained:
                self.model.set_weights(state.weights)
            val_loss, val_accuracy = self.evaluate(val)
            state.log.append(EpochLog(len(state.log) + 1, lr, loss, accuracy, val_loss, val_accuracy,
                                      time.monotonic() - started))
            if state.best is state.log[-1]:
                state.best_weights = state.weights
            if self.team.chief:
                save_state(self.file, state)
                write_log(state.log, self.file.with_name("log.csv"))  # to look at; OUT.log.csv is the model's
            self.saved = len(state.log)

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
        loss, right, seen, lr = 0.0, 0, 0, 0.0
        progress(what, epoch * steps, total)  # the first step, with the graph to be made, may take long
        for i in range(steps):
            chosen = self.team.filled(order[i * batch:(i + 1) * batch], order)
            x = augment(fit[0][chosen], self.augmentation, rng)
            lr = learning_rate(epoch * steps + i, total, self.config.lr)
            shares = self.team.shares(x, fit[1][chosen])
            batch_loss, batch_right = self._train_step(*shares, tf.constant(lr), tf.constant(float(len(x))))
            loss += float(batch_loss)
            right += int(batch_right)
            seen += len(chosen)
            progress(what, epoch * steps + i + 1, total)
        return lr, loss / seen, right / seen

    def _global_step(self, x: object, y: object, lr: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One Adam step on a batch of `count` images, spread over the replicas; summed loss, right answers."""
        self.optimizer.learning_rate.assign(lr)
        loss, right = self.team.strategy.run(self._step, (x, y, count))
        return self.team.sum(loss), self.team.sum(right)

    def _step(self, x: tf.Tensor, y: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One replica's part: gradients of the mean over the whole batch, which apply_gradients adds up."""
        variables = self.trained.trainable_variables
        with tf.GradientTape() as tape:
            loss, scores = self._loss(x, y)
            mean = loss / count
            if self.config.precision == "mixed_float16":
                mean = self.optimizer.get_scaled_loss(mean)
        gradients = tape.gradient(mean, variables)
        if self.config.precision == "mixed_float16":
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss, tf.reduce_sum(tf.cast(tf.argmax(scores, axis=1) == y, tf.int32))

    def _loss(self, x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the summed loss and the scores."""
        if self.teacher is None:
            scores = self.trained(_scaled(x), training=True)
            return tf.reduce_sum(tf.keras.losses.sparse_categorical_crossentropy(y, scores)), scores
        scores, logits = self._outputs(_scaled(x), training=True)
        own = tf.keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
        learned = distillation(self.teacher.logits(x), logits, self.config.temperature)
        weight = self.config.distill_weight
        return tf.reduce_sum((1 - weight) * own + weight * learned), scores


def learning_rate(step: int, total: int, peak: float) -> float:
    """Linear warm-up, then half a cosine down to zero (Loshchilov & Hutter, ICLR 2017, without restarts)."""
    warmup = max(1, round(total * WARMUP_SHARE))
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


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
