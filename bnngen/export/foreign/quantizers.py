# SPDX-License-Identifier: Apache-2.0
"""Patterns of quantizers: signs, heaviside, ternary, k bits. Each is a function (net, op) -> operations or None.

A pattern looks at the operation that ends it and walks back to where it begins; what lies between is left to others
that may read it, and removed at the end when nobody does.
"""

from __future__ import annotations

import numpy as np

from bnngen.export.foreign.net import Net, Op, same_for_all

NEAR = 1e-4  # how far float32 arithmetic may move the ends of a range of integers


def larq_sign(net: Net, op: Op) -> list[Op] | None:
    """Sign -> Add(c), 0 < c < 1 -> Sign: +1 for 0 (ste_sign, approx_sign, swish_sign)."""
    lifted = net.writer(op.inputs[0], "affine") if op.kind == "onnx_sign" else None
    first = net.writer(lifted.inputs[0], "onnx_sign") if lifted else None
    if lifted is None or first is None or lifted["mult"] is not None:
        return None
    shift = same_for_all(lifted["add"])
    if shift is None or not 0 < shift < 1:
        return None
    return [op.become("sign", first.inputs)]


def larq_heaviside(net: Net, op: Op) -> list[Op] | None:
    """Relu -> Sign: 1 for x > 0, otherwise 0 (ste_heaviside)."""
    relu = net.writer(op.inputs[0], "clip") if op.kind == "onnx_sign" else None
    if relu is None or relu["lo"] != 0 or relu["hi"] <= 0:
        return None
    return [op.become("heaviside", relu.inputs)]


def larq_ternary(net: Net, op: Op) -> list[Op] | None:
    """Sign(Sign(x + t) + Sign(x - t)), t > 0 (ste_tern)."""
    total = net.writer(op.inputs[0], "add") if op.kind == "onnx_sign" else None
    signs = [net.writer(name, "onnx_sign") for name in total.inputs] if total else [None]
    shifted = [net.writer(sign.inputs[0], "affine") for sign in signs if sign is not None]
    if len(shifted) != 2 or None in shifted or shifted[0].inputs != shifted[1].inputs:
        return None
    if any(part["mult"] is not None for part in shifted):
        return None
    up, down = (same_for_all(part["add"]) for part in shifted)
    if up is None or down is None or up != -down or up == 0:
        return None
    return [op.become("ternary", shifted[0].inputs, threshold=abs(up))]


def plain_sign(net: Net, op: Op) -> list[Op] | None:
    """A Sign of no other pattern: three values, 0 for 0. Exact as a ternary quantizer of threshold 0, but not bits."""
    return [op.become("ternary", op.inputs, threshold=0.0)] if op.kind == "onnx_sign" else None


def comparison(net: Net, op: Op) -> list[Op] | None:
    """x >= c, x > c, x <= c or x < c as 1 or 0: half of a sign, and a half.

    x >= c is sign(x - c) = 1; x > c is sign(c - x) = -1; the other two are their opposites.
    """
    if op.kind != "compare":
        return None
    shape = net.shapes[op.output]
    test, level, one = op["test"], op["level"], np.ones(shape[2], np.float32)
    mirrored = test in ("gt", "le")
    rises = test in ("ge", "le")
    shifted, sign = net.temporary(op.output, shape), net.temporary(op.output, shape)
    return [
        Op("affine", f"{op.name}/shift", op.inputs, shifted, op.node,
           {"mult": -one if mirrored else None, "add": level if mirrored else -level}),
        Op("sign", f"{op.name}/sign", (shifted,), sign, op.node),
        op.become("affine", [sign], mult=one / 2 if rises else -one / 2, add=one / 2),
    ]


def k_bits(net: Net, op: Op) -> list[Op] | None:
    """Round of a value that Min, Max or Clip and Mul or Div bring to least .. most (dorefa_quantizer, QONNX Quant).

    quantize_n(x) is round(n * clip(x, 0, 1)) / n. Where the file bounds by 0 and 1 and multiplies by n, that is it.
    Otherwise, with v the value in front of Round, the code is base + n * quantize_n((clip(v, least, most) - base) / n);
    n is a power of two and base even, so that this arithmetic is exact and ties go where they went.
    """
    if op.kind != "round":
        return None
    source, scale, least, most = _range_of(net, op.inputs[0])
    if least is None or most is None:
        return None
    shape = net.shapes[op.output]
    one = np.ones(shape[2], np.float32)
    if least == 0 and (scale == most).all():
        code = net.temporary(op.output, shape)
        return [Op("quantize", op.name, (source,), code, op.node, {"steps": most}),
                op.become("affine", [code], mult=one * most, add=None)]
    base = least - least % 2
    steps = 1 << (most - base - 1).bit_length()
    value, bounded, unit, code = (net.temporary(op.output, shape) for _ in range(4))
    shift = one * np.float32(-base / steps) if base else None
    return [
        Op("affine", f"{op.name}/scale", (source,), value, op.node, {"mult": scale.astype(np.float32), "add": None}),
        Op("clip", f"{op.name}/clip", (value,), bounded, op.node, {"lo": float(least), "hi": float(most)}),
        Op("affine", f"{op.name}/unit", (bounded,), unit, op.node, {"mult": one / steps, "add": shift}),
        Op("quantize", op.name, (unit,), code, op.node, {"steps": steps}),
        op.become("affine", [code], mult=one * steps, add=one * np.float32(base) if base else None),
    ]


def _range_of(net: Net, tensor: str) -> tuple[str, np.ndarray, int | None, int | None]:
    """Walk back over scalings and bounds. Return (x, m, least, most): the value is clip(m * x, least, most).

    m: [C], positive. least and most are None unless both are integers for all channels.
    """
    scale = np.ones(net.channels(tensor))
    low, high = -np.inf * scale, np.inf * scale
    while (op := net.writer(tensor)) is not None:
        bounded = np.isfinite(low).all() and np.isfinite(high).all()
        if op.kind == "clip" and not bounded:
            low, high = np.maximum(low, op["lo"] * scale), np.minimum(high, op["hi"] * scale)
        elif op.kind == "affine" and op["add"] is None and (op["mult"] > 0).all():
            scale = scale * op["mult"]
        else:
            break
        tensor = op.inputs[0]
    least, most = _integer(low), _integer(high)
    if least is None or most is None or least >= most:
        least = most = None
    return tensor, scale, least, most


def _integer(values: np.ndarray) -> int | None:
    if not np.isfinite(values).all():
        return None
    whole = int(np.rint(values[0]))
    return whole if np.abs(values - whole).max() < NEAR else None


PATTERNS = [larq_sign, larq_heaviside, larq_ternary, comparison, k_bits]
LAST = [plain_sign]
