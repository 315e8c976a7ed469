# SPDX-License-Identifier: Apache-2.0
"""What every op means, in NumPy: the golden model.

On the float stage this is Keras's arithmetic in float32. On the integer stage it is the definition: the C
code must give the same integers, bit for bit (docs/numerics.md). Values carry a batch axis: [N, H, W, C]
or [N, C]; a binary value is an int8 array of +1 and -1. Written to be read, with matrix products where
those are exact: float32 below 2^24 for binary sums, float64 below 2^53 for integer ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnngen import ir
from bnngen.ir import Array, Graph, Window

BATCH = 64


def run(graph: Graph, images: Array) -> Array:
    """Execute the graph over a batch and return its output.

    images: the graph's input, [N, H, W, C]: scaled float32 for a float graph, uint8 for an integer one.
    """
    parts = [
        evaluate(graph, images[start : start + BATCH])[graph.output] for start in range(0, len(images), BATCH)
    ]
    return np.concatenate(parts)


def evaluate(graph: Graph, batch: Array) -> dict[str, Array]:
    """Execute the graph over one batch and return every tensor's value by name."""
    values = {graph.input: batch}
    for node in graph.nodes:
        values[node.output] = apply(node, [values[name] for name in node.inputs], graph.tensors[node.output])
    return values


def apply(node: ir.Node, inputs: list[Array], output: ir.Tensor) -> Array:
    """Execute one node. `output` says the type of the result."""
    return SEMANTICS[type(node)](node, inputs, output)


def to_bytes(value: Array, dtype: str) -> bytes:
    """Return one value (no batch axis) as it lies in device memory: packed bits, or little-endian."""
    if dtype != ir.BITS:
        kinds = {ir.U8: "u1", ir.S8: "i1", ir.S16: "<i2", ir.S32: "<i4"}
        return np.ascontiguousarray(value, dtype=kinds[dtype]).tobytes()
    bits = (value < 0).astype(np.uint8)
    spare = [(0, 0)] * (bits.ndim - 1) + [(0, -bits.shape[-1] % 32)]
    return np.packbits(np.pad(bits, spare), axis=-1, bitorder="little").tobytes()


# ----------------------------------------------------------------------------------------- epilogues


def affine(acc: Array, rule: ir.Affine) -> Array:
    """Turn accumulators into stream values (docs/numerics.md, "Affine")."""
    clamped = np.clip(acc.astype(np.int64), rule.acc_lo, rule.acc_hi)
    scaled = (clamped * rule.mult.astype(np.int64) + rule.bias.astype(np.int64)) >> rule.shift
    return np.clip(scaled, rule.lo, rule.hi)


def threshold(acc: Array, rule: ir.Threshold) -> Array:
    """Turn accumulators into signs (docs/numerics.md, "Threshold")."""
    negative = (acc < rule.level) != (rule.flip != 0)
    return np.where(negative, np.int8(-1), np.int8(1))


def piecewise(x: Array, rule: ir.Piecewise) -> Array:
    """Apply one of two affine rules, by the side of the knot (docs/numerics.md, "Piecewise")."""
    return np.where(x < rule.knot, affine(x, rule.below), affine(x, rule.above))


def steps(acc: Array, rule: ir.Steps) -> Array:
    """Count the cuts that are passed (docs/numerics.md, "Steps")."""
    below = acc[..., None] < rule.level
    return rule.first + np.where(rule.down[:, None] != 0, below, ~below).sum(axis=-1)


def table(x: Array, entries: Array) -> Array:
    """Look values up, between entries by linear interpolation (docs/numerics.md, "Tables").

    entries: 256 for int8 values x, 257 for int16 ones.
    """
    if len(entries) == 256:
        return entries[x.astype(np.int64) + 128]
    place = x.astype(np.int64) + 32768
    left, right = entries[place >> 8].astype(np.int64), entries[(place >> 8) + 1].astype(np.int64)
    return left + (((right - left) * (place & 255) + 128) >> 8)


RULES = {ir.Affine: affine, ir.Threshold: threshold, ir.Piecewise: piecewise, ir.Steps: steps}


def finish(acc: Array, rule: ir.Epilogue | None, output: ir.Tensor) -> Array:
    """Apply an epilogue, or none, and store the result in the output's type."""
    if rule is not None:
        acc = RULES[type(rule)](acc, rule)
    return acc.astype(STORAGE[output.dtype])


STORAGE = {
    ir.FLOAT: np.float32,
    ir.BITS: np.int8,
    ir.U8: np.uint8,
    ir.S8: np.int8,
    ir.S16: np.int16,
    ir.S32: np.int32,
}


# ------------------------------------------------------------------------------------------- windows


