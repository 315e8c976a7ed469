# SPDX-License-Identifier: Apache-2.0
"""What a model file says beside its graph: classes, input scaling, calibrated ranges, latent cut, learned head."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bnngen.ir.tensor import Array


@dataclass(frozen=True)
class Latent:
    """How the tensor at the cut becomes 1-bit latents, per channel, in real units (docs/numerics.md).

    An element below `threshold` is stored as bit 1 and read back as `low`, any other as bit 0, `high`.
    """

    tensor: str
    threshold: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class HeadMap:
    """What the learned head reads instead of a feature f: g(f) - mean, g(f) = sign(f) sqrt(|f|) with root, otherwise f.

    mean: of g(f) over the calibration images, one a feature. lo, hi: range of the difference that operands cover.
    """

    root: bool
    mean: tuple[float, ...]
    lo: float
    hi: float


@dataclass(frozen=True)
class HeadInput:
    """Where the learned head is attached: the feature tensor, its calibrated range, most classes; map None: it reads
    the features as they are."""

    tensor: str
    lo: float
    hi: float
    capacity: int
    map: HeadMap | None = None


@dataclass(frozen=True)
class ChannelRange:
    """What calibration saw of a real-valued tensor. Each field has one entry a channel, or one for all of them.

    lo, hi: smallest and largest value. clip: the absolute value at which an 8-bit tensor may saturate, as the
    calibration method chose it; empty where it chose none.
    """

    lo: tuple[float, ...]
    hi: tuple[float, ...]
    clip: tuple[float, ...] = ()

    @property
    def reach(self) -> Array:
        """The largest absolute value, float64, one entry a channel or one for all."""
        return np.maximum(np.abs(np.float64(self.lo)), np.abs(np.float64(self.hi)))


@dataclass(frozen=True)
class ModelMeta:
    """What the ONNX file's metadata says beside the graph.

    input_scale, input_offset: real input = scale * pixel + offset, pixel in 0..255.
    ranges: tensor name -> what calibration saw of it, for every real-valued tensor.
    """

    name: str
    classes: tuple[str, ...]
    trained_classes: tuple[int, ...]
    input_scale: float
    input_offset: float
    ranges: dict[str, ChannelRange] = field(default_factory=dict)
    latent: Latent | None = None
    head: HeadInput | None = None
    source: dict[str, str] = field(default_factory=dict)
