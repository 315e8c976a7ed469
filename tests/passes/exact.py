# SPDX-License-Identifier: Apache-2.0
"""What a float graph means without any rounding: its nodes over arrays of fractions.

Independent of the passes. Square roots must be rational here: batch norms with variance + epsilon a square.
"""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

import numpy as np

from bnngen import interp, ir

Array = np.ndarray
fractions = np.vectorize(lambda value: Fraction(float(value)), otypes=[object])


def root(value: Fraction) -> Fraction:
    """sqrt of a square of a rational."""
    above, below = isqrt(value.numerator), isqrt(value.denominator)
    assert (above * above, below * below) == (value.numerator, value.denominator), "choose a square"
    return Fraction(above, below)


def evaluate(graph: ir.Graph, images: Array) -> dict[str, Array]:
    """Every tensor's value, as fractions, of a graph whose image is scaled float32."""
    values = {graph.input: fractions(images)}
    for node in graph.nodes:
        values[node.output] = apply(node, [values[name] for name in node.inputs])
    return values


def apply(node: ir.Node, inputs: list[Array]) -> Array:
    x = inputs[0]
    if isinstance(node, ir.Conv2D | ir.BinaryConv2D):
        fill = getattr(node, "pad_value", 0)
        y = interp.convolve(x, fractions(node.weights), node.window, node.groups, Fraction(fill))
        y = y if getattr(node, "kernel_scale", None) is None else y * fractions(node.kernel_scale)
        return y if getattr(node, "bias", None) is None else y + fractions(node.bias)
    if isinstance(node, ir.Dense):
        return x @ fractions(node.weights) + (0 if node.bias is None else fractions(node.bias))
    if isinstance(node, ir.BatchNorm):
        gamma, beta, mean, variance = (fractions(v) for v in (node.gamma, node.beta, node.mean, node.variance))
        scale = [g / root(v + Fraction(node.epsilon)) for g, v in zip(gamma, variance, strict=True)]
        return (x - mean) * np.array(scale, object) + beta
    if isinstance(node, ir.PRelu):
        positive = 1 if node.positive is None else fractions(node.positive)
        return np.where(x < 0, x * fractions(node.negative), x * positive)
    if isinstance(node, ir.Clip):
        return np.minimum(np.maximum(x, node.lo), node.hi)
    if isinstance(node, ir.Levels):
        passed = [(x >= c) if closed else (x > c) for c, closed in zip(fractions(node.cuts), node.closed, strict=True)]
        return (node.start + np.sum(passed, axis=0)) * np.array(Fraction(float(np.float32(node.step))), object)
    if isinstance(node, ir.Sign):
        return np.where(x >= 0, Fraction(1), Fraction(-1))
    if isinstance(node, ir.Encode):
        return fractions(interp.apply(node, [x.astype(np.float64)], None))
    if isinstance(node, ir.MaxPool):
        return interp.windows(x, node.window, -np.inf).max(axis=(3, 4))
    if isinstance(node, ir.GlobalAveragePool):
        return x.sum(axis=(1, 2)) / Fraction(x.shape[1] * x.shape[2])
    if isinstance(node, ir.Add):
        return inputs[0] + inputs[1]
    return interp.SEMANTICS[type(node)](node, inputs, None)  # moves of elements
