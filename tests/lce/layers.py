# SPDX-License-Identifier: Apache-2.0
"""Small Keras models, one for each thing that a binary layer can be: image [H, W, C] -> vector of values.

Their input is pixel - 128, of which the first layer takes the sign. So everything up to the last batch norm is an
integer, and there is something to be equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import larq
import numpy as np
import tensorflow as tf

layers = tf.keras.layers
Tensor = tf.Tensor
IMAGES = 6


@dataclass(frozen=True)
class Case:
    """One model. exact: its values are integers; otherwise they are real, and compared within the stream's step.

    binary: what the engine must have made of it, so that no float kernel stands in for what is compared.
    """

    shape: tuple[int, int, int]
    body: Callable[[Tensor], Tensor]
    exact: bool = True
    binary: tuple[str, ...] = ("LceBconv2d",)


def conv(filters: int, kernel: int | tuple[int, int], **options: object) -> layers.Layer:
    """Return a binary convolution; one-padding unless said otherwise."""
    defaults = {
        "padding": "same",
        "pad_values": 1.0,
        "use_bias": False,
        "input_quantizer": "ste_sign",
        "kernel_quantizer": "ste_sign",
        "kernel_constraint": "weight_clip",
    }
    return larq.layers.QuantConv2D(filters, kernel, **defaults | options)


def one(*arguments: object, **options: object) -> Callable[[Tensor], Tensor]:
    return lambda x: conv(*arguments, **options)(x)


def chain(*parts: Callable[[], layers.Layer]) -> Callable[[Tensor], Tensor]:
    """Return a function that applies new layers one behind the other."""

    def body(x: Tensor) -> Tensor:
        for part in parts:
            x = part()(x)
        return x

    return body


def norm() -> layers.Layer:
    return layers.BatchNormalization(epsilon=1e-3)


def relu() -> layers.Layer:
    return layers.ReLU()


def to_bits(**options: object) -> Callable[[Tensor], Tensor]:
    """Two convolutions with a batch norm between: the second, 1x1 with more filters than inputs, shows every bit."""
    first = {"filters": 40, "kernel": 3} | options
    return chain(lambda: conv(**first), norm, lambda: conv(48, 1))


ZERO = {"pad_values": 0.0}
CASES: dict[str, Case] = {
    "1x1": Case((6, 6, 32), one(24, 1)),
    "3x3": Case((7, 6, 32), one(32, 3)),
    "5x3": Case((8, 7, 32), one(16, (5, 3))),
    "channels_not_of_words": Case((6, 5, 40), one(37, 3)),
    "one_channel": Case((8, 8, 1), one(5, 3)),
    "stride_2_even": Case((8, 8, 33), one(20, 3, strides=2)),
    "stride_2_odd": Case((9, 7, 33), one(20, 3, strides=2)),
    "dilation_2": Case((9, 8, 32), one(16, 3, dilation_rate=2)),
    "valid": Case((7, 8, 32), one(16, 3, padding="valid")),
    "valid_stride_2": Case((9, 8, 31), one(16, 3, padding="valid", strides=2)),
    "zero_padding": Case((6, 7, 32), one(24, 3, **ZERO)),
    "zero_padding_stride_2_even": Case((8, 8, 40), one(24, 3, strides=2, **ZERO)),
    "zero_padding_stride_2_odd": Case((9, 9, 40), one(24, 3, strides=2, **ZERO)),
    "zero_padding_5x5": Case((6, 6, 32), one(12, 5, **ZERO)),
    "zero_padding_dilation_2": Case((9, 8, 32), one(12, 3, dilation_rate=2, **ZERO)),
    "approx_sign": Case((6, 6, 32), one(24, 3, input_quantizer="approx_sign")),
    "swish_sign": Case((6, 6, 32), one(24, 3, input_quantizer="swish_sign")),
    "magnitude_aware": Case((6, 6, 32), one(24, 3, kernel_quantizer="magnitude_aware_sign"), exact=False),
    "batch_norm": Case((6, 6, 36), chain(lambda: conv(24, 3), norm), exact=False),
    "relu_batch_norm": Case((6, 6, 36), chain(lambda: conv(24, 3), relu, norm), exact=False),
    "relu_batch_norm_zero_padding": Case((6, 6, 36), chain(lambda: conv(24, 3, **ZERO), relu, norm), exact=False),
    "bits": Case((7, 7, 33), to_bits()),
    "bits_zero_padding": Case((7, 7, 33), to_bits(**ZERO)),
    "bits_stride_2": Case((8, 7, 33), to_bits(strides=2)),
    "bits_relu": Case((6, 6, 33), chain(lambda: conv(40, 3), relu, norm, lambda: conv(48, 1))),
    "bits_magnitude_aware": Case((6, 6, 33), to_bits(kernel_quantizer="magnitude_aware_sign")),
    "bits_of_a_deep_chain": Case(
        (8, 8, 32), chain(lambda: conv(32, 3), norm, lambda: conv(64, 3), norm, lambda: conv(33, 3, **ZERO))
    ),
    "binary_max_pool": Case(
        (8, 9, 33),
        chain(lambda: conv(40, 3), norm, lambda: layers.MaxPool2D(2), lambda: conv(48, 1)),
        binary=("LceBconv2d", "LceBMaxPool2d"),
    ),
    "max_pool_before_batch_norm": Case(
        (9, 9, 33), chain(lambda: conv(40, 3), lambda: layers.MaxPool2D(3, 2), norm, lambda: conv(48, 1))
    ),
}


def build(name: str) -> tf.keras.Model:
    """Return the case's model with seeded weights; half of the batch norms' factors are negative."""
    case = CASES[name]
    image = layers.Input(case.shape, name="image")
    model = tf.keras.Model(image, layers.Flatten(name="flat")(case.body(image)), name=name)
    rng = np.random.default_rng(list(name.encode()))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            count = layer.gamma.shape[0]
            gamma = rng.uniform(0.3, 2, count) * rng.choice([-1, 1], count)
            layer.set_weights([gamma, rng.normal(0, 1, count), rng.normal(0, 8, count), rng.uniform(20, 300, count)])
        elif layer.weights:
            layer.set_weights([rng.uniform(-1, 1, weight.shape) for weight in layer.weights])
    return model


def pixels(name: str) -> np.ndarray:
    """Return the case's images, uint8; a few pixels are 128, where the sign is of 0."""
    x = np.random.default_rng(list(name.encode()) + [1]).integers(0, 256, (IMAGES, *CASES[name].shape))
    return np.where(x % 16 == 3, 128, x).astype(np.uint8)
