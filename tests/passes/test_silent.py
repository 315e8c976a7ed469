# SPDX-License-Identifier: Apache-2.0
"""Channels that are always 0, padded or silent in calibration, must not cost the other channels their precision."""

from __future__ import annotations

import numpy as np
import pytest

from bnngen import interp, ir
from bnngen.passes import Options, run_passes
from tests import graphs

ONE = ir.Window((1, 1))
DECIBELS = {8: 34, 16: 40}  # int8 weights: 37 to 46 are met


def padded_image(b: graphs.Builder) -> None:
    b.channels("padded", [0, 1, 2, -1])


def padded_map(b: graphs.Builder) -> None:
    b.conv("stem", 6)
    b.relu("relu")
    b.channels("padded", [-1, 0, 1, 2, 3, 4, 5, -1])


def padded_codes(b: graphs.Builder) -> None:
    b.levels("codes", "dorefa2")  # exact: the image is
    b.channels("padded", [0, 1, 2, -1, -1])


def silent_branch(b: graphs.Builder) -> None:
    b.conv("dead", 5, bias=True)
    b.nodes[-1].bias[:] = -100
    b.relu("dead_relu")
    b.last = "image"
    b.conv("stem", 6)
    b.relu("relu")
    b.concat("joined", "dead_relu")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("network", [padded_image, padded_map, padded_codes, silent_branch])
def test_a_channel_that_is_always_0_costs_nothing(network, bits):
    b = graphs.Builder((8, 8, 3), 1)
    network(b)
    b.conv("read", 8)
    b.pool("pool")
    b.dense("logits", 4)
    graph = b.finish()
    integer = run_passes(graph, Options(bits))
    images = graphs.pixels(graph, 32, seed=99)
    want = interp.evaluate(graph, graphs.scaled(images, graph.meta))["read"]
    tensor = integer.tensors["read"]
    got = (interp.evaluate(integer, images)["read"] + tensor.offsets) * tensor.scales
    assert 10 * np.log10((want**2).sum() / ((got - want) ** 2).sum()) > DECIBELS[bits]


def test_a_tensor_silent_as_a_whole_still_computes():
    b = graphs.Builder((8, 8, 3), 1)
    b.conv("stem", 5, bias=True)
    b.nodes[-1].bias[:] = -100
    b.relu("relu")
    b.conv("read", 4, bias=True)
    b.pool("pool")
    b.dense("logits", 3)
    graph = b.finish()
    images = graphs.pixels(graph, 4)
    want = interp.run(graph, graphs.scaled(images, graph.meta))
    for bits in (8, 16):
        integer = run_passes(graph, Options(bits))
        assert set(integer.tensors["relu"].scales) == {1.0}
        got = interp.run(integer, images) * integer.tensors["logits"].scale
        np.testing.assert_allclose(got, want, atol=0.05)
