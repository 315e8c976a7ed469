# SPDX-License-Identifier: Apache-2.0
"""A small tensor beside a large sum keeps a scale of its own at 8 bits."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from bnngen import interp, ir
from bnngen.passes import Options, run_passes
from tests.graphs import Builder

GROWTH = 50


def growing(factor: int, read_twice: bool = True) -> ir.Graph:
    """image -> stem norm; stem norm + a branch `factor` times as large; a convolution reads the stem norm too."""
    b = Builder((6, 6, 3), seed=3)
    b.conv("stem", 8)
    start = b.norm("stem_norm")
    b.conv("branch", 8)
    b.norm("branch_norm")
    norm = b.nodes[-1]
    b.nodes[-1] = replace(norm, gamma=norm.gamma * np.float32(factor), beta=norm.beta * np.float32(factor))
    if not read_twice:  # the branch comes from the image, so that the sum alone reads the stem norm
        b.nodes[-2] = replace(b.nodes[-2], inputs=("image",), weights=b.nodes[-2].weights[:, :, :3])
    b.add("sum", start)
    b.pool("pool")
    b.dense("logits", 4)
    return b.finish()


def copies(graph: ir.Graph) -> list[str]:
    return [node.name for node in graph.nodes if ".for." in node.name]


def snr(graph: ir.Graph, bits: int, tensor: str) -> float:
    x = np.random.default_rng(1).integers(0, 256, (8, 6, 6, 3)).astype(np.uint8)
    meta = graph.meta
    real = interp.evaluate(graph, (x * meta.input_scale + meta.input_offset).astype(np.float32))[tensor]
    integers = run_passes(graph, Options(bits))
    stored = integers.tensors[tensor]
    got = stored.scales * (interp.evaluate(integers, x)[tensor] + stored.offsets)
    return float(10 * np.log10((real**2).sum() / ((real - got) ** 2).sum()))


def test_the_other_reader_gets_all_bits():
    graph = growing(GROWTH)
    assert copies(run_passes(graph, Options(8))) == ["stem_norm.for.sum"]
    assert snr(graph, 8, "stem_norm") > 35


def test_without_the_pass_it_has_few(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules["bnngen.passes.part_sums"], "WIDER", 1e9)
    assert snr(growing(GROWTH), 8, "stem_norm") < 20


@pytest.mark.parametrize(("factor", "twice", "bits"), [(1, True, 8), (GROWTH, False, 8), (GROWTH, True, 16)])
def test_it_copies_nothing_without_need(factor: int, twice: bool, bits: int):
    """A sum of the same size; no reader but the sum; 16 bits."""
    assert copies(run_passes(growing(factor, twice), Options(bits))) == []
