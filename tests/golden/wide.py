# SPDX-License-Identifier: Apache-2.0
"""Integer graphs with the ops of newer networks, made by hand: encodings, slopes, quantizers, products, tables,
concatenation, channel moves, padded averages, binary layers of every grouping, scores without a dense layer."""

from __future__ import annotations

import numpy as np

from bnngen import ir
from tests.golden.tiny import SAME3, Builder


class Wide(Builder):
    """The builder with the other ops."""

    def requant(self, name: str, source: str, rule: ir.Piecewise | ir.Steps, dtype: str) -> str:
        return self.add(ir.Requantize(name, (source,), name, rule), self.tensors[source].shape, dtype)

    def slope(self, name: str, source: str, dtype: str) -> str:
        tensor = self.tensors[source]
        above = self.affine(tensor.channels, ir.TYPE_RANGE[tensor.dtype][1], dtype)
        below = ir.Affine(above.mult // 4, above.bias, above.shift, above.lo, above.hi)
        knot = self.rng.integers(*ir.TYPE_RANGE[tensor.dtype], tensor.channels)
        return self.requant(name, source, ir.Piecewise(knot, below, above), dtype)

    def quantizer(self, name: str, source: str, cuts: int, first: int) -> str:
        tensor = self.tensors[source]
        lo, hi = ir.TYPE_RANGE[tensor.dtype]
        level = np.sort(self.rng.integers(2 * lo, 2 * hi, (tensor.channels, cuts)), axis=1)
        rule = ir.Steps(level, self.rng.integers(0, 2, tensor.channels), first)
        return self.requant(name, source, rule, ir.S8)

    def mul(self, name: str, a: str, b: str, dtype: str) -> str:
        pair = [self.tensors[a], self.tensors[b]]
        shape = max((t.shape for t in pair), key=len)
        spread = ir.TYPE_RANGE[pair[0].dtype][1] * ir.TYPE_RANGE[pair[1].dtype][1] // 4
        node = ir.Mul(name, (a, b), name, self.affine(shape[-1], spread, dtype))
        return self.add(node, shape, dtype)

    def table(self, name: str, source: str, dtype: str) -> str:
        tensor = self.tensors[source]
        lo, hi = ir.TYPE_RANGE[dtype]
        entries = self.rng.integers(lo, hi + 1, 256 if tensor.dtype == ir.S8 else 257)
        return self.add(ir.Unary(name, (source,), name, "sigmoid", entries), tensor.shape, dtype)

    def concat(self, name: str, *sources: str) -> str:
        tensors = [self.tensors[source] for source in sources]
        shape = (*tensors[0].shape[:-1], sum(t.channels for t in tensors))
        return self.add(ir.Concat(name, sources, name), shape, tensors[0].dtype)

    def channels(self, name: str, source: str, index: list[int]) -> str:
        tensor = self.tensors[source]
        node = ir.Channels(name, (source,), name, np.array(index))
        return self.add(node, (*tensor.shape[:-1], len(index)), tensor.dtype)

    def encode(self, name: str, channels: int, planes: bool) -> str:
        height, width, image_c = self.tensors["image"].shape
        value = self.rng.integers(0, 8 if planes else 257, channels)
        node = ir.Encode(name, ("image",), name, self.rng.integers(0, image_c, channels), value, planes, 1.0, 0.0)
        return self.add(node, (height, width, channels), ir.BITS)

    def unpack(self, name: str, source: str, dtype: str) -> str:
        tensor = self.tensors[source]
        one = np.ones(tensor.channels, np.int64)
        return self.add(ir.Unpack(name, (source,), name, -one, one), tensor.shape, dtype)

    def dot(self, name: str, source: str, channels: int, window: ir.Window = SAME3, groups: int = 1) -> str:
        """A binary convolution that gives its exact sum."""
        self.binary_conv(name, source, channels, ir.S16, window, 0, groups)
        old = self.nodes.pop()
        one, zero = np.ones(channels, np.int32), np.zeros(channels, np.int64)
        rule = ir.Affine(one, zero, 0, *ir.TYPE_RANGE[ir.S16])
        node = ir.BinaryConv2D(name, old.inputs, name, old.weights, window, 0, groups, None, rule)
        self.nodes.append(node)
        return name

    def padded_average(self, name: str, source: str, window: ir.Window, denominator: int) -> str:
        tensor = self.tensors[source]
        c = tensor.channels
        rule = ir.Affine(np.full(c, round(2**30 / denominator)), np.full(c, 2**29), 30, *ir.TYPE_RANGE[tensor.dtype])
        node = ir.AveragePool(name, (source,), name, window, rule, denominator)
        return self.add(node, self.shape(source, window, c), tensor.dtype)

    def scores(self, name: str, source: str) -> str:
        c = self.tensors[source].channels
        rule = ir.Affine(self.rng.integers(-(2**15), 2**15, c), np.full(c, 7), 0, *ir.TYPE_RANGE[ir.S32])
        return self.add(ir.Scores(name, (source,), name, rule), (c,), ir.S32)


def bits_first() -> ir.Graph:
    """Bits from the first layer to the last but one: encodings, joined and shuffled bits, groups, a flatten."""
    b = Wide((7, 6, 3), seed=11)
    x = b.concat("join_bits", b.encode("levels", 33, False), b.encode("planes", 24, True))
    x = b.channels("shuffle_bits", x, [*range(56, 0, -2), *range(1, 57, 2), 0])
    x = b.binary_conv("all_depthwise", x, 57, ir.BITS, ir.Window((5, 3), (1, 1), (2, 2, 2, 2), (1, 2)), 0, groups=57)
    x = b.binary_conv("by_three", x, 38, ir.BITS, SAME3, 1, groups=19)
    x = b.binary_conv("large", x, 31, ir.BITS, ir.Window((12, 12), (1, 1), (6, 6, 5, 5)), 0)
    x = b.flatten("flat", b.max_pool("pool", x, ir.Window((2, 2), (2, 2))))
    x = b.binary_conv("binary_dense", x, 33, ir.BITS, ir.Window((1, 1)))
    x = b.unpack("plus_minus", x, ir.S8)
    x = b.conv("dense", x, 9, ir.S16, ir.Window((1, 1)))
    b.scores("scores", x)
    return b.finish("bits_first")[0]


def elements() -> ir.Graph:
    """Streams: slopes, quantizers, tables, squeeze and excite, dense blocks, channel moves, padded averages."""
    b = Wide((9, 8, 2), seed=12)
    stem = b.conv("stem", b.quantize("input"), 31, ir.S16)
    x = b.slope("slope", stem, ir.S16)
    gate = b.table("gate", b.conv("squeeze", b.average("mean", x), 31, ir.S16, ir.Window((1, 1))), ir.S16)
    x = b.mul("excite", gate, x, ir.S16)
    grown = b.dot("grow", b.binarize("sign", x), 8)
    x = b.concat("dense1", x, grown)
    x = b.concat("dense2", x, b.dot("grow2", b.binarize("sign2", x), 13, SAME3), grown)
    x = b.channels("moved", x, [-1, *range(51, 0, -1), 0, -1, 5])
    x = b.padded_average("padded", x, ir.Window((3, 3), (2, 2), (1, 1, 1, 1)), 36)
    x = b.table("smooth", b.slope("slope_down", x, ir.S8), ir.S16)
    x = b.quantizer("codes", x, 3, -1)
    x = b.conv("depthwise", x, 55, ir.S16, ir.Window((5, 5), (1, 1), (2, 2, 2, 2)), groups=55)
    x = b.mul("square", x, x, ir.S16)
    x = b.conv("twice", x, 110, ir.S16, SAME3, groups=55)
    x = b.conv("by_eleven", x, 22, ir.S8, SAME3, groups=11)
    x = b.table("small_table", x, ir.S8)
    b.dense("logits", b.average("pool", x), 5)
    return b.finish("elements")[0]
