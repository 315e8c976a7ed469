# SPDX-License-Identifier: Apache-2.0
"""reactnet-18 and birealnet-18: the two binary forms of ResNet-18 that the continual-learning papers train.

Both have 16 binary 3x3 convolutions in four stages, each with a shortcut of its own, kernels scaled by their mean
magnitude, and at 32x32 a 3x3 stem without stride or max-pooling. A stage begins with stride 2: its shortcut is an
average over 2x2 pixels and a real-valued 1x1 convolution.

    birealnet-18  y = shortcut(x) + BN(conv(sign(x)))                              Liu et al., ECCV 2018
    reactnet-18   y = RPReLU(shortcut(x) + BN(conv(sign(x + b)))), b learned       Liu et al., ECCV 2020

The latents of Vorabbi et al. (arXiv 2401.09916) are those behind block 13 of 16: `stage4_block1`.
"""

from __future__ import annotations

import tensorflow as tf

from bnngen.train.layers import LearnedShift, RPReLU
from bnngen.train.models.parts import Parts, Shape, Signs, layers, require_side

FILTERS = (64, 128, 256, 512)
BLOCKS = 4
SMALLEST = 8
STRIDED_STEM_FROM = 64  # pixels: larger images than the papers' are halved once more, by the stem

REACTNET_SIGNS = Signs("approx", "magnitude", relu=False)  # its RPReLU is the float twin's nonlinearity
BIREALNET_SIGNS = Signs("approx", "magnitude")


def reactnet18(name: str, parts: Parts, shape: Shape, classes: int) -> tf.keras.Model:
    """Build ReActNet in the layout of ResNet-18. shape: [H, W, C]; classes: outputs of the head."""
    return _resnet18(name, parts, shape, classes)


def birealnet18(name: str, parts: Parts, shape: Shape, classes: int) -> tf.keras.Model:
    """Build Bi-Real-Net-18. shape: [H, W, C]; classes: outputs of the head."""
    return _resnet18(name, parts, shape, classes)


def _resnet18(name: str, parts: Parts, shape: Shape, classes: int) -> tf.keras.Model:
    require_side(shape, SMALLEST, name, "three stages")
    block = _react_block if name == "reactnet-18" else _bireal_block
    image = layers.Input(shape, name="image")
    x = parts.stem(image, parts.filters(FILTERS[0]), 2 if min(shape[:2]) >= STRIDED_STEM_FROM else 1)
    for stage, filters in enumerate(FILTERS, start=1):
        for number in range(1, BLOCKS + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            x = block(parts, x, (parts.filters(filters), stride), f"stage{stage}_block{number}")
    return parts.head(image, x, classes, name)


def _bireal_block(parts: Parts, x: tf.Tensor, size: tuple[int, int], name: str) -> tf.Tensor:
    """size: filters and stride."""
    filters, stride = size
    y = parts.conv(x, filters, f"{name}_conv", BIREALNET_SIGNS, strides=stride)
    y = parts.batch_norm(y, f"{name}_bn")
    return layers.Add(name=f"{name}_add")([_shortcut(parts, x, size, name), y])


def _react_block(parts: Parts, x: tf.Tensor, size: tuple[int, int], name: str) -> tf.Tensor:
    """size: filters and stride."""
    filters, stride = size
    y = LearnedShift(name=f"{name}_shift")(x)
    y = parts.conv(y, filters, f"{name}_conv", REACTNET_SIGNS, strides=stride)
    y = parts.batch_norm(y, f"{name}_bn")
    y = layers.Add(name=f"{name}_add")([_shortcut(parts, x, size, name), y])
    return RPReLU(name=f"{name}_rprelu")(y)


def _shortcut(parts: Parts, x: tf.Tensor, size: tuple[int, int], name: str) -> tf.Tensor:
    """x itself, or brought to the block's size; "same" pools odd sides as the convolution's stride does."""
    filters, stride = size
    if stride == 1:
        return x
    x = layers.AveragePooling2D(2, strides=stride, padding="same", name=f"{name}_shortcut_pool")(x)
    return parts.pointwise(x, filters, f"{name}_shortcut")