def windows(x: Array, window: Window, fill: float) -> Array:
    """Return every window of x: [N, out_h, out_w, k_h, k_w, C], with `fill` outside the image."""
    top, left, bottom, right = window.pads
    padded = np.pad(x, [(0, 0), (top, bottom), (left, right), (0, 0)], constant_values=fill)
    (k_h, k_w), (s_h, s_w), (d_h, d_w) = window.kernel, window.stride, window.dilation
    reach = (d_h * (k_h - 1) + 1, d_w * (k_w - 1) + 1)
    view = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(1, 2))
    return view[:, ::s_h, ::s_w, :, ::d_h, ::d_w].transpose(0, 1, 2, 4, 5, 3)


def convolve(x: Array, weights: Array, window: Window, groups: int, fill: float) -> Array:
    """Return the sums of products in the inputs' float type: [N, out_h, out_w, c_out]."""
    view = windows(x, window, fill)
    group_in, c_out = weights.shape[2], weights.shape[3]
    group_out = c_out // groups
    parts = []
    for g in range(groups):
        taps = view[..., g * group_in : (g + 1) * group_in]
        matrix = weights[..., g * group_out : (g + 1) * group_out].reshape(-1, group_out)
        parts.append(taps.reshape(-1, matrix.shape[0]) @ matrix)
    return np.concatenate(parts, axis=-1).reshape(*view.shape[:3], c_out)


# --------------------------------------------------------------------------------------------- nodes


def _conv2d(node: ir.Conv2D, inputs: list[Array], output: ir.Tensor) -> Array:
    exact = np.float32 if node.epilogue is None else np.float64
    x = inputs[0].astype(exact)
    x = x if x.ndim == 4 else x[:, None, None, :]  # a vector is a map of one pixel
    acc = convolve(x, node.weights.astype(exact), node.window, node.groups, 0)
    acc = acc.reshape(len(acc), *output.shape)
    if node.epilogue is not None:
        return finish(acc.astype(np.int64), node.epilogue, output)
    return acc if node.bias is None else acc + node.bias.astype(np.float32)


def _binary_conv2d(node: ir.BinaryConv2D, inputs: list[Array], output: ir.Tensor) -> Array:
    x, weights = inputs[0].astype(np.float32), node.weights.astype(np.float32)
    x = x if x.ndim == 4 else x[:, None, None, :]  # a vector is a map of one pixel
    dot = convolve(x, weights, node.window, node.groups, node.pad_value)
    dot = dot.reshape(len(dot), *output.shape)
    if node.epilogue is not None:
        return finish(dot.astype(np.int64), node.epilogue, output)
    return dot if node.kernel_scale is None else dot * node.kernel_scale.astype(np.float32)


def _dense(node: ir.Dense, inputs: list[Array], output: ir.Tensor) -> Array:
    exact = np.float32 if output.dtype == ir.FLOAT else np.float64
    acc = inputs[0].astype(exact) @ node.weights.astype(exact)
    if node.bias is not None:
        acc = acc + node.bias.astype(exact)
    return acc.astype(STORAGE[output.dtype])


def _batch_norm(node: ir.BatchNorm, inputs: list[Array], output: ir.Tensor) -> Array:
    inverse = node.gamma / np.sqrt(node.variance + np.float32(node.epsilon))
    return (inputs[0] - node.mean) * inverse + node.beta


def _max_pool(node: ir.MaxPool, inputs: list[Array], output: ir.Tensor) -> Array:
    x = inputs[0]
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    return windows(x, node.window, lowest).max(axis=(3, 4))


