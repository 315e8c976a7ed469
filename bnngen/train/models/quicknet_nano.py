# SPDX-License-Identifier: Apache-2.0
"""quicknet-nano: a residual binary network after QuickNet (Bannink et al., MLSys 2021), for microcontrollers.

A block is x + BN(relu(binary 3x3 convolution)), padded with +1; stages are joined by ReLU, 2x2 max-pooling and a
real-valued 1x1 convolution. Sizes: docs/training.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from bnngen.train.models.parts import Parts, Shape, Signs, layers, require_side


@dataclass(frozen=True)
class Size:
    """filters: channels of each stage; blocks: residual blocks of each stage; from `strided_from` pixels on, the
    shorter side of the image, the stem halves it."""

    filters: tuple[int, int, int]
    blocks: int
    strided_from: int


SIZES = {
    "quicknet-nano-s": Size((32, 64, 128), 1, 16),  # Cortex-M0+, 36 KiB of RAM
    "quicknet-nano": Size((32, 64, 128), 2, 28),  # Cortex-M4; 15 M multiply-accumulates at 32x32x3
    "quicknet-nano-l": Size((64, 128, 256), 3, 64),  # Cortex-M7, 320 KiB of RAM
}
SMALLEST = 4
# The ReLU of the float twin is behind the convolution, as in the binary one.
SIGNS = Signs(relu=False)


def quicknet_nano(name: str, parts: Parts, shape: Shape, classes: int) -> tf.keras.Model:
    """Build one of SIZES. shape: [H, W, C] of the images; classes: outputs of the head."""
    require_side(shape, SMALLEST, name, "two poolings")
    size = SIZES[name]
    image = layers.Input(shape, name="image")
    x = parts.stem(image, parts.filters(size.filters[0]), 2 if min(shape[:2]) >= size.strided_from else 1)
    for stage, count in enumerate(size.filters, start=1):
        filters = parts.filters(count)
        if stage > 1:
            x = _transition(parts, x, filters, f"transition{stage - 1}")
        for block in range(1, size.blocks + 1):
            x = _residual_block(parts, x, filters, f"stage{stage}_block{block}")
    x = layers.ReLU(name="head_relu")(x)
    return parts.head(image, x, classes, name)


def _residual_block(parts: Parts, x: tf.Tensor, filters: int, name: str) -> tf.Tensor:
    y = parts.conv(x, filters, f"{name}_conv", SIGNS, pad_values=1.0, activation="relu")
    return layers.Add(name=f"{name}_add")([x, parts.batch_norm(y, f"{name}_bn")])


def _transition(parts: Parts, x: tf.Tensor, filters: int, name: str) -> tf.Tensor:
    """Halve the image and widen it."""
    x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    return parts.pointwise(x, filters, name)
