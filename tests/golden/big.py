# SPDX-License-Identifier: Apache-2.0
"""Synthetic integer graphs as large as published ImageNet models: what generation and compilers have to stand."""

from __future__ import annotations

from bnngen import ir
from tests.golden.tiny import SAME3, Builder

POINT = ir.Window((1, 1))
HALVE = ir.Window((3, 3), (2, 2), (0, 0, 1, 1))


def residual(name: str, blocks: tuple[int, ...], classes: int = 1000) -> ir.Graph:
    """A 224x224 network of 64, 128, 256, 512 channels at 56 .. 7 pixels, with that many binary 3x3 blocks at each."""
    b = Builder((224, 224, 3), seed=1)
    x = b.conv("stem", b.quantize("input"), 8, ir.S16, HALVE)
    x = b.conv("stem_depthwise", x, 8, ir.S16, HALVE, groups=8)
    x = b.conv("stem_point", x, 64, ir.S16, POINT)
    for stage, count in enumerate(blocks):
        if stage:
            x = b.max_pool(f"pool{stage}", x, HALVE)
            x = b.conv(f"transition{stage}", x, 64 << stage, ir.S16, POINT)
        for i in range(count):
            bits = b.binarize(f"sign{stage}_{i}", x)
            x = b.plus(f"sum{stage}_{i}", x, b.binary_conv(f"conv{stage}_{i}", bits, 64 << stage, ir.S16, SAME3))
    b.dense("logits", b.average("mean", x), classes)
    return b.finish(name)[0]


def medium() -> ir.Graph:
    """12.5 million binary weights."""
    return residual("medium", (4, 4, 4, 4))


def large() -> ir.Graph:
    """22.6 million binary weights."""
    return residual("large", (6, 8, 12, 6))