def _average_pool(node: ir.AveragePool, inputs: list[Array], output: ir.Tensor) -> Array:
    view = windows(inputs[0], node.window, 0)
    if not any(node.window.pads):
        return _mean(view, (3, 4), node.epilogue, output)
    count = windows(np.ones_like(inputs[0], np.int64), node.window, 0).sum(axis=(3, 4))
    if node.epilogue is None:
        return view.sum(axis=(3, 4), dtype=np.float32) / count.astype(np.float32)
    return finish(view.sum(axis=(3, 4), dtype=np.int64) * (node.denominator // count), node.epilogue, output)


def _global_average_pool(node: ir.GlobalAveragePool, inputs: list[Array], output: ir.Tensor) -> Array:
    return _mean(inputs[0], (1, 2), node.epilogue, output)


def _mean(x: Array, axes: tuple[int, int], rule: ir.Affine | None, output: ir.Tensor) -> Array:
    if rule is None:
        return x.mean(axis=axes, dtype=np.float32)
    return finish(x.sum(axis=axes, dtype=np.int64), rule, output)


def _add(node: ir.Add, inputs: list[Array], output: ir.Tensor) -> Array:
    a, b = inputs
    if output.dtype == ir.FLOAT:
        return a + b
    return np.clip(a.astype(np.int64) + b, node.lo, node.hi).astype(STORAGE[output.dtype])


def _p_relu(node: ir.PRelu, inputs: list[Array], output: ir.Tensor) -> Array:
    (x,) = inputs
    return np.where(x < 0, x * node.negative, x if node.positive is None else x * node.positive)


def _levels(node: ir.Levels, inputs: list[Array], output: ir.Tensor) -> Array:
    x = inputs[0][..., None]
    passed = np.where(node.closed != 0, x >= node.cuts, x > node.cuts).sum(axis=-1)
    return (np.float32(node.step) * (node.start + passed)).astype(np.float32)


def _unary(node: ir.Unary, inputs: list[Array], output: ir.Tensor) -> Array:
    if node.table is None:
        with np.errstate(over="ignore"):  # e^-x beyond float32 is infinity, and 1 / infinity the right 0
            return FUNCTIONS[node.kind](inputs[0].astype(np.float32))
    return table(inputs[0], node.table).astype(STORAGE[output.dtype])


def _mul(node: ir.Mul, inputs: list[Array], output: ir.Tensor) -> Array:
    a, b = (x[:, None, None, :] if x.ndim == 2 and len(output.shape) == 3 else x for x in inputs)
    if node.epilogue is None:
        return a * b
    return finish(a.astype(np.int64) * b, node.epilogue, output)


def _channels(node: ir.Channels, inputs: list[Array], output: ir.Tensor) -> Array:
    picked = inputs[0][..., np.maximum(node.index, 0)]
    return np.where(node.index < 0, np.zeros((), picked.dtype), picked)


def _encode(node: ir.Encode, inputs: list[Array], output: ir.Tensor) -> Array:
    pixel = inputs[0]
    if pixel.dtype.kind == "f":
        pixel = np.rint((pixel.astype(np.float64) - node.offset) / node.scale)
    pixel = pixel.astype(np.int64)[..., node.source]
    plus = (pixel >> node.value) & 1 if node.planes else pixel >= node.value
    return np.where(plus, np.int8(1), np.int8(-1))


def _chain(node: ir.Chain, inputs: list[Array], output: ir.Tensor) -> Array:
    value = inputs
    for link in node.links:
        value = [apply(link, value, output)]
    return value[0]


def _unpack(node: ir.Unpack, inputs: list[Array], output: ir.Tensor) -> Array:
    return np.where(inputs[0] < 0, node.low, node.high).astype(STORAGE[output.dtype])


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "hard_sigmoid": lambda x: np.clip(np.float32(0.2) * x + np.float32(0.5), 0, 1),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "elu": lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x),
}


SEMANTICS: dict[type[ir.Node], Callable[[ir.Node, list[Array], ir.Tensor], Array]] = {
    ir.Conv2D: _conv2d,
    ir.BinaryConv2D: _binary_conv2d,
    ir.Dense: _dense,
    ir.BatchNorm: _batch_norm,
    ir.Sign: lambda node, inputs, output: np.where(inputs[0] >= 0, np.int8(1), np.int8(-1)),
    ir.Clip: lambda node, inputs, output: np.clip(inputs[0], np.float32(node.lo), np.float32(node.hi)),
    ir.PRelu: _p_relu,
    ir.Levels: _levels,
    ir.Unary: _unary,
    ir.Mul: _mul,
    ir.Concat: lambda node, inputs, output: np.concatenate(inputs, axis=-1),
    ir.Channels: _channels,
    ir.Encode: _encode,
    ir.MaxPool: _max_pool,
    ir.AveragePool: _average_pool,
    ir.GlobalAveragePool: _global_average_pool,
    ir.Add: _add,
    ir.Flatten: lambda node, inputs, output: inputs[0].reshape(len(inputs[0]), -1),
    ir.Softmax: lambda node, inputs, output: _softmax(inputs[0]),
    ir.Chain: _chain,
    ir.QuantizeInput: lambda node, inputs, output: finish(inputs[0], node.epilogue, output),
    ir.Requantize: lambda node, inputs, output: finish(inputs[0], node.epilogue, output),
    ir.Scores: lambda node, inputs, output: finish(inputs[0], node.epilogue, output),
    ir.Binarize: lambda node, inputs, output: finish(inputs[0], node.epilogue, output),
    ir.Unpack: _unpack,
}


def _softmax(x: Array) -> Array:
    power = np.exp(x - x.max(axis=-1, keepdims=True))
    return power / power.sum(axis=-1, keepdims=True)
