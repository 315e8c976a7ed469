# SPDX-License-Identifier: Apache-2.0
"""Training images, varied a little: random shift, and mirroring where a mirrored thing is the same thing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Augmentation:
    """shift: most pixels an image moves in each direction; flip: mirror left and right every second one."""

    shift: int = 0
    flip: bool = False


NO_AUGMENTATION = Augmentation()


def augmentation_for(shape: tuple[int, int, int]) -> Augmentation:
    """Return the usual augmentation for images [H, W, C].

    Colour images are taken for photographs: flip, and a shift by an eighth (4 pixels at 32x32). Grey ones
    may be digits or letters, which have no mirror image: a shift by a sixteenth (1 pixel at 16x16).
    """
    height, width, channels = shape
    side = min(height, width)
    return Augmentation(side // 8, flip=True) if channels == 3 else Augmentation(side // 16)


def augment(x: np.ndarray, how: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Return a varied copy of a batch uint8 [N, H, W, C]; pixels from outside the image repeat the edge."""
    count, height, width, _ = x.shape
    if how.flip:
        mirrored = rng.random(count) < 0.5
        x = np.where(mirrored[:, None, None, None], x[:, :, ::-1], x)
    if not how.shift:
        return x
    s = how.shift
    padded = np.pad(x, ((0, 0), (s, s), (s, s), (0, 0)), mode="edge")
    out = np.empty_like(x)
    for i, (dy, dx) in enumerate(rng.integers(0, 2 * s + 1, size=(count, 2))):
        out[i] = padded[i, dy:dy + height, dx:dx + width]
    return out
