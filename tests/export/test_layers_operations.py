# SPDX-License-Identifier: Apache-2.0
"""Layers that move values, TensorFlow operations between layers, and layers that are taken apart into them."""

from __future__ import annotations

import larq
import numpy as np
import pytest
import tensorflow as tf

from bnngen import ir
from bnngen.export.keras_graph import build_graph
from tests.export.layerwise import compare, fill
from tests.export.test_layers_convolutions import SIGNS, fresh_names, model_of, quant, stem  # noqa: F401

layers = tf.keras.layers

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


def test_arithmetic_with_constants_and_tensors(tmp_path):
    image, x = stem()
    y = layers.Conv2D(6, 1, name="other")(x)
    padded = layers.ZeroPadding2D(1, name="padded")(x)
    channels = tf.constant([0.5, -1, 2, 0, 1, 0.25])
    branches = [
        x + y, x - y, x * y, x + 1.5, 2.0 - x, x * channels, x - channels, x / 4.0, -x, x * x, tf.square(x),
        tf.nn.bias_add(x, channels), tf.add_n([x, y, x]), tf.abs(x), tf.maximum(x, 0.25), tf.minimum(0.5, x),
        tf.clip_by_value(x, -0.5, 0.75), tf.nn.relu(x), tf.nn.relu6(x), tf.nn.leaky_relu(x, alpha=0.125), tf.nn.elu(x),
        tf.nn.silu(x), tf.sigmoid(x), tf.tanh(x), tf.sign(x), larq.math.sign(x), tf.identity(x), tf.stop_gradient(x),
        tf.cast(x, tf.float32) + 1.0, x * tf.nn.relu6(x + 3.0) / 6.0, tf.keras.activations.hard_sigmoid(x),
        larq.activations.leaky_tanh(x), x * tf.reduce_mean(x, axis=[1, 2], keepdims=True),
        tf.reduce_mean(x, [1, 2]) + 1.0, tf.reduce_max(x, axis=(1, 2)) * 2.0, tf.nn.max_pool2d(x, 3, 2, "SAME"),
        tf.nn.avg_pool2d(x, [1, 2, 3, 1], [1, 2, 1, 1], "VALID"),
    ]  # fmt: skip
    branches += [tf.nn.sigmoid(padded), padded + padded, tf.reduce_mean(padded, [1, 2]), tf.identity(padded) * 2.0]
    branches += [
        tf.pad(tf.pad(x, [[0, 0], [1, 0], [0, 0], [0, 0]]), [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=0.5)
    ]
    compared = compare(model_of(image, branches), tmp_path)
    names = {branch._keras_history.layer.name for branch in branches}
    assert len(names - set(compared.layers)) <= 2, "only what changes nothing has no tensor"


def shuffle(x: tf.Tensor, groups: int) -> tf.Tensor:
    """ShuffleNet's: channel g * n + i goes to i * groups + g."""
    _, height, width, channels = x.shape
    x = tf.reshape(x, [-1, height, width, groups, channels // groups])
    return tf.reshape(tf.transpose(x, [0, 1, 2, 4, 3]), [-1, height, width, channels])


def test_channels_are_split_joined_padded_and_shuffled(tmp_path):
    image, x = stem()
    bits = larq.quantizers.SteSign(name="bits")(x)
    first, second, third = tf.split(x, 3, axis=-1)
    left, right = tf.split(x, [4, -1], axis=3)
    by_layers = layers.Permute((1, 2, 4, 3), name="permute")(layers.Reshape((8, 9, 3, 2), name="groups")(x))
    branches = [
        tf.concat([third, first, second], axis=-1),
        tf.concat([right, left], axis=3),
        x[..., 1:4] + 1.0,
        x[:, :, :, ::2],
        x[:, ::2, ::3, :],
        x[..., ::-1],
        tf.gather(x, [5, 0, 0, 2], axis=-1),
        tf.pad(x, [[0, 0], [0, 0], [0, 0], [1, 2]]),
        tf.pad(x, [[0, 0], [1, 0], [0, 2], [0, 1]]),
        x + tf.pad(x[..., 2:], [[0, 0], [0, 0], [0, 0], [2, 0]]),
        shuffle(x, 2),
        shuffle(shuffle(x, 3), 2),
        layers.Reshape((8, 9, 6), name="joined_again")(by_layers),
        quant.QuantConv2D(3, 3, kernel_quantizer="ste_sign", name="shuffled_bits")(shuffle(bits, 3)),
        quant.QuantConv2D(3, 3, kernel_quantizer="ste_sign", name="half_of_bits")(bits[..., :3]),
        tf.squeeze(tf.reduce_mean(x, [1, 2], keepdims=True), [1, 2])[:, 1:3] + 0.5,
        layers.Reshape((432,), name="vector")(x),
        layers.Reshape((8, 9, 6), name="map_again")(layers.Flatten(name="flat")(x)),
        tf.reshape(x, (tf.shape(x)[0], 432)) * 2.0,
        layers.Conv2D(3, 1, name="on_a_point")(layers.Reshape((1, 1, 432), name="point")(layers.Flatten()(x))),
        quant.QuantConv2D(3, 1, name="bits_of_a_point", **SIGNS)(layers.Reshape((1, 1, 432), name="point_2")(x)),
    ]
    compared = compare(model_of(image, branches), tmp_path)
    assert {"shuffled_bits", "half_of_bits", "joined_again", "on_a_point", "bits_of_a_point"} <= set(compared.layers)
    shuffles = [node for node in compared.graph.of_type(ir.Channels) if node.index.tolist() == [0, 3, 1, 4, 2, 5]]
    assert shuffles, "groups of two"


class OwnScale(tf.keras.layers.Layer):
    """A user's class: weights, a branch, operations."""

    def build(self, shape: tf.TensorShape) -> None:
        self.gain = self.add_weight(name="kernel", shape=(1, 1, shape[-1]))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(x * self.gain) - 0.5 * x


class ShiftedSign(larq.quantizers.Quantizer):
    """A quantizer of the user's own: three operations."""

    precision = 1

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.sign(tf.sign(x - 0.25) + 0.1)


def test_lambdas_and_layers_of_the_users_own_are_taken_apart(tmp_path):
    image, x = stem()
    y = layers.Conv2D(6, 1, name="other")(x)
    halves = layers.Lambda(lambda t: tf.split(t, 2, axis=-1), name="halves")(x)
    branches = [
        layers.Lambda(lambda t: t, name="nothing")(x),
        layers.Lambda(lambda t: t[0] + tf.pad(t[1][..., :2], [[0, 0], [0, 0], [0, 0], [4, 0]]), name="improve")([x, y]),
        layers.Lambda(lambda t, by: t * by, arguments={"by": 3.0}, name="by")(x),
        layers.Concatenate(name="swapped")(halves[::-1]),
        OwnScale(name="own")(x),
        ShiftedSign(name="sign_layer")(x),
        quant.QuantConv2D(3, 3, input_quantizer=ShiftedSign(), kernel_quantizer=ShiftedSign(), name="own_signs")(x),
    ]
    model = model_of(image, branches)
    compared = compare(model, tmp_path)
    assert {"improve", "by", "swapped", "own", "sign_layer", "own_signs"} <= set(compared.layers)
    first, second = (build_graph(model).builder.model("m", 4).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second, "names of operations do not depend on what ran before"


def test_nested_models_and_layers_without_weights_used_twice(tmp_path):
    image, x = stem((7, 7, 2), 4)
    relu = layers.ReLU(name="relu")
    start = layers.Input((7, 7, 4))
    other = layers.Input((7, 7, 4))
    two = tf.keras.Model([start, other], [start + other, layers.Conv2D(3, 2, name="stem")(other)], name="two")
    total, convolved = two([relu(x), layers.BatchNormalization(name="norm")(x)])
    inner = tf.keras.Sequential(
        [layers.Input((7, 7, 4)), layers.Conv2D(4, 3, name="stem"), layers.ReLU(), layers.GlobalAveragePooling2D()],
        name="sequence",
    )
    branches = [relu(total), convolved, inner(x)]
    compared = compare(model_of(image, branches), tmp_path)
    names = [node.name for node in compared.graph.of_type(ir.Conv2D)]
    assert sorted(names) == ["sequence/stem", "stem", "two/stem"]


def test_a_sequence_comes_in_and_other_layers_than_dense_go_out(tmp_path):
    image, x = stem((9, 3), 4)
    x = layers.Conv1D(4, 3, name="last")(x)
    compare(fill(tf.keras.Model(image, layers.GlobalAveragePooling1D()(x)), 1), tmp_path)
    image, x = stem()
    x = layers.Flatten()(layers.AveragePooling2D((6, 7), name="pool")(layers.Conv2D(4, 3, name="classes")(x)))
    compared = compare(fill(tf.keras.Model(image, tf.nn.softmax(x)), 1), tmp_path)
    assert compared.scores.shape == (6, 4) and compared.scores.min() < 0, "the softmax is left out"


def test_zeros_in_a_kernel_do_not_become_signs(tmp_path):
    """tf.sign as a kernel quantizer gives 0 for 0: such a kernel is real-valued, not binary."""
    image, x = stem()
    y = quant.QuantConv2D(3, 3, input_quantizer="ste_sign", kernel_quantizer=tf.sign, use_bias=False, name="conv")(x)
    model = model_of(image, [y])
    kernel = np.random.default_rng(0).choice([-0.5, 0.25], (3, 3, 6, 3)).astype(np.float32)
    model.get_layer("conv").kernel.latent_variable.assign(kernel)
    assert len(list(compare(model, tmp_path).graph.of_type(ir.BinaryConv2D))) == 1
    kernel[0, 0, 0, 0] = 0
    model.get_layer("conv").kernel.latent_variable.assign(kernel)
    assert not list(compare(model, tmp_path).graph.of_type(ir.BinaryConv2D))
