# SPDX-License-Identifier: Apache-2.0
"""Three float graphs that between them have every op of the float stage, in every form that it can take."""

from __future__ import annotations

import numpy as np

from bnngen import ir
from tests.graphs import SAME3, Builder

WIDE = ir.Window((3, 2), (2, 1), (1, 0, 2, 1), (2, 1))


class Nodes(Builder):
    """A builder with what tests of integers do not need: groups, kernel scales, bits where real numbers usually are."""

    def grouped(self, name: str, channels: int, groups: int, window: ir.Window = SAME3) -> str:
        w = self.rng.normal(0, 0.3, (*window.kernel, self.tensors[self.last].channels // groups, channels))
        node = ir.Conv2D(name, (self.last,), name, w.astype(np.float32), window, groups)
        return self._append(node, self._map_shape(window, channels))

    def scaled_binary(
        self, name: str, channels: int, pad_value: int, groups: int = 1, window: ir.Window = SAME3
    ) -> str:
        shape = (*window.kernel, self.tensors[self.last].channels // groups, channels)
        w = self.rng.choice(np.array([-1, 1], np.int8), shape)
        scale = self.rng.normal(0, 1, channels).astype(np.float32)
        node = ir.BinaryConv2D(name, (self.last,), name, w, window, pad_value, groups, scale)
        return self._append(node, self._map_shape(window, channels))

    def signs_of_vector(self, name: str, channels: int) -> str:
        """A binary layer of a vector, which is a map of one pixel."""
        w = self.rng.choice(np.array([-1, 1], np.int8), (1, 1, self.tensors[self.last].channels, channels))
        return self._append(ir.BinaryConv2D(name, (self.last,), name, w, ir.Window((1, 1))), (channels,))

    def planes(self, name: str, bits: list[int]) -> str:
        source, value = np.repeat(np.arange(3), len(bits)), np.tile(bits, 3)
        node = ir.Encode(name, ("image",), name, source, value, True, 1 / 128, -1.0)
        return self._append(node, (*self.tensors["image"].shape[:2], len(source)), ir.BITS)


def elements() -> ir.Graph:
    """Everything element by element, of maps and of vectors; squeeze and excite; a softmax behind the last layer."""
    b = Nodes((6, 5, 3), seed=11)
    b.conv("stem", 33, bias=True)
    stem = b.norm("stem_bn")
    for number, kind in enumerate(ir.UNARY):
        b.last = stem
        if number == 0:
            b.element(ir.BatchNorm, "far", *(np.float32([v] * 33) for v in (4, 0, 0, 1)), 0.0)  # further out
        b.element(ir.Unary, kind, kind)
        b.add(f"{kind}_sum", stem)
    b.slopes("leaky")
    b.slopes("two_slopes", both=True)
    b.element(ir.Clip, "relu6", 0.0, 6.0)
    b.relu("relu")
    gate = b.last
    b.pool("squeeze")
    b.dense("shrink", 5)
    b.relu("shrink_relu")
    b.dense("grow", 33)
    b.element(ir.Unary, "gate", "sigmoid")
    b.mul("excite", gate)
    b.mul("square", b.last)
    for kind in ("ternary", "heaviside", "dorefa2", "dorefa7"):
        b.last = "excite"
        b.levels(kind, kind)
        b.add(f"{kind}_sum", "square")
    b.sign("sign")
    b.norm("norm_of_bits")
    b.last = "sign"
    b.slopes("slope_of_bits")
    b.last = "sign"
    b.add("bits_plus_real", "norm_of_bits")
    b.mul("times", "slope_of_bits")
    b.last = "sign"
    b.element(ir.Clip, "clip_of_bits", -0.5, 2.0)
    b.add("last", "times")
    b.flatten("flat")
    b.dense("logits", 6)
    b.element(ir.Softmax, "softmax")
    return b.finish()


def convolutions() -> ir.Graph:
    """Windows of all kinds; binary layers of both paddings, with scales and groups; real layers that read bits."""
    b = Nodes((11, 9, 3), seed=12)
    b.conv("stem", 40, WIDE, bias=True)
    b.grouped("groups", 24, 4)
    b.grouped("depthwise", 24, 24, WIDE)
    b.norm("bn")
    b.sign("sign0")
    b.binary_conv("plain", 36, pad_value=1)
    b.norm("bn0", spread=4)
    bits = b.sign("sign1")
    b.scaled_binary("scales", 34, pad_value=0)
    b.last = bits
    b.scaled_binary("binary_groups", 34, 1, 2, ir.Window((2, 3), (1, 1), (1, 1, 0, 1), (1, 1)))
    b.add("sum", "scales")
    b.norm("bn1", spread=4)
    bits = b.sign("sign2")
    b.conv("real_on_bits", 8, ir.Window((3, 3), (2, 2), (1, 1, 1, 1)), bias=True)
    b.last = bits
    b.flatten("flat_bits")  # 34 channels: bits do not fill words
    b.dense("dense_on_bits", 7)
    b.sign("sign3")
    b.signs_of_vector("dense_of_signs", 9)
    b.last = "real_on_bits"
    b.flatten("flat")
    b.dense("middle", 9)
    b.add("both", "dense_of_signs")
    b.dense("logits", 4)
    return b.finish()


def moves() -> ir.Graph:
    """Encodings of the image, pools with and without padding, of bits too, joins, moves; no dense layer."""
    b = Nodes((8, 7, 3), seed=13)
    b.thermometer("thermometer", [0, 100, 128, 256])
    b.planes("planes", [7, 6, 0])
    b.concat("bits", "thermometer")
    b.channels("shuffled_bits", [5, 0, 20, 3, 3])
    b.concat("more_bits", "bits")
    b.max_pool("pooled_bits")
    b.average_pool("average_of_bits", ir.Window((2, 2)))
    b.last = "more_bits"
    b.binary_conv("binary", 12, ir.Window((1, 1)))
    b.norm("bn")
    real = b.element(ir.Clip, "clip", -2.0, float("inf"))
    for name, window in (("average", ir.Window((3, 2), (1, 1), (2, 1, 0, 1))), ("plain", ir.Window((2, 2), (2, 1)))):
        b.last = real
        b.average_pool(name, window)
    b.last = real
    b._append(ir.MaxPool("max", (real,), "max", SAME3), b.tensors[real].shape)
    b.add("max_sum", real)
    b.channels("slice", [3, -1, 0, 11, 11, -1])
    b.concat("joined", real, "max")
    b.pool("pooled")
    b.last = "more_bits"
    b.pool("pooled_more")
    b.concat("vectors", "pooled")
    b.channels("scores", list(range(0, 50, 7)))
    return b.finish()


GRAPHS = {"elements": elements, "convolutions": convolutions, "moves": moves}
