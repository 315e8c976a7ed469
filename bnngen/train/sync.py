# SPDX-License-Identifier: Apache-2.0
"""Batch norm whose statistics are those of the whole batch, however many replicas share it."""

from __future__ import annotations

import tensorflow as tf


class SyncBatchNormalization(tf.keras.layers.BatchNormalization):
    """Batch norm over the last axis of a batch that is spread over the replicas of a tf.distribute strategy.

    It computes what BatchNormalization computes on one device, in float32: the moving variance is the unbiased one,
    as fused batch norm keeps it. Only for training; the weights are those of
    BatchNormalization, which the saved model has in its place.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """inputs: [..., C], any float type."""
        x = tf.cast(inputs, tf.float32)
        if training:
            mean, variance = self._whole_batch(x)
        else:
            mean, variance = self.moving_mean, self.moving_variance
        y = tf.nn.batch_normalization(x, mean, variance, self.beta, self.gamma, self.epsilon)
        return tf.cast(y, inputs.dtype)

    def _whole_batch(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return mean and variance [C] over all replicas, in two passes, and move the averages towards them."""
        axes = list(range(x.shape.rank - 1))
        sums = tf.reduce_sum(x, axes)
        count = tf.cast(tf.size(x) // x.shape[-1], tf.float32)
        total = _sum_of_replicas(tf.concat([sums, count[None]], axis=0))
        mean, count = total[:-1] / total[-1], total[-1]
        variance = _sum_of_replicas(tf.reduce_sum(tf.square(x - mean), axes)) / count
        unbiased = variance * count / tf.maximum(count - 1, 1)
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, unbiased)):
            moving.assign_sub((moving - tf.stop_gradient(now)) * (1 - self.momentum))
        return mean, variance


def _sum_of_replicas(value: tf.Tensor) -> tf.Tensor:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)
