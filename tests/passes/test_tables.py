# SPDX-License-Identifier: Apache-2.0
"""Tables of int16 inputs: how far they are off, also where their input reaches far beyond what matters."""

from __future__ import annotations

import numpy as np
import pytest

from bnngen import interp, ir
from bnngen.passes import Options, run_passes
from bnngen.passes.tables import FLAT, FUNCTIONS
from tests import graphs

CURVATURE = {"sigmoid": 0.097, "tanh": 0.77, "hard_sigmoid": 0, "swish": 0.5, "hard_swish": 1 / 3, "elu": 1}
KINK = {"hard_swish": 0.5}  # a change of slope inside the range; those of hard_sigmoid are at its ends
STEEPEST = {"sigmoid": 0.25, "tanh": 1, "hard_sigmoid": 0.2, "swish": 1.1, "hard_swish": 1.5, "elu": 1}


def network(kind: str, gain: float, centre: float, second: str = "") -> ir.Graph:
    """The image, exact, times a gain, into a table: nothing else rounds. second: what else reads the tensor."""
    b = graphs.Builder((16, 16, 3), 0)
    norm = np.ones(3, np.float32)
    wide = b.element(ir.BatchNorm, "wide", gain * norm, 0 * norm, centre * norm, norm, 0.0)
    table = b.element(ir.Unary, "table", kind)
    if second:
        b.last = wide
        b.slopes("slope") if second == "slope" else b.element(ir.Unary, "other", second)
        b.concat("both", table)
    b.pool("pool")
    b.dense("logits", 3)
    return b.finish()


def reach_of(graph: ir.Graph) -> float:
    return run_passes(graph, Options(16)).tensors["wide"].uniform_scale * 32767


@pytest.mark.parametrize("centre", [-1, 0, 1])
@pytest.mark.parametrize("gain", [1, 5, 40])
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_table_is_off_by_its_stated_error(kind, gain, centre):
    graph = network(kind, gain, centre)
    integer = run_passes(graph, Options(16))
    images = graphs.pixels(graph, 32, seed=99)
    want = interp.evaluate(graph, graphs.scaled(images, graph.meta))
    got = interp.evaluate(integer, images)
    out, source = integer.tensors["table"].uniform_scale, integer.tensors["wide"].uniform_scale
    h = 256 * source
    seen = np.abs(want["wide"]).max()
    below, above = FLAT[kind]
    flat = max(below, min(above, want["wide"].max()))
    assert h <= 256 * 1.001 * min(seen, flat) / 32767
    allowed = h**2 / 8 * CURVATURE[kind] + h / 4 * KINK.get(kind, 0) + 0.6 * source * STEEPEST[kind] + 2e-5 + 1.1 * out
    assert np.abs(got["table"] * out - FUNCTIONS[kind](want["wide"].astype(np.float64))).max() <= allowed


def test_the_error_of_wide_inputs_is_small_where_functions_saturate():
    for kind, bound in (("sigmoid", 1.6e-4), ("tanh", 3e-4), ("hard_sigmoid", 1e-4)):
        graph = network(kind, 60, 0)
        integer = run_passes(graph, Options(16))
        images = graphs.pixels(graph, 32, seed=99)
        want = interp.evaluate(graph, graphs.scaled(images, graph.meta))["table"]
        got = interp.evaluate(integer, images)["table"] * integer.tensors["table"].uniform_scale
        assert np.abs(got - want).max() < bound


def test_the_reach_stays_where_others_read_the_tensor():
    assert reach_of(network("tanh", 60, 0)) == pytest.approx(6)
    assert reach_of(network("tanh", 60, 0, "sigmoid")) == pytest.approx(11)
    assert reach_of(network("tanh", 60, 0, "slope")) == pytest.approx(60, rel=0.02)
    assert reach_of(network("tanh", 2, 0)) == pytest.approx(2, rel=0.02)
