# SPDX-License-Identifier: Apache-2.0
"""Multipliers, biases and shifts at the ends of what 64 bits hold, and how far a result is off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnngen import interp, ir
from bnngen.errors import ModelError
from bnngen.lower import lower
from bnngen.passes import Options, run_passes
from bnngen.passes.curves import Accumulator
from bnngen.passes.epilogues import Output, affine_rule, piecewise_rule
from bnngen.passes.forms import Form
from tests import graphs

ROUNDING = 0.5 + 1 / 16  # of a step


def one(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def shifted(beta: np.ndarray) -> ir.BatchNorm:
    n = len(beta)
    return ir.BatchNorm("bn", ("x",), "y", np.ones(n, np.float32), beta, np.zeros(n, np.float32), one(*[1] * n), 0.0)


@pytest.mark.parametrize("slope", [False, True])
@pytest.mark.parametrize("scale", [1e-4, 1e-9])
def test_a_huge_offset_saturates_and_costs_the_other_channels_nothing(slope, scale):
    """Offsets up to 3e38 / scale steps; in 64 bits they turned round."""
    beta = one(0.25, 1e5, -1e5, 3e6, -3e6, 1e9, -1e9, 1e15, -1e15, 3e38, -3e38)
    n = len(beta)
    acc = Accumulator(np.full(n, 1e-4), np.zeros(n), np.full(n, -32768), np.full(n, 32767))
    out = Output(np.full(n, scale), -32768, 32767)
    values = np.array([-32768, -5000, -1, 0, 1, 5000, 32767])[:, None]
    want = values * 1e-4 + beta.astype(np.float64)
    if slope:
        bend = ir.PRelu("p", ("y",), "z", one(*[0.5] * n))
        rule = piecewise_rule(acc, Form(first=(shifted(beta),), bend=bend), out)
        got, want = interp.piecewise(values, rule), np.where(want < 0, want / 2, want)
    else:
        rule = affine_rule(acc, Form(first=(shifted(beta),)), out)
        got = interp.affine(values, rule)
    want = np.clip(want / scale, -32768, 32767)
    assert np.abs(got - want).max() <= ROUNDING


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("beta", [3e6, 1e9, -1e9, 1e30])
def test_a_network_with_a_huge_bias_computes_what_keras_does(beta, bits):
    b = graphs.Builder((6, 6, 3), 0)
    b.conv("stem", 4)
    b.norm("bn")
    b.nodes[-1].beta[1] = beta
    b.element(ir.Clip, "relu6", 0.0, 6.0)
    b.pool("pool")
    b.dense("logits", 3)
    graph = b.finish()
    integer = run_passes(graph, Options(bits))
    lower(integer)
    images = graphs.pixels(graph, 16, seed=99)
    want = interp.run(graph, graphs.scaled(images, graph.meta))
    got = interp.run(integer, images) * integer.tensors["logits"].scale
    np.testing.assert_allclose(got, want, atol=0.05)


def test_what_no_integer_carries_names_the_layer():
    b = graphs.Builder((6, 6, 3), 0)
    b.conv("stem", 4)
    b.norm("bn")
    b.pool("pool")
    b.dense("logits", 3)
    graph = b.finish()
    tiny = ir.ChannelRange((0.0,), (1e-30,))
    graph = replace(graph, meta=replace(graph.meta, ranges=graph.meta.ranges | {"bn": tiny}))
    with pytest.raises(ModelError, match="more than integers can carry") as caught:
        run_passes(graph)
    assert "stem" in caught.value.where


@pytest.mark.parametrize("kind", ["product", "gated", "average"])
def test_results_without_weights_are_off_by_rounding_alone(kind):
    """A product of two int16 has 30 bits: its multiplier needs more than 30 after the point."""
    b = graphs.Builder((16, 16, 3), 3)
    left = b.conv("left", 6)
    b.last = "image"
    b.conv("right", 6)
    if kind == "gated":
        b.pool("gate")
    if kind == "average":
        b.average_pool("result", ir.Window((7, 7), (1, 1), (3, 3, 3, 3)))
    else:
        b.mul("result", left)
    b.pool("pool")
    b.dense("logits", 3)
    graph = b.finish()
    integer = run_passes(graph)
    node = next(node for node in integer.nodes if node.output == "result")
    images = graphs.pixels(graph, 32, seed=99)
    values = interp.evaluate(integer, images)
    real = [values[name] * integer.tensors[name].scales for name in node.inputs]
    if kind == "average":
        window = next(n for n in graph.nodes if n.name == "result").window
        count = interp.windows(np.ones_like(real[0]), window, 0).sum(axis=(3, 4))
        want = interp.windows(real[0], window, 0).sum(axis=(3, 4)) / count
    else:
        want = interp.apply(ir.Mul("m", node.inputs, "result"), real, graph.tensors["result"])
    steps = np.clip(want / integer.tensors["result"].scales, -32768, 32767)
    assert np.abs(values["result"] - steps).max() <= ROUNDING
