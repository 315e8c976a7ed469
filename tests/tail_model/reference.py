# SPDX-License-Identifier: Apache-2.0
"""A trainable tail in float64, as docs/adr/0012 says it, tap by tap: no code of the toolchain takes part."""

from __future__ import annotations

import numpy as np

from bnngen.lower.tail import TailBlock, TailSpec

Array = np.ndarray


def features(spec: TailSpec, x: Array) -> Array:
    """Return the features [N, C] of maps x, float64 [N, H, W, C], at the cut."""
    for block in spec.blocks:
        x = one_block(block, x)
    if spec.relu:
        x = np.maximum(x, 0)
    return x.mean(axis=(1, 2))


def one_block(block: TailBlock, x: Array) -> Array:
    a = x if block.shift is None else x + block.shift
    signs = np.where(a >= 0, 1.0, -1.0)
    y = convolution(signs, np.where(block.latent.astype(int) >= 0, 1.0, -1.0), float(block.pad))
    if block.relu:
        y = np.maximum(y, 0)
    x = x + block.scale * y + block.bias
    if block.after is not None:
        x = x + block.after.before
        x = np.where(x < 0, x * block.after.slope, x) + block.after.behind
    return x


def convolution(signs: Array, weights: Array, pad: float) -> Array:
    """signs [N, H, W, I], weights [O, 3, 3, I] -> [N, H, W, O]; `pad` stands outside the map."""
    height, width = signs.shape[1:3]
    framed = np.pad(signs, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=pad)
    return sum(
        framed[:, row : row + height, column : column + width] @ weights[:, row, column].T
        for row in range(3)
        for column in range(3)
    )
