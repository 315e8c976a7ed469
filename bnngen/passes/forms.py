# SPDX-License-Identifier: Apache-2.0
"""Which sequences of element-wise links one epilogue can express, and the links in that form.

    [clip] norm* [clip]               Affine      the first clip acts on the accumulator, the last on the result
    norm* slope norm* [clip]          Piecewise   on a stream tensor only
    anything monotone, then a sign    Threshold   and before a quantizer of several levels: Steps
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnngen import ir
from bnngen.passes.curves import slope

Array = np.ndarray
LAYERS = (ir.Conv2D, ir.BinaryConv2D, ir.Dense)
POOLS = (ir.AveragePool, ir.GlobalAveragePool)
KERNELS = (*LAYERS, *POOLS, ir.Add, ir.Mul)
ELEMENTS = (ir.Clip, ir.BatchNorm, ir.PRelu)
ENDS = (ir.Sign, ir.Levels, ir.Scores)
NO_LIMIT = float("inf")
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


@dataclass(frozen=True)
class Form:
    """Links of a real-valued chain in the order in which an epilogue applies them."""

    before: ir.Clip | None = None
    first: tuple[ir.BatchNorm, ...] = ()
    bend: ir.PRelu | None = None
    second: tuple[ir.BatchNorm, ...] = ()
    after: ir.Clip | None = None


def read(links: tuple[ir.Node, ...]) -> Form | None:
    """Return the form of the links; None where no epilogue has it."""
    rest = list(links)
    before = rest.pop(0) if len(rest) > 1 and isinstance(rest[0], ir.Clip) else None
    first = _norms(rest)
    bend = rest.pop(0) if rest and isinstance(rest[0], ir.PRelu) else None
    second = _norms(rest) if bend else ()
    after = rest.pop(0) if rest and isinstance(rest[0], ir.Clip) else None
    wrong = rest or (before and (bend or not first))
    return None if wrong else Form(before, first, bend, second, after)


def _norms(rest: list[ir.Node]) -> tuple[ir.BatchNorm, ...]:
    count = next((i for i, link in enumerate(rest) if not isinstance(link, ir.BatchNorm)), len(rest))
    taken, rest[:] = tuple(rest[:count]), rest[count:]
    return taken


def compose(gain: Array, offset: Array, norms: tuple[ir.BatchNorm, ...]) -> tuple[Array, Array]:
    """Return gain and offset, float64 [C], of the norms behind gain * x + offset."""
    for norm in norms:
        factor = slope(norm)
        gain, offset = gain * factor, (offset - norm.mean.astype(np.float64)) * factor + norm.beta.astype(np.float64)
    return gain, offset


def expressible(links: tuple[ir.Node, ...]) -> bool:
    """True when one epilogue computes the real-valued chain: links[0] may be a kernel, the others are elements."""
    kernel = links[0] if isinstance(links[0], KERNELS) else None
    form = read(links[1:] if kernel else links)
    if form is None:
        return False
    if kernel is None:
        return form.before is None or (form.before.lo, form.before.hi) == (0, NO_LIMIT)
    if form.bend:
        return False
    if isinstance(kernel, ir.Add):
        return not form.before and not form.first
    if isinstance(kernel, LAYERS):
        return form.before is None or acc_limits(kernel, form.before) is not None
    return form.before is None


def acc_limits(layer: ir.Node, clip: ir.Clip) -> tuple[int, int] | None:
    """Return the clip as limits of the layer's accumulator; None where channels would differ.

    At 0 all channels agree, unless a bias moves it. Other limits need an accumulator whose unit is 1; beyond int32 they
    limit nothing.
    """
    if getattr(layer, "bias", None) is not None and np.any(layer.bias != 0):
        return None
    if clip.lo > INT32_MAX or clip.hi < INT32_MIN:
        return None
    unit = isinstance(layer, ir.BinaryConv2D) and layer.kernel_scale is None
    if not all(np.isinf(end) or end == 0 or (unit and float(end).is_integer()) for end in (clip.lo, clip.hi)):
        return None
    return int(max(clip.lo, INT32_MIN)), int(min(clip.hi, INT32_MAX))
