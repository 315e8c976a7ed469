# SPDX-License-Identifier: Apache-2.0
"""The passes keep what the graph means: bit for bit where it is binary, closely where it is real."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from bnngen import interp, ir
from bnngen.errors import ModelError, UsageError
from bnngen.lower import lower
from bnngen.passes import Options, fuse_chains, run_passes
from bnngen.passes.curves import Accumulator, threshold_rule
from bnngen.passes.epilogues import Output, affine_rule
from bnngen.passes.forms import Form
from bnngen.passes.latent import latent_ops
from tests import graphs

GRAPHS = {
    "residual-one": lambda: graphs.residual(1),
    "residual-zero": lambda: graphs.residual(0),
    "chain-one": lambda: graphs.chain(1),
    "chain-zero": lambda: graphs.chain(0),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_fused_graph_computes_the_same_floats(name):
    graph = GRAPHS[name]()
    fused = fuse_chains(graph, None)
    x = graphs.scaled(graphs.pixels(graph, 20), graph.meta)
    np.testing.assert_array_equal(interp.run(fused, x), interp.run(graph, x))
    assert len(fused.nodes) < len(graph.nodes)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", GRAPHS)
def test_integer_graph_is_close_to_the_float_graph(name, bits):
    graph = GRAPHS[name]()
    integer = run_passes(graph, Options(bits))
    assert ir.is_integer(integer)
    images = graphs.pixels(graph, 100)
    want = interp.run(graph, graphs.scaled(images, graph.meta))
    got = interp.run(integer, images) * integer.tensors[integer.output].scale
    error = np.sqrt(np.mean((got - want) ** 2)) / want.std()  # int8 stem weights flip a few signs near 0
    assert error < 0.2, f"relative error {error:.3f}"


def test_every_binary_tensor_behind_exact_bits_is_exact():
    """In a chain only the stem is quantized: given equal bits there, all later bits are equal."""
    graph = graphs.chain(0)
    integer = run_passes(graph)
    images = graphs.pixels(graph, 64)
    want = interp.evaluate(graph, graphs.scaled(images, graph.meta))
    first = interp.evaluate(integer, images)["sign0"]
    values = {"sign0": first}
    for node in integer.nodes[2:]:
        values[node.output] = interp.apply(
            node, [values[n] for n in node.inputs], integer.tensors[node.output]
        )
        if node.output == "sign2":
            break
    floats = {"sign0": first}
    for node in graph.nodes[3:]:
        floats[node.output] = interp.apply(node, [floats[n] for n in node.inputs], graph.tensors[node.output])
        if node.output == "sign2":
            break
    np.testing.assert_array_equal(values["sign1"], floats["sign1"])
    np.testing.assert_array_equal(values["sign2"], floats["sign2"])
    assert 0.02 < (want["sign2"] < 0).mean() < 0.98, "a saturated layer proves nothing"


RELU = ir.Clip("relu", ("x",), "y")


def norm_of(gamma, beta, mean, variance, epsilon=0.0):
    one = [np.array([v], np.float32) for v in (gamma, beta, mean, variance)]
    return ir.BatchNorm("bn", ("x",), "y", *one, epsilon)


@pytest.mark.parametrize(
    ("gamma", "beta", "mean", "variance"),
    [
        (1, -1e-30, 0, 1),  # float64 loses this: 0 must be negative
        (1, 0, 0, 1),  # a tie: y = 0 is +1
        (-1, 0, 0, 1),  # a tie with the other slope
        (-1, 1e-30, 3, 1),
        (0, 1, 5, 1),  # constant +1
        (0, -1, 5, 1),  # constant -1
        (-0.0, 0, 2, 1),  # constant 0 is +1
        (2, -2, 0, 1),  # tie at acc = 1
        (1, -2, 0, 4),  # tie at acc = 4: 4 / 2 - 2 = 0
        (-3, 4.5, 1, 2.25),  # tie at acc = 3.25, between integers
        (1e-38, 1, 0, 1),
        (1e30, 7, 2, 1e-10),
    ],
)
@pytest.mark.parametrize("relu", [False, True])
def test_threshold_is_exact(gamma, beta, mean, variance, relu):
    norm = norm_of(gamma, beta, mean, variance)
    acc = Accumulator(*(np.array([v]) for v in (1.0, 0.0, -9, 9)))
    rule = threshold_rule(acc, (RELU, norm) if relu else (norm,))
    for value in range(-9, 10):
        x = Fraction(max(value, 0) if relu else value)
        root = Fraction(float(np.sqrt(np.float64(np.float32(variance)))))  # exact for the squares above
        y = Fraction(float(norm.gamma[0])) * (x - Fraction(float(norm.mean[0]))) / root
        y += Fraction(float(norm.beta[0]))
        got = interp.threshold(np.array([[value]]), rule)[0, 0]
        assert got == (-1 if y < 0 else 1), (value, rule)


def test_threshold_does_not_round_the_square_root():
    """(x - 1) * sqrt(1/2) - c with c just above and below sqrt(2): only squares tell them apart."""
    above, below = np.nextafter(np.float32(2**0.5), np.float32(2)), np.float32(1.41421354)
    assert Fraction(float(below)) ** 2 < 2 < Fraction(float(above)) ** 2
    acc = Accumulator(*(np.array([v]) for v in (1.0, 0.0, -9, 9)))
    for beta, want in ((-above, -1), (-below, 1)):
        rule = threshold_rule(acc, (norm_of(1, beta, 1, 2.0),))
        assert interp.threshold(np.array([[3]]), rule)[0, 0] == want  # y = 2 / sqrt(2) + beta


# name of a channel: batch norm (gamma, beta, mean in accumulator units), and its bit where it is always the same
WIDE_CHANNELS = {
    "dead, always": (0, -1, 0, True),
    "dead, never": (0, 1, 0, False),
    "rising, above int32": (1, 0, 2.3e9, True),
    "rising, below int32": (1, 0, -2.3e9, False),
    "falling, above int32": (-1, 0, 2.3e9, False),
    "falling, below int32": (-1, 0, -2.3e9, True),
    "rising": (1, 0, 1e8, None),
    "falling": (-1, 0, 1e8, None),
}


def wide_conv() -> ir.Graph:
    """600 non-negative int16 inputs and weights of +-127: int32 holds the sums, but not the sum of |w| * 32768."""
    b, one = graphs.Builder((4, 4, 3)), ir.Window((1, 1))
    b.conv("stem", 600, one)
    b.relu("stem_relu")
    b.conv("wide", len(WIDE_CHANNELS), one)
    near_one = np.linspace(0.9965, 1, 600)  # not few-valued, and still all 127
    b.nodes[-1].weights[:] = (np.where(np.arange(600) % 2, 1, -1) * near_one)[None, None, :, None]
    gamma, beta, mean = (np.array(v, np.float32) for v in list(zip(*WIDE_CHANNELS.values(), strict=True))[:3])
    top = max(interp.evaluate(b.finish(), np.ones((1, 4, 4, 3), np.float32))["stem_relu"].max(), 1)
    unit = top / 32767 / 127  # nearly: what an accumulator of 1 means
    norm = ir.BatchNorm("norm", ("wide",), "norm", gamma, beta, mean * np.float32(unit), np.ones_like(gamma), 0.0)
    b._append(norm, b.tensors["wide"].shape)
    b.sign("sign")
    b.binary_conv("out", 4)
    b.norm("out_bn")
    b.pool("pool")
    b.dense("logits", 3)
    graph = b.finish()
    ranges = graph.meta.ranges | {"stem_relu": ir.ChannelRange((0.0,), (float(top),))}
    return replace(graph, meta=replace(graph.meta, ranges=ranges))


def test_levels_beyond_int32_keep_their_meaning():
    """The type of the input allows sums beyond int32 that its values do not: no level may wrap around."""
    graph = run_passes(wide_conv())
    bits = interp.evaluate(graph, graphs.pixels(graph, 8))["sign"] < 0
    conv = next(node for node in graph.nodes if node.output == "sign")
    assert np.abs(conv.weights.astype(np.int64)).sum(axis=(0, 1, 2)).max() * 32768 > 2**31
    program = lower(graph)
    level = next(const.values for const in program.consts if const.name.endswith("_level") and len(const.values) == 8)
    reach = 300 * 127 * 32767
    for c, (name, (*_, always)) in enumerate(WIDE_CHANNELS.items()):
        if always is None:
            assert -reach < level[c] <= reach, name
        else:
            assert (bits[..., c] == always).all(), name
            assert (level[c] > reach) == always and (level[c] <= -reach) != always, name


@pytest.mark.parametrize("dtype", [ir.S8, ir.S16])
@pytest.mark.parametrize("reach", [9, 1152, 2_000_000])
def test_affine_is_within_its_stated_error(dtype, reach):
    rng = np.random.default_rng(3)
    gamma = rng.normal(0, 1, 40).astype(np.float32)
    norm = ir.BatchNorm("bn", ("x",), "y", gamma, *(np.ones((3, 40), np.float32)), 1e-3)
    top = 127 if dtype == ir.S8 else 32767
    unit = np.full(40, 3.0 / reach)
    acc = Accumulator(unit, np.zeros(40), np.full(40, -reach), np.full(40, reach))
    out = Output(np.full(40, 4.0 / top), *ir.TYPE_RANGE[dtype])
    rule = affine_rule(acc, Form(first=(norm,)), out)
    values = rng.integers(-reach, reach + 1, (500, 40))
    exact = ((values * unit - 1) * gamma / np.sqrt(1 + 1e-3) + 1) / out.scales
    error = np.abs(interp.affine(values, rule) - np.clip(exact, -top - 1, top)).max()
    assert error <= 0.5 + 1 / 16


def test_a_bias_before_the_relu_keeps_the_batch_norm_apart():
    b = graphs.Builder((6, 6, 2))
    b.conv("conv", 8, bias=True)
    b.relu("relu")
    b.norm("bn")
    b.pool("pool")
    b.dense("logits", 3)
    graph = b.finish()
    assert [type(n).__name__ for n in run_passes(graph).nodes[:3]] == [
        "QuantizeInput",
        "Conv2D",
        "Requantize",
    ]
    images = graphs.pixels(graph, 50)
    integer = run_passes(graph)
    want = interp.run(graph, graphs.scaled(images, graph.meta))
    got = interp.run(integer, images) * integer.tensors[integer.output].scale
    assert np.abs(got - want).max() / np.abs(want).max() < 0.02


@pytest.mark.parametrize(
    ("scale", "offset", "dtype", "exact"),
    [
        (1 / 128, -1.0, ir.S8, True),
        (1 / 127.5, -1.0, ir.S16, False),
        (1 / 255, 0.0, ir.S16, True),
        (0.0171, -2.1, ir.S16, False),
        (2.0, -255.0, ir.S16, True),
    ],
)
def test_input_grid(scale, offset, dtype, exact):
    graph = graphs.residual()
    graph = replace(graph, meta=replace(graph.meta, input_scale=scale, input_offset=offset))
    integer = run_passes(graph)
    tensor = integer.tensors["image.q"]
    assert tensor.dtype == dtype
    pixel = np.arange(256)[:, None]
    q = interp.affine(pixel, integer.nodes[0].epilogue)[:, 0]
    error = np.abs(q * tensor.scale - (scale * pixel[:, 0] + offset)).max()
    assert error <= (1e-12 if exact else 0.75 * tensor.scale)


def test_latent_round_trip():
    graph = run_passes(graphs.residual())
    ops = latent_ops(graph)
    images = graphs.pixels(graph, 40)
    features = interp.evaluate(graph, images)["pool"]
    bits = interp.apply(ops.pack, [features], ops.latent)
    back = interp.apply(ops.unpack, [bits], graph.tensors["pool"])
    assert 0.2 < (bits < 0).mean() < 0.8
    assert np.all(back[bits < 0] <= np.broadcast_to(ops.unpack.low, bits.shape)[bits < 0])
    real = features * graph.tensors["pool"].scale
    np.testing.assert_array_equal(bits < 0, real < np.array(graph.meta.latent.threshold))


def test_a_cut_at_bits_is_refused():
    graph = graphs.chain()
    bits = ir.Latent("sign1", (0.0,) * 48, (-1.0,) * 48, (1.0,) * 48)
    integer = run_passes(replace(graph, meta=replace(graph.meta, latent=bits)))
    with pytest.raises(ModelError, match="binary already") as caught:
        latent_ops(integer)
    assert caught.value.where == f"layer {integer.producer('sign1').name}"
    assert caught.value.why and "--cut" in caught.value.fix


def test_missing_range_names_the_layer():
    graph = graphs.residual()
    ranges = {k: v for k, v in graph.meta.ranges.items() if k != "stem_bn"}
    with pytest.raises(ModelError, match="stem_bn has no calibrated range") as caught:
        run_passes(replace(graph, meta=replace(graph.meta, ranges=ranges)))
    assert "--calibrate" in caught.value.fix


def test_activation_bits_are_8_or_16():
    with pytest.raises(UsageError, match="12"):
        Options(12)


@pytest.mark.parametrize(
    ("scale", "offset", "want"),
    [  # docs/numerics.md, "Input": pixel + k on s8, on s16, 2 * pixel + k, and the rounded grid
        (1 / 128, -1.0, (1, -128, 0)),
        (1 / 255, 0.0, (1, 0, 0)),
        (1 / 127.5, -1.0, None),  # 1 / 127.5 is not a float64: the exact quotient is not an integer
        (0.5, -63.75, (2, -255, 0)),
    ],
)
def test_input_rule_is_the_one_of_the_specification(scale, offset, want):
    graph = graphs.residual()
    graph = replace(graph, meta=replace(graph.meta, input_scale=scale, input_offset=offset))
    rule = run_passes(graph).nodes[0].epilogue
    if want is None:
        grid = max(abs(offset), abs(255 * scale + offset)) / 32767
        assert rule.shift == 16 and rule.mult[0] == round(Fraction(scale) / Fraction(grid) * 2**16)
        assert rule.bias[0] == round(Fraction(offset) / Fraction(grid) * 2**16) + 2**15
    else:
        assert (rule.mult[0], rule.bias[0], rule.shift) == want


@pytest.mark.parametrize(("lo", "hi"), [(0.0, 2.0**31), (-5e9, 5e9), (-5e9, 3.0), (5e9, 6e9), (-6e9, -5e9), (1e6, 2e6)])
@pytest.mark.parametrize("pooled", [False, True])
def test_limits_beyond_int32_limit_nothing(lo, hi, pooled):
    """Behind a binary convolution integer limits act on the accumulator, which is int32."""
    b = graphs.Builder((6, 6, 3), 2)
    b.conv("stem", 8)
    b.sign("sign")
    b.binary_conv("conv", 8)
    b.element(ir.Clip, "clip", lo, hi)
    if pooled:
        b.max_pool("max")
    b.norm("bn")
    b.sign("sign2")
    b.binary_conv("conv2", 4)
    b.element(ir.Clip, "clip2", lo, hi)
    b.norm("bn2")
    b.pool("pool")
    b.dense("logits", 3)
    graph = b.finish()
    integer = run_passes(graph)
    for node in integer.nodes:
        rule = getattr(node, "epilogue", None)
        if isinstance(rule, ir.Affine):
            assert -(2**31) <= rule.acc_lo <= rule.acc_hi < 2**31 and rule.lo <= rule.hi
    lower(integer)
    images = graphs.pixels(graph, 8)
    bits = interp.evaluate(integer, images)
    floats = {"sign": bits["sign"]}
    for node in graph.nodes[2:]:
        floats[node.output] = interp.apply(node, [floats[n] for n in node.inputs], graph.tensors[node.output])
    if hi > 0 and lo < 1e6:
        np.testing.assert_array_equal(bits["sign2"], floats["sign2"])
