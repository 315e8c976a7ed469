# SPDX-License-Identifier: Apache-2.0
"""Patterns of element-wise functions: slopes, swish, chains of scales.

Each is a function (net, op) -> operations or None, as in quantizers.py.
"""

from __future__ import annotations

import numpy as np

from bnngen.export.foreign.net import Net, Op, same_for_all

IDENTITY = 1e-6  # a product of a rounded 1 / n and n is 1


def keras_prelu(net: Net, op: Op) -> list[Op] | None:
    """Relu(x) + (-slope) * Relu(-x)."""
    if op.kind != "add":
        return None
    for positive, negative in (op.inputs, op.inputs[::-1]):
        above = net.writer(positive, "clip")
        scaled = net.writer(negative, "affine")
        below = net.writer(scaled.inputs[0], "clip") if scaled else None
        mirrored = net.writer(below.inputs[0], "affine") if below else None
        if above is None or mirrored is None or mirrored.inputs != above.inputs:
            continue
        if not (_is_relu(above) and _is_relu(below)) or mirrored["add"] is not None or scaled["add"] is not None:
            continue
        if same_for_all(mirrored["mult"]) == -1:
            return [op.become("prelu", above.inputs, slope=-scaled["mult"])]
    return None


def _is_relu(op: Op) -> bool:
    return op["lo"] == 0 and op["hi"] == np.inf


def leaky_relu(net: Net, op: Op) -> list[Op] | None:
    """max(x, slope * x), slope at most 1."""
    if op.kind != "max":
        return None
    for plain, other in (op.inputs, op.inputs[::-1]):
        scaled = net.writer(other, "affine")
        if scaled and scaled.inputs == (plain,) and scaled["add"] is None and (scaled["mult"] <= 1).all():
            return [op.become("prelu", [plain], slope=scaled["mult"])]
    return None


def swish(net: Net, op: Op) -> list[Op] | None:
    """x * Sigmoid(x)."""
    if op.kind != "mul":
        return None
    for plain, other in (op.inputs, op.inputs[::-1]):
        gate = net.writer(other, "unary")
        if gate and gate["op"] == "Sigmoid" and gate.inputs == (plain,):
            return [op.become("unary", [plain], op="Swish", attributes={})]
    return None


def hard_sigmoid(net: Net, op: Op) -> list[Op] | None:
    """HardSigmoid with other numbers than Keras's is a scale, a shift and a clip, and so is Keras's."""
    if op.kind != "unary" or op["op"] != "HardSigmoid":
        return None
    shape = net.shapes[op.output]
    one, line = np.ones(shape[2], np.float32), net.temporary(op.output, shape)
    alpha, beta = op["attributes"].get("alpha", 0.2), op["attributes"].get("beta", 0.5)
    scaled = {"mult": one * np.float32(alpha), "add": one * np.float32(beta)}
    return [Op("affine", f"{op.name}/line", op.inputs, line, op.node, scaled),
            op.become("clip", [line], lo=0.0, hi=1.0)]


def difference(net: Net, op: Op) -> list[Op] | None:
    """a - b is a + (-1) * b."""
    if op.kind != "sub":
        return None
    shape = net.shapes[op.inputs[1]]
    mirrored = net.temporary(op.output, shape)
    negative = {"mult": -np.ones(shape[2], np.float32), "add": None}
    return [Op("affine", f"{op.name}/negative", op.inputs[1:], mirrored, op.node, negative),
            op.become("add", [op.inputs[0], mirrored])]


def scales_in_sequence(net: Net, op: Op) -> list[Op] | None:
    """(x * m + a) * n + b is x * (m * n) + (a * n + b), where nothing else reads what is between."""
    inner = net.writer(op.inputs[0], "affine") if op.kind == "affine" else None
    if inner is None or len(net.readers(inner.output)) > 1:
        return None
    mult, add = inner["mult"], inner["add"]
    if op["mult"] is not None:
        mult = op["mult"] if mult is None else mult * op["mult"]
        add = None if add is None else add * op["mult"]
    if op["add"] is not None:
        add = op["add"] if add is None else add + op["add"]
    if add is not None and not add.any():
        add = None
    return [op.become("affine", inner.inputs, mult=mult, add=add)]


def bounds_in_sequence(net: Net, op: Op) -> list[Op] | None:
    """Max behind Min, where nothing else reads what is between: one clip."""
    inner = net.writer(op.inputs[0], "clip") if op.kind == "clip" else None
    if inner is None or len(net.readers(inner.output)) > 1:
        return None
    lo, hi = max(inner["lo"], op["lo"]), min(inner["hi"], op["hi"])
    return [op.become("clip", inner.inputs, lo=lo, hi=hi)] if lo <= hi else None


def nothing(net: Net, op: Op) -> list[Op] | None:
    """x * 1 + 0: its readers read x."""
    if op.kind != "affine" or op.output == net.output:
        return None
    if op["mult"] is not None and np.abs(op["mult"] - 1).max() > IDENTITY:
        return None
    if op["add"] is not None and op["add"].any():
        return None
    net.bypass(op.output, op.inputs[0])
    return []


PATTERNS = [
    keras_prelu, leaky_relu, swish, hard_sigmoid, difference, scales_in_sequence, bounds_in_sequence, nothing
]
