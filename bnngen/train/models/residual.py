# SPDX-License-Identifier: Apache-2.0
"""reactnet-18 and birealnet-18: the two binary forms of ResNet-18 that the continual-learning papers train.

Both have 16 binary 3x3 convolutions in four stages, each with a shortcut of its own, kernels scaled by their mean
magnitude, and at 32x32 a 3x3 stem without stride or max-pooling. A stage begins with stride 2: its shortcut is an
average over 2x2 pixels and a real-valued 1x1 convolution. reactnet-nano has the same blocks in the size of
quicknet-nano; its last stage has three blocks behind the strided one, which a device can train.

    birealnet-18  y = shortcut(x) + BN(conv(sign(x)))                              Liu et al., ECCV 2018
    reactnet-18   y = RPReLU(shortcut(x) + BN(conv(sign(x + b)))), b learned       Liu et al., ECCV 2020

The latents of Vorabbi et al. (arXiv 2401.09916) are those behind block 13 of 16: `stage4_block1`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from bnngen.train.layers import LearnedShift, RPReLU
from bnngen.train.models.parts import Parts, Shape, Signs, layers, require_side


@dataclass(frozen=True)
class Layout:
    """filters, blocks: of each stage; from `strided_from` pixels on, the shorter side of the image, the stem halves
    it; `smallest`: the shortest side that the stages leave anything of."""

    filters: tuple[int, ...]
    blocks: tuple[int, ...]
    strided_from: int
    smallest: int


RESNET18 = Layout((64, 128, 256, 512), (4, 4, 4, 4), 64, 8)  # larger images than the papers' are halved once more
NANO = Layout((32, 64, 128), (2, 2, 4), 28, 4)  # 17 M multiply-accumulates at 32x32x3

REACTNET_SIGNS = Signs("approx", "magnitude", relu=False)  # its RPReLU is the float twin's nonlinearity
BIREALNET_SIGNS = Signs("approx", "magnitude")
Block = Callable[[Parts, tf.Tensor, tuple[int, int], str], tf.Tensor]  # ..., (filters, stride), name


def reactnet18(name: str, parts: Parts, shape: Shape, classes: int) -> tf.keras.Model:
    """Build ReActNet in the layout of ResNet-18. shape: [H, W, C]; classes: outputs of the head."""
    return _residual(name, parts, shape, classes, (RESNET18, _react_block))


def birealnet18(name: str, parts: Parts, shape: Shape, classes: int) -> tf.keras.Model:
    """Build Bi-Real-Net-18. shape: [H, W, C]; classes: outputs of the head."""
    return _residual(name, parts, shape, classes, (RESNET18, _bireal_block))


def reactnet_nano(name: str, parts: Parts, shape: Shape, classes: int) -> tf.keras.Model:
    """Build the small ReActNet. shape: [H, W, C]; classes: outputs of the head."""
    return _residual(name, parts, shape, classes, (NANO, _react_block))


def _residual(name: str, parts: Parts, shape: Shape, classes: int, form: tuple[Layout, Block]) -> tf.keras.Model:
    layout, block = form
    require_side(shape, layout.smallest, name, f"{len(layout.filters) - 1} stages")
    image = layers.Input(shape, name="image")
    x = parts.stem(image, parts.filters(layout.filters[0]), 2 if min(shape[:2]) >= layout.strided_from else 1)
    for stage, filters in enumerate(layout.filters, start=1):
        for number in range(1, layout.blocks[stage - 1] + 1):
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
