# SPDX-License-Identifier: Apache-2.0
"""The backbones that `bnngen train` knows, as ordinary functional Keras models with Larq layers.

Every backbone takes float32 [N, H, W, C], x = (pixel - 128) / 128, and ends in a Dense layer named
`logits` and a softmax named `scores`. The export cuts there: scores are only for training.

Layer names are part of the contract: reports and error messages show them.
"""

from __future__ import annotations

from collections.abc import Callable

import larq
import tensorflow as tf

from bnngen.errors import DataError

layers = tf.keras.layers

STAGE_FILTERS = (32, 64, 128)
BLOCKS_PER_STAGE = 2
CHAIN_FILTERS = (32, 64, 64, 128)
CHAIN_STRIDES = (1, 2, 1, 2)
# From this side length on the stem halves the image: 32x32x3 then costs about 15 M multiply-accumulates.
STRIDED_STEM_FROM = 28
SMALLEST = 4


def quicknet_nano(shape: tuple[int, int, int], classes: int) -> tf.keras.Model:
    """Build a residual binary network after QuickNet (Bannink et al., MLSys 2021), cut to 15 M MACs.

    shape: [H, W, C] of the images; classes: outputs of the head.
    """
    if min(shape[:2]) < SMALLEST:
        raise DataError(f"images of {shape[0]} x {shape[1]} are too small for quicknet-nano", where="--data",
                        why=f"two poolings halve them: it needs {SMALLEST} x {SMALLEST}",
                        fix="train binary-chain instead")
    image = layers.Input(shape, name="image")
    x = _stem(image, STAGE_FILTERS[0], 2 if min(shape[:2]) >= STRIDED_STEM_FROM else 1)
    for stage, filters in enumerate(STAGE_FILTERS, start=1):
        if stage > 1:
            x = _transition(x, filters, f"transition{stage - 1}")
        for block in range(1, BLOCKS_PER_STAGE + 1):
            x = _residual_block(x, filters, f"stage{stage}_block{block}")
    x = layers.ReLU(name="head_relu")(x)
    return _head(image, x, classes, "quicknet-nano")


def binary_chain(shape: tuple[int, int, int], classes: int) -> tf.keras.Model:
    """Build a plain chain of binary convolutions: no shortcut, "same" padding with zeros (Larq's default).

    Between two binary convolutions stands nothing but batch norm and sign, so every one of them folds
    into integer thresholds. shape: [H, W, C] of the images; classes: outputs of the head.
    """
    image = layers.Input(shape, name="image")
    x = _stem(image, CHAIN_FILTERS[0], 2 if min(shape[:2]) >= STRIDED_STEM_FROM else 1)
    for i, (filters, stride) in enumerate(zip(CHAIN_FILTERS, CHAIN_STRIDES, strict=True), start=1):
        x = _binary_conv(filters, f"chain{i}_conv", strides=stride)(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"chain{i}_bn")(x)
    return _head(image, x, classes, "binary-chain")


BACKBONES: dict[str, Callable[[tuple[int, int, int], int], tf.keras.Model]] = {
    "quicknet-nano": quicknet_nano,
    "binary-chain": binary_chain,
}


def _stem(image: tf.Tensor, filters: int, stride: int) -> tf.Tensor:
    """Float 3x3 convolution and batch norm, without ReLU: what follows takes the sign of this tensor."""
    x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False, name="stem_conv")(image)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="stem_bn")(x)


def _binary_conv(filters: int, name: str, **options: object) -> larq.layers.QuantConv2D:
    """3x3 convolution of signs with signs.

    The latent weights are clipped to [-1, 1], where the straight-through estimator passes a gradient. The
    quantizers are named, since Keras would number them through the process and equal models would differ.
    """
    return larq.layers.QuantConv2D(filters, 3, padding="same", use_bias=False, name=name,
                                   input_quantizer=larq.quantizers.SteSign(name="input_sign"),
                                   kernel_quantizer=larq.quantizers.SteSign(name="kernel_sign"),
                                   kernel_constraint="weight_clip", **options)


def _residual_block(x: tf.Tensor, filters: int, name: str) -> tf.Tensor:
    """x + BN(relu(binary 3x3 convolution)), padded with +1, as in QuickNet."""
    y = _binary_conv(filters, f"{name}_conv", pad_values=1.0, activation="relu")(x)
    y = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(y)
    return layers.Add(name=f"{name}_add")([x, y])


def _transition(x: tf.Tensor, filters: int, name: str) -> tf.Tensor:
    """Halve the image and widen it: ReLU, 2x2 max-pooling, float 1x1 convolution, batch norm."""
    x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_conv")(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def _head(image: tf.Tensor, x: tf.Tensor, classes: int, name: str) -> tf.keras.Model:
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(classes, name="logits")(x)
    return tf.keras.Model(image, layers.Softmax(name="scores")(x), name=name.replace("-", "_"))
