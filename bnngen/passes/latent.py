# SPDX-License-Identifier: Apache-2.0
"""The 1-bit latent at the cut, in integers: how it is packed and how it is read back.

Not part of the pipeline: packing and unpacking are segments of their own (docs/design.md, "Program").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from bnngen import ir

LATENT = "latent"


@dataclass(frozen=True)
class LatentOps:
    """pack: cut tensor -> latent bits. unpack: latent bits -> cut tensor. latent: the packed tensor."""

    pack: ir.Binarize
    unpack: ir.Unpack
    latent: ir.Tensor


def latent_ops(graph: ir.Graph) -> LatentOps | None:
    """Return the two ops of the cut; None where the model has none.

    An element is stored as bit 1 when its real value is below the threshold: `scale * q < threshold`, so
    q < ceil(threshold / scale), exactly. Levels are rounded to the nearest stream value, ties to even.
    """
    cut = graph.meta.latent
    if cut is None:
        return None
    tensor = graph.tensors[cut.tensor]
    lo, hi = ir.TYPE_RANGE[tensor.dtype]
    step = Fraction(tensor.scale or 1.0)
    level = [min(max(math.ceil(Fraction(value) / step), lo), hi + 1) for value in cut.threshold]
    rule = ir.Threshold(np.array(level, np.int32), np.zeros(len(level), np.int8))

    def levels(values: tuple[float, ...]) -> np.ndarray:
        return np.array([min(max(round(Fraction(value) / step), lo), hi) for value in values], np.int16)

    return LatentOps(
        ir.Binarize("pack", (cut.tensor,), LATENT, rule),
        ir.Unpack("unpack", (LATENT,), cut.tensor, levels(cut.low), levels(cut.high)),
        ir.Tensor(LATENT, tensor.shape, ir.BITS),
    )
