# SPDX-License-Identifier: Apache-2.0
"""What a trainable tail is, in real units: the last residual blocks of a network, from the cut to the pooled features.

Extracted from the float graph; lower/tail_constants.py turns it into the integers of docs/numerics.md, section 6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class TailAfter:
    """What follows the addition: x -> prelu(x + before) + behind, all float64 [C] (RPReLU of ReActNet)."""

    before: np.ndarray
    slope: np.ndarray
    behind: np.ndarray


@dataclass(frozen=True, eq=False)
class TailBlock:
    """One residual block: x -> after(x + scale * act(conv(sign(x + shift), sign(latent))) + bias).

    latent: int8 [C][3][3][C] (out, row, column, in), 127 = 1.0, sign(0) = +1; the convolution has stride 1 and keeps
    the map's size. Signs outside the map are +1 (pad 1) or do not count (pad 0). relu: act = max(., 0), else nothing.
    scale: kernel scale * gamma / sigma, bias: the rest of the frozen batch norm; shift, scale, bias: float64 [C].
    """

    name: str
    latent: np.ndarray
    pad: int
    relu: bool
    scale: np.ndarray
    bias: np.ndarray
    shift: np.ndarray | None = None
    after: TailAfter | None = None


@dataclass(frozen=True, eq=False)
class TailSpec:
    """The blocks from the cut to the features of the head.

    cut: name of the tensor in the integer graph, of type cut_dtype ("s8" or "s16") and real value cut_scale[c] * q
    (float64 [C], all the same at 16 bits; a cut has offset 0). low, high: float64 [C], what the bits 1 and 0 of a
    packed latent read back as; the thresholds of packing are the front's affair. peak: largest |x| of the residual
    stream seen in calibration, from the cut to the pool. relu: in front of the pool. features: name of the tensor
    behind the pool.
    """

    blocks: tuple[TailBlock, ...]
    height: int
    width: int
    channels: int
    relu: bool
    cut: str
    cut_dtype: str
    cut_scale: np.ndarray
    low: np.ndarray
    high: np.ndarray
    peak: float
    features: str
