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

    With n = most - least the code is round(v) = least + n * quantize_n((v - least) / n), where quantize_n rounds n
    times its input. Ties go to even on both sides only when least is even; an odd one is lowered by 1, and the value
    clipped.
    """
    if op.kind != "round":
        return None
    source, scale, least, most = _range_of(net, op.inputs[0])
    if least is None or most is None:
        return None
    shape = net.shapes[op.output]
    one = np.ones(shape[2], np.float32)
    made, tensor = [], source
    if least % 2:
        clipped = net.temporary(op.output, shape)
        lifted = net.temporary(op.output, shape)
        made.append(Op("affine", f"{op.name}/scale", (tensor,), lifted, op.node, {"mult": scale, "add": None}))
        made.append(Op("clip", f"{op.name}/clip", (lifted,), clipped, op.node, {"lo": float(least), "hi": np.inf}))
        tensor, scale, least = clipped, one, least - 1
    steps = most - least
    unit, code = net.temporary(op.output, shape), net.temporary(op.output, shape)
    add = None if least == 0 else one * np.float32(-least / steps)
    base = one * np.float32(least) if least else None
    made.append(Op("affine", f"{op.name}/unit", (tensor,), unit, op.node,
                   {"mult": (scale / np.float64(steps)).astype(np.float32), "add": add}))
    made.append(Op("quantize", op.name, (unit,), code, op.node, {"steps": steps}))
    made.append(op.become("affine", [code], mult=one * np.float32(steps), add=base))
    return made


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
