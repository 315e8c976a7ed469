# SPDX-License-Identifier: Apache-2.0
"""Where exactness is claimed, every bit and every code equals the float graph evaluated without rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnngen import interp, ir
from bnngen.passes import Options, run_passes
from tests import graphs
from tests.passes import exact

CUTS = [40, 90, 128, 170, 220]
ONE = ir.Window((1, 1))
ODD = [-3, -1, 1, 3]


class ExactBuilder(graphs.Builder):
    """Batch norms whose roots are rational, with many ties: integer means, betas of 0, gammas of both signs and 0."""

    def norm(self, name: str, spread: float = 1.0) -> str:
        c = self.tensors[self.last].channels
        gamma = self.rng.choice(np.float32([1, -1, 0.5, 2.5, -0.3]), c)
        gamma[self.rng.integers(0, 4 * c) % c] = self.rng.choice(np.float32([0, -0.0]))
        beta = self.rng.choice(np.float32([0, 0, 0.5, 0.05, -0.05, 0.3, -1]), c)
        mean = np.rint(self.rng.normal(0, spread, c)).astype(np.float32)
        variance = self.rng.choice(np.float32([0.25, 1, 4, 2.25]), c)
        node = ir.BatchNorm(name, (self.last,), name, gamma, beta, mean, variance, 0.0)
        return self._append(node, self.tensors[self.last].shape)


def bits_of(b: graphs.Builder) -> None:
    b.thermometer("bits", CUTS)


def check(b: graphs.Builder, names: list[str], bits: int = 16) -> ir.Graph:
    """Compare the named binary tensors and codes, which must not be constant, over ties and all."""
    graph = b.finish()
    integer = run_passes(graph, Options(bits))
    images = graphs.pixels(graph, 2)
    want = exact.evaluate(graph, graphs.scaled(images, graph.meta))
    got = interp.evaluate(integer, images)
    for name in names:
        tensor = integer.tensors[name]
        real = exact.fractions(got[name]) * exact.fractions(tensor.scales)
        assert (real == want[name]).all(), f"{name}: {(real != want[name]).sum()} of {real.size} differ"
        assert len(np.unique(got[name])) > 1, f"{name} is constant and proves nothing"
    return integer


def head(b: graphs.Builder) -> None:
    b.pool("pool")
    b.dense("logits", 3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("quantizer", ["sign", "ternary", "heaviside", "dorefa1", "dorefa2", "dorefa3"])
@pytest.mark.parametrize("order", ["plain", "pool first", "two norms", "slope", "clip"])
def test_binary_layers_and_what_follows(seed, quantizer, order):
    b = ExactBuilder((5, 4, 2), seed)
    bits_of(b)
    b.binary_conv("conv", 7, pad_value=seed % 2)
    if seed % 3 == 1:
        b.nodes[-1] = replace(b.nodes[-1], kernel_scale=b.rng.choice(np.float32([0.1, -0.3, 2, 0]), 7))
    if order == "pool first":
        b.max_pool("max")
    b.norm("norm", 4)
    if order == "slope":
        b.slopes("slope", both=seed % 2 == 1)
        b.norm("norm2")
    if order == "clip":
        b.element(ir.Clip, "clip", -0.5, 1.25)
        b.norm("norm2")
    if order == "two norms":
        b.norm("norm2")
    b.sign("codes") if quantizer == "sign" else b.levels("codes", quantizer)
    head(b)
    check(b, ["codes"], bits=8 if seed % 2 else 16)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("source", ["bits", "ternary", "dorefa2"])
@pytest.mark.parametrize("weights", [[-1, 1], [-1, 0, 1], ODD, [-127, 3, 64]])
def test_few_valued_weights_on_codes(seed, source, weights):
    b = ExactBuilder((4, 5, 1), seed)
    bits_of(b)
    if source != "bits":
        b.binary_conv("first", 6)
        b.norm("first_norm", 3)
        b.levels("codes", source)
    if seed % 4 == 1:
        b.max_pool("codes_max")
    b.few_valued_conv("conv", 5, weights)
    if seed % 4 == 2:
        b.nodes[-1] = replace(b.nodes[-1], bias=np.float32([0.5, 0, -1, 3, 0.25]))
    elif seed % 4 == 3:
        b.max_pool("max")
    b.norm("norm", 6)
    b.sign("sign") if seed % 2 else b.levels("sign", "dorefa3")
    head(b)
    check(b, ["sign"] + (["codes"] if source != "bits" else []), bits=8 if seed >= 2 else 16)


@pytest.mark.parametrize("channels", [9, 32])  # 9 channels do not fill words
@pytest.mark.parametrize("kind", ["binary", "binary with bias", "ternary"])
def test_hidden_dense_layers_on_bits(kind, channels):
    b = ExactBuilder((4, 4, 1), 3)
    bits_of(b)
    b.binary_conv("conv", channels)
    b.norm("norm", 3)
    b.sign("sign")
    b.flatten("flat")
    c = b.tensors["flat"].size
    values = b.rng.choice(np.float32([-1, 0, 1] if kind == "ternary" else [-1, 1]), (c, 20))
    bias = b.rng.choice(np.float32([0, 1, -2.5]), 20) if "bias" in kind else None
    node = ir.Dense("dense", ("flat",), "dense", values * b.rng.choice(np.float32([0.2, 1]), 20), bias)
    b._append(node, (20,))
    b.norm("dense_norm", 5)
    b.sign("dense_sign")
    b.dense("logits", 3)
    integer = check(b, ["sign", "dense_sign"])
    expected = ir.Conv2D if kind == "ternary" else ir.BinaryConv2D
    assert type(integer.producer("dense_sign")) is expected


def test_two_readers_of_one_accumulator_both_decide_exactly():
    b = ExactBuilder((5, 5, 2), 1)
    bits_of(b)
    b.binary_conv("conv", 8)
    b.norm("norm_a", 4)
    b.sign("a")
    b.binary_conv("conv_a", 4, ONE)
    left = b.norm("left")
    b.last = "conv"
    b.norm("norm_b", 4)
    b.levels("b", "dorefa2")
    b.few_valued_conv("conv_b", 4, ODD, ONE)
    b.norm("right")
    b.add("sum", left)
    head(b)
    integer = check(b, ["a", "b"], bits=8)
    assert integer.tensors["conv"].dtype == ir.S16 and integer.tensors["conv"].scale == 1.0


def test_sign_and_pool_in_either_order_give_the_same_bits():
    results = []
    for late in (False, True):
        b = ExactBuilder((6, 6, 2), 5)
        bits_of(b)
        b.binary_conv("conv", 8)
        b.norm("norm", 3)
        if late:
            b.max_pool("max")
            b.sign("sign")
        else:
            b.sign("early")
            b.max_pool("sign")
        head(b)
        integer = check(b, ["sign"])
        assert isinstance(integer.producer("sign"), ir.MaxPool), "the pool moves bits in both"
        results.append(interp.evaluate(integer, graphs.pixels(integer, 4))["sign"])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("seed", [0, 1, 2, 6, 8])
def test_random_networks_of_bits_and_codes(seed):
    """Several layers deep: one wrong bit anywhere would show in all that follow."""
    b = ExactBuilder((7, 6, 2), seed + 40)
    bits_of(b)
    names = []
    for i in range(5):
        binary = b.tensors[b.last].dtype == ir.BITS
        b.binary_conv(f"conv{i}", 10) if binary and b.rng.integers(2) else b.few_valued_conv(f"conv{i}", 10, [-1, 0, 1])
        if b.rng.integers(3) == 0:
            b.max_pool(f"max{i}")
        b.norm(f"norm{i}", 5)
        if b.rng.integers(2):
            b.slopes(f"slope{i}")
        kind = b.rng.choice(["sign", "ternary", "dorefa2", "heaviside"])
        names.append(b.sign(f"codes{i}") if kind == "sign" else b.levels(f"codes{i}", str(kind)))
    head(b)
    check(b, names, bits=8 if seed % 2 else 16)


def test_concatenated_codes_stay_exact():
    b = ExactBuilder((5, 5, 2), 9)
    bits_of(b)
    parts = []
    for kind in ("ternary", "dorefa2"):
        b.last = "bits"
        b.binary_conv(f"conv_{kind}", 4)
        b.norm(f"norm_{kind}", 3)
        parts.append(b.levels(kind, kind))
    b.concat("both", parts[0])
    b.channels("mixed", [5, 0, -1, 7, 2, 2])
    b.max_pool("max")
    b.norm("norm", 1)
    b.sign("sign")
    b.binary_conv("out", 4)
    b.norm("out_norm", 2)
    head(b)
    check(b, ["both", "mixed", "sign"])
