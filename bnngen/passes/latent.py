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
from bnngen.errors import ModelError

LATENT = "latent"


@dataclass(frozen=True)
class LatentOps:
    """pack: cut tensor -> latent bits. unpack: latent bits -> cut tensor. latent: the packed tensor."""

    pack: ir.Binarize
    unpack: ir.Unpack
    latent: ir.Tensor


def latent_ops(graph: ir.Graph) -> LatentOps | None:
    """Return the two ops of the cut; None where the model has none. Raises ModelError for a cut at bits.

    An element is stored as bit 1 when its real value is below the threshold: `scale * q < threshold`, so
    q < ceil(threshold / scale), exactly. Levels are rounded to the nearest stream value, ties to even.
    """
    cut = graph.meta.latent
    if cut is None:
        return None
    tensor = graph.tensors[cut.tensor]
    _check_real(graph, tensor)
    lo, hi = ir.TYPE_RANGE[tensor.dtype]
    steps = [Fraction(float(scale)) for scale in tensor.scales]
    cuts = zip(cut.threshold, steps, strict=True)
    level = [min(max(math.ceil(Fraction(value) / step), lo), hi + 1) for value, step in cuts]
    rule = ir.Threshold(np.array(level, np.int32), np.zeros(len(level), np.int8))

    def levels(values: tuple[float, ...]) -> np.ndarray:
        pairs = zip(values, steps, strict=True)
        return np.array([min(max(round(Fraction(value) / step), lo), hi) for value, step in pairs], np.int16)

    return LatentOps(
        ir.Binarize("pack", (cut.tensor,), LATENT, rule),
        ir.Unpack("unpack", (LATENT,), cut.tensor, levels(cut.low), levels(cut.high)),
        ir.Tensor(LATENT, tensor.shape, ir.BITS),
    )


def _check_real(graph: ir.Graph, tensor: ir.Tensor) -> None:
    """Only a tensor of the real-valued stream has a threshold and two levels."""
    if tensor.dtype in ir.STREAM_TYPES:
        return
    layer = graph.producer(tensor.name)
    kind = "binary already" if tensor.dtype == ir.BITS else "not a part of the real-valued stream"
    raise ModelError(
        f"the latent cut is at a tensor that is {kind}",
        where=f"layer {layer.name}" if layer else f"tensor {tensor.name}",
        why="a cut makes bits of int8 or int16 values, and rebuilds two of them for each channel",
        fix="export again with `bnngen export --cut` at a layer with a real-valued output, such as a pool",
    )
