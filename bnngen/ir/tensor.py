# SPDX-License-Identifier: Apache-2.0
"""Tensors: names, shapes, types, and what the stored integers mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnngen.errors import ModelError

Array = np.ndarray
FLOAT, BITS, U8, S8, S16, S32 = "f32", "bits", "u8", "s8", "s16", "s32"
STREAM_TYPES = (S8, S16)
TYPE_RANGE = {U8: (0, 255), S8: (-128, 127), S16: (-32768, 32767), S32: (-(2**31), 2**31 - 1)}


@dataclass(frozen=True)
class Tensor:
    """A named value.

    `scale` is set on integer tensors: real value = scale * stored integer, one scale for all channels or a
    tuple of one for each. A scale is never negative; 0 means that the channel's real value is always 0.
    `offset`, one or one a channel too, is not 0 for some 8-bit tensors: real value = scale * (stored integer + offset).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = FLOAT
    scale: float | tuple[float, ...] | None = None
    offset: float | tuple[float, ...] = 0.0

    @property
    def channels(self) -> int:
        return self.shape[-1]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def scales(self) -> Array:
        """The scale of every channel, float64 [C]; 1 where none is set."""
        return np.broadcast_to(np.float64(1.0 if self.scale is None else self.scale), (self.channels,))

    @property
    def offsets(self) -> Array:
        """The offset of every channel in steps, float64 [C]."""
        return np.broadcast_to(np.float64(self.offset), (self.channels,))

    @property
    def uniform_scale(self) -> float:
        """The one scale of all channels; 1 where none is set. Raises ModelError where they differ."""
        scales = self.scales
        if not (scales == scales[0]).all():
            raise ModelError(f"tensor {self.name} has one scale for each channel, a single one is needed")
        return float(scales[0])
