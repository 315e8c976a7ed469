# SPDX-License-Identifier: Apache-2.0
"""Element-wise ONNX operators: signs and quantizers, slopes, limits, smooth functions, sums and products."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.frontend.importer import ELEMENTWISE, NCHW, POINT, VECTOR, Importer, attributes
from bnngen.frontend.proto import REEXPORT, Call

MOST_STEPS = 256  # of a uniform quantizer: 8 bits, and one step more where foreign files need a power of two
LAST_NUMBER = float(np.finfo(np.float32).max)  # what the definition of Clip takes for a limit that is left out
ONE_SHAPE = "both sides have one shape"


def sign(importer: Importer, call: Call) -> None:
    """bnngen.Sign -> ir.Sign."""
    value, tensor = importer.operand(call, 0, ELEMENTWISE)
    importer.add(ir.Sign(call.name, (tensor.name,), call.outputs[0]), tensor.shape, value.layout, ir.BITS)


# -------------------------------------------------------------------------------------- quantizers


def ternary(importer: Importer, call: Call) -> None:
    """bnngen.Ternary -> ir.Levels: above -threshold 0, from threshold on 1; with threshold 0 only 0 gives 0."""
    threshold = attributes(call, {"threshold": 0.0}, needed=("threshold",))["threshold"]
    if not 0 <= threshold < float("inf"):
        raise ModelError(f"a threshold of {threshold} cannot be", where=call.where, fix=REEXPORT)
    closed = (0, 1) if threshold > 0 else (1, 0)
    _levels(importer, call, np.array([-threshold, threshold]), np.array(closed), (-1, 1.0))


def heaviside(importer: Importer, call: Call) -> None:
    """bnngen.Heaviside -> ir.Levels: 1 above 0."""
    attributes(call, {})
    _levels(importer, call, np.zeros(1), np.zeros(1, int), (0, 1.0))


def uniform_quantize(importer: Importer, call: Call) -> None:
    """bnngen.UniformQuantize -> ir.Levels of as many cuts as it has steps."""
    steps = attributes(call, {"steps": 1.0}, needed=("steps",))["steps"]
    if steps not in range(1, MOST_STEPS + 1):
        raise ModelError(
            f"a quantizer of {steps} steps cannot be",
            where=call.where,
            why=f"1 to {MOST_STEPS} steps are",
            fix=REEXPORT,
        )
    cuts = uniform_cuts(int(steps))
    _levels(importer, call, cuts, np.ones(len(cuts), int), (0, 1 / int(steps)))


def uniform_cuts(steps: int) -> np.ndarray:
    """Return the real numbers, float64 [steps] ascending, from which on round(x * steps) is i + 1, x in [0, 1].

    The quantizer computes in float32 and takes ties to even. Each cut lies halfway between the last float32 number that
    does not pass and the first one that does: it decides every float32 as the quantizer does, and what lies between
    two of them as the nearer one.
    """
    codes = np.arange(1, steps + 1)
    first = ((codes - 0.5) / steps).astype(np.float32)
    scale, down, up = np.float32(steps), np.float32(-np.inf), np.float32(np.inf)
    while True:  # a few steps of one unit in the last place
        last = np.nextafter(first, down)
        passes, before = np.rint(first * scale) >= codes, np.rint(last * scale) >= codes
        if (passes & ~before).all():
            return (first.astype(np.float64) + last.astype(np.float64)) / 2
        first = np.where(before, last, np.where(passes, first, np.nextafter(first, up)))


def _levels(importer: Importer, call: Call, cuts: np.ndarray, closed: np.ndarray, codes: tuple[int, float]) -> None:
    """Add a quantizer. codes: the code below the first cut, and the step."""
    value, tensor = importer.operand(call, 0, ELEMENTWISE)
    node = ir.Levels(call.name, (tensor.name,), call.outputs[0], cuts, closed, *codes)
    importer.add(node, tensor.shape, value.layout)


# ------------------------------------------------------------------------------------ limits, slopes


def relu(importer: Importer, call: Call) -> None:
    """Relu -> ir.Clip from 0 on."""
    attributes(call, {})
    _clipped(importer, call, 0.0, float("inf"))


def clip(importer: Importer, call: Call) -> None:
    """Clip by constants -> ir.Clip; one that is left out, or is the last float32 number, is no limit."""
    attributes(call, {})
    limits = [-float("inf"), float("inf")]
    for i in (0, 1):
        if len(call.inputs) > i + 1 and call.inputs[i + 1]:
            limit = float(importer.constant(call, i + 1, np.float32, ()))
            is_none = limit >= LAST_NUMBER if i else limit <= -LAST_NUMBER
            limits[i] = limits[i] if is_none else limit
    if limits[0] > limits[1]:
        raise ModelError(f"limits {limits} cannot be", where=call.where, fix=REEXPORT)
    _clipped(importer, call, *limits)


def _clipped(importer: Importer, call: Call, lo: float, hi: float) -> None:
    value, tensor = importer.operand(call, 0, ELEMENTWISE)
    importer.add(ir.Clip(call.name, (tensor.name,), call.outputs[0], lo, hi), tensor.shape, value.layout)


def p_relu(importer: Importer, call: Call) -> None:
    """PRelu -> ir.PRelu."""
    _slopes(importer, call, 1)


def dp_relu(importer: Importer, call: Call) -> None:
    """bnngen.DPRelu -> ir.PRelu with two slopes."""
    _slopes(importer, call, 2)


def _slopes(importer: Importer, call: Call, count: int) -> None:
    """Slopes are [C, 1, 1] for a map and [C] for a vector."""
    attributes(call, {})
    value, tensor = importer.operand(call, 0, ELEMENTWISE)
    shape = (tensor.channels,) if value.layout == VECTOR else (tensor.channels, 1, 1)
    slopes = [importer.constant(call, i + 1, np.float32, shape).reshape(-1) for i in range(count)]
    importer.add(ir.PRelu(call.name, (tensor.name,), call.outputs[0], *slopes), tensor.shape, value.layout)


def unary(kind: str, fixed: dict[str, Any] | None = None) -> Callable[[Importer, Call], None]:
    """Return the reader of a smooth function: `kind` of ir.UNARY, with the attributes that it may have."""

    def read(importer: Importer, call: Call) -> None:
        attributes(call, {}, fixed)
        value, tensor = importer.operand(call, 0, ELEMENTWISE)
        importer.add(ir.Unary(call.name, (tensor.name,), call.outputs[0], kind), tensor.shape, value.layout)

    return read


# --------------------------------------------------------------------------------- sums and products


def mul(importer: Importer, call: Call) -> None:
    """Mul by a constant: the kernel scale behind a binary convolution, elsewhere a batch norm that only scales.

    Mul of two computed tensors -> ir.Mul, of one shape or of a map and a vector that was made one pixel.
    """
    attributes(call, {})
    if _has_constant(importer, call):
        _scale(importer, call)
        return
    left, a = importer.operand(call, 0, ELEMENTWISE)
    right, b = importer.operand(call, 1, ELEMENTWISE)
    layouts = {left.layout, right.layout}
    gated = layouts == {NCHW, POINT} and a.channels == b.channels
    if not gated and (len(layouts) > 1 or a.shape != b.shape):
        raise ModelError(
            f"cannot multiply {list(a.shape)} by {list(b.shape)}",
            where=call.where,
            why=f"{ONE_SHAPE}, or one is a vector of the map's channels, reshaped to [-1, C, 1, 1]",
            fix=REEXPORT,
        )
    larger, layout = (a, left.layout) if len(a.shape) >= len(b.shape) else (b, right.layout)
    importer.add(ir.Mul(call.name, (a.name, b.name), call.outputs[0]), larger.shape, layout)


def _scale(importer: Importer, call: Call) -> None:
    value, tensor = importer.operand(call, 0, ELEMENTWISE)
    scale = _per_channel(importer, call)
    last = importer.only_read(call)
    if isinstance(last, ir.BinaryConv2D) and last.kernel_scale is None:
        node = dataclasses.replace(last, output=call.outputs[0], kernel_scale=scale)
        importer.replace_last(node, tensor.shape, NCHW)
        return
    one, zero = np.ones_like(scale), np.zeros_like(scale)
    norm = ir.BatchNorm(call.name, (tensor.name,), call.outputs[0], scale, zero, zero, one, 0.0)
    importer.add(norm, tensor.shape, value.layout)


def add(importer: Importer, call: Call) -> None:
    """Add of a constant: a batch norm that only shifts. Add of two computed tensors of one shape -> ir.Add."""
    attributes(call, {})
    value, left = importer.operand(call, 0, ELEMENTWISE)
    if _has_constant(importer, call):
        shift = _per_channel(importer, call)
        one, zero = np.ones_like(shift), np.zeros_like(shift)
        norm = ir.BatchNorm(call.name, (left.name,), call.outputs[0], one, shift, zero, one, 0.0)
        importer.add(norm, left.shape, value.layout)
        return
    _, right = importer.operand(call, 1, (value.layout,))
    if left.shape != right.shape:
        raise ModelError(
            f"cannot add {list(left.shape)} and {list(right.shape)}", where=call.where, why=ONE_SHAPE, fix=REEXPORT
        )
    importer.add(ir.Add(call.name, (left.name, right.name), call.outputs[0]), left.shape, value.layout)


def _has_constant(importer: Importer, call: Call) -> bool:
    return len(call.inputs) > 1 and call.inputs[1] in importer.constants


def _per_channel(importer: Importer, call: Call) -> np.ndarray:
    """Return input 1, one value a channel: [1, C, 1, 1] beside a map, [C] beside a vector."""
    value, tensor = importer.operand(call, 0, ELEMENTWISE)
    shape = (tensor.channels,) if value.layout == VECTOR else (1, tensor.channels, 1, 1)
    return importer.constant(call, 1, np.float32, shape).reshape(-1)
