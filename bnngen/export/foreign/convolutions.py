# SPDX-License-Identifier: Apache-2.0
"""Patterns around convolutions: padding, groups, scales of binary inputs, binary weights.

Each is a function (net, op) -> operations or None, as in quantizers.py.
"""

from __future__ import annotations

import numpy as np

from bnngen.export.foreign.net import Net, Op, same_for_all

SAME = 1e-6  # relative: weights of a channel count as +s and -s when no further apart
NEVER_WINS = -1e30


def sign_of_padding(net: Net, op: Op) -> list[Op] | None:
    """Sign of a padded map: a sign with its own sign around it (zeros become +1)."""
    padded = net.writer(op.inputs[0], "pad") if op.kind == "sign" else None
    if padded is None:
        return None
    inner = net.temporary(op.output, net.shapes[padded.inputs[0]])
    value = 1.0 if padded["value"] >= 0 else -1.0
    return [Op("sign", op.name, padded.inputs, inner, op.node),
            op.become("pad", [inner], pads=padded["pads"], value=value)]


def scale_sinks(net: Net, op: Op) -> list[Op] | None:
    """A scale on bits moves behind the move of bits that reads it: the maximum (scale > 0), flattening, padding."""
    scaled = _scaled_bits(net, op.inputs[0]) if op.kind in ("max_pool", "flatten", "pad") else None
    if scaled is None:
        return None
    mult = scaled["mult"]
    one = same_for_all(mult)
    if (op.kind == "max_pool" and not (mult > 0).all()) or (op.kind != "max_pool" and one is None):
        return None
    inner = net.temporary(op.output, net.shapes[op.output])
    args = {**op.args, "value": op["value"] / one} if op.kind == "pad" else op.args
    mult = mult if op.kind != "flatten" else np.full(net.channels(op.output), one, np.float32)
    return [Op(op.kind, op.name, scaled.inputs, inner, op.node, args),
            Op("affine", f"{op.name}/scale", (inner,), op.output, op.node, {"mult": mult, "add": None})]


def scale_into_weights(net: Net, op: Op) -> list[Op] | None:
    """Conv(m * bits, w) is Conv(bits, m * w)."""
    scaled = _scaled_bits(net, op.inputs[0]) if op.kind == "conv" else None
    if scaled is None:
        return None
    weights, group = op["weights"], op["group"]
    mult = scaled["mult"].reshape(group, 1, -1, 1, 1)
    folded = weights.reshape(group, -1, *weights.shape[1:]) * mult
    return [op.changed(scaled.inputs, weights=folded.reshape(weights.shape).astype(np.float32))]


def _scaled_bits(net: Net, tensor: str) -> Op | None:
    """Return the scale that makes a tensor from bits (or from padded ones), None where it is no such tensor."""
    op = net.writer(tensor, "affine")
    if op is None or op["add"] is not None:
        return None
    padded = net.writer(op.inputs[0], "pad")
    return op if net.is_binary(padded.inputs[0] if padded else op.inputs[0]) else None


def padding_of_window(net: Net, op: Op) -> list[Op] | None:
    """Pad -> Conv or a pool: the window's own padding.

    Around bits 1 or 0, around real values 0, around what a maximum reads a value that never wins.
    """
    padded = net.writer(op.inputs[0], "pad") if op.kind in ("conv", "max_pool") else None
    if padded is None:
        return None
    source, value, window = padded.inputs[0], padded["value"], op["window"]
    wider = window.with_pads(padded["pads"])
    if op.kind == "max_pool":
        return [op.changed([source], window=wider)] if _never_wins(net, source, value) else None
    mixed = any(window.pads) and value != op["fill"]
    if mixed or not (value == 0 or (abs(value - 1) < SAME and net.is_binary(source))):
        return None
    return [op.changed([source], window=wider, fill=float(round(value)))]


def _never_wins(net: Net, tensor: str, value: float) -> bool:
    """True where no maximum over values of the tensor is changed by a further `value`."""
    op = net.writer(tensor)
    positive = op is not None and (op.kind in ("quantize", "heaviside") or (op.kind == "clip" and op["lo"] >= 0))
    return value <= NEVER_WINS or (value <= 0 and positive) or (value <= -1 and net.is_binary(tensor))


