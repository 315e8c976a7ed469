# SPDX-License-Identifier: Apache-2.0
"""binary-chain: a plain chain of binary convolutions, no shortcut, "same" padding with zeros (Larq's default).

Between two binary convolutions stands nothing but batch norm and sign, so every one of them folds into integer
thresholds.
"""

from __future__ import annotations

import tensorflow as tf

from bnngen.train.models.parts import Parts, Shape, Signs, layers

FILTERS = (32, 64, 64, 128)
STRIDES = (1, 2, 1, 2)
STRIDED_STEM_FROM = 28  # pixels: from this side length on the stem halves the image


def binary_chain(name: str, parts: Parts, shape: Shape, classes: int) -> tf.keras.Model:
    """Build the chain. shape: [H, W, C] of the images; classes: outputs of the head."""
    image = layers.Input(shape, name="image")
    x = parts.stem(image, parts.filters(FILTERS[0]), 2 if min(shape[:2]) >= STRIDED_STEM_FROM else 1)
    for i, (filters, stride) in enumerate(zip(FILTERS, STRIDES, strict=True), start=1):
        x = parts.conv(x, parts.filters(filters), f"chain{i}_conv", Signs(), strides=stride)
        x = parts.batch_norm(x, f"chain{i}_bn")
    return parts.head(image, x, classes, name)