def grouped(net: Net, op: Op) -> list[Op] | None:
    """Split -> Convs -> Concat, or Split -> Signs -> Convs -> Concat: one convolution with groups."""
    convs = [net.writer(name, "conv") for name in op.inputs] if op.kind == "concat" else []
    if len(convs) < 2 or None in convs:
        return None
    signs = [net.writer(conv.inputs[0], "sign") for conv in convs]
    binary = None not in signs
    parts = [net.writer(before.inputs[0], "channels") for before in (signs if binary else convs)]
    if None in parts or any(part.inputs != parts[0].inputs for part in parts):
        return None
    same = ("window", "fill")
    if any(conv[key] != convs[0][key] for conv in convs for key in same) or any(conv["group"] != 1 for conv in convs):
        return None
    if len({conv["weights"].shape for conv in convs}) > 1:
        return None
    whole = np.concatenate([part["index"] for part in parts])
    if not np.array_equal(whole, np.arange(net.channels(parts[0].inputs[0]))):
        return None
    return _merged(net, op, convs, parts[0].inputs, signs[0] if binary else None)


def _merged(net: Net, op: Op, convs: list[Op], source: tuple[str, ...], sign: Op | None) -> list[Op]:
    """Return the one convolution of `source`, behind a sign of all its channels where there is one."""
    weights, bias = np.concatenate([conv["weights"] for conv in convs]), None
    if any(conv["bias"] is not None for conv in convs):
        bias = np.concatenate([
            np.zeros(len(conv["weights"]), np.float32) if conv["bias"] is None else conv["bias"] for conv in convs
        ])
    made = []
    if sign is not None:
        bits = net.temporary(source[0], net.shapes[source[0]])
        made.append(Op("sign", sign.name, source, bits, sign.node))
        source = (bits,)
    first = convs[0]
    merged = Op("conv", first.name, source, op.output, first.node, first.args)
    return [*made, merged.changed(source, weights=weights, bias=bias, group=len(convs))]


def binary_weights(net: Net, op: Op) -> list[Op] | None:
    """Conv of bits with weights of one magnitude in each output channel: signs, scale, bias.

    A batch norm folded into the weights gives +-scale, with the kernel's signs turned where gamma is negative.
    """
    if op.kind != "conv" or not net.is_binary(op.inputs[0]):
        return None
    weights = op["weights"]
    size = np.abs(weights).reshape(len(weights), -1)
    scale = size.max(axis=1)
    if (size.min(axis=1) < scale * (1 - SAME)).any() or (op["fill"] not in (0.0, 1.0)):
        return None
    signs = np.where(np.signbit(weights), -1, 1).astype(np.int8)
    window = op["window"]
    fill = op["fill"] if any(window.pads) else 1.0  # never read without padding: 1 is the simpler case for a kernel
    args = {"weights": signs, "bias": None, "window": window, "group": op["group"], "fill": fill}
    bias = op["bias"] if op["bias"] is not None and op["bias"].any() else None
    mult = None if (scale == 1).all() else scale
    if mult is None and bias is None:
        return [op.become("binary_conv", op.inputs, **args)]
    product = net.temporary(op.output, net.shapes[op.output])
    return [Op("binary_conv", op.name, op.inputs, product, op.node, args),
            Op("affine", f"{op.name}/folded", (product,), op.output, op.node, {"mult": mult, "add": bias})]


def bias_behind(net: Net, op: Op) -> list[Op] | None:
    """MatMul -> Add, Conv -> Add: a bias, where nothing else reads the product; of the last layer also a scale."""
    conv = net.writer(op.inputs[0], "conv") if op.kind == "affine" else None
    if conv is None or len(net.readers(conv.output)) > 1 or (op["mult"] is not None and op.output != net.output):
        return None
    weights, parts = conv["weights"], [conv["bias"]]
    if op["mult"] is not None:
        weights = weights * op["mult"].reshape(-1, 1, 1, 1)
        parts = [None if conv["bias"] is None else conv["bias"] * op["mult"]]
    parts = [part for part in (*parts, op["add"]) if part is not None]
    args = {**conv.args, "weights": weights, "bias": sum(parts) if parts else None}
    return [Op("conv", conv.name, conv.inputs, op.output, conv.node, args)]


PATTERNS = [sign_of_padding, scale_sinks, scale_into_weights, padding_of_window, grouped, bias_behind, binary_weights]
