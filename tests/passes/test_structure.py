# SPDX-License-Identifier: Apache-2.0
"""Which integer ops come out: of chains that one epilogue expresses, of those that are cut; and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnngen import interp, ir
from bnngen.errors import ModelError
from bnngen.passes import Options, run_passes
from bnngen.passes.latent import latent_ops
from bnngen.passes.weights import common_step, quantize
from tests import graphs


def kinds(graph: ir.Graph) -> list[str]:
    names = []
    for node in graph.nodes:
        rule = getattr(node, "epilogue", None)
        names.append(type(node).__name__ + (f"+{type(rule).__name__}" if rule else ""))
    return names


def binary_start(seed: int = 0) -> graphs.Builder:
    b = graphs.Builder((6, 6, 2), seed)
    b.thermometer("bits", [60, 128, 190])
    b.binary_conv("conv", 8)
    return b


def finished(b: graphs.Builder) -> ir.Graph:
    if len(b.tensors[b.last].shape) == 3:
        b.pool("pool")
    b.dense("logits", 3)
    return b.finish()


def with_ranges(b: graphs.Builder) -> ir.Graph:
    """The graph with ranges that nobody measured, where its floats cannot be computed."""
    b.pool("pool")
    b.dense("logits", 3)
    names = [name for name, tensor in b.tensors.items() if tensor.dtype == ir.FLOAT]
    meta = ir.ModelMeta("tiny", ("a", "b", "c"), (0, 1, 2), 1 / 128, -1.0)
    meta = replace(meta, ranges=dict.fromkeys(names, ir.ChannelRange((-1.0,), (1.0,))))
    return ir.Graph(tuple(b.nodes), b.tensors, "image", b.last, meta)


def test_slopes_between_norms_are_one_requantize():
    b = graphs.Builder((6, 6, 2))
    b.conv("conv", 4)
    b.norm("bn")
    b.slopes("slope")
    b.norm("shift")
    assert kinds(run_passes(finished(b)))[1:3] == ["Conv2D+Affine", "Requantize+Piecewise"]


def test_a_rising_slope_before_a_sign_is_one_threshold():
    b = binary_start()
    b.norm("bn")
    b.slopes("slope")
    b.sign("sign")
    b.binary_conv("next", 4)
    assert kinds(run_passes(finished(b)))[:2] == ["Encode", "BinaryConv2D+Threshold"]


def test_a_slope_that_turns_round_is_cut_before_the_sign():
    b = binary_start()
    b.norm("bn")
    b.slopes("slope")
    b.nodes[-1].negative[3] = -1
    b.sign("sign")
    b.binary_conv("next", 4)
    graph = finished(b)
    integer = run_passes(graph)
    wanted = ["Encode", "BinaryConv2D+Affine", "Requantize+Piecewise", "Binarize+Threshold"]
    assert kinds(integer)[:4] == wanted
    images = graphs.pixels(graph, 8, seed=99)
    want = interp.evaluate(graph, graphs.scaled(images, graph.meta))["sign"]
    assert (interp.evaluate(integer, images)["sign"] == want).mean() > 0.999


def test_a_network_that_reads_only_encoded_bits_has_no_other_input():
    integer = run_passes(finished(binary_start()))
    assert "image.q" not in integer.tensors and not list(integer.of_type(ir.QuantizeInput))
    assert isinstance(integer.nodes[0], ir.Encode) and integer.nodes[0].inputs == ("image",)


def test_a_real_stream_takes_one_rounding_not_an_exact_accumulator():
    b = binary_start()
    b.norm("bn")
    left = b.last
    b.sign("sign")
    b.binary_conv("conv2", 8)
    b.norm("bn2")
    b.add("sum", left)
    assert kinds(run_passes(finished(b)))[1:5] == [
        "BinaryConv2D+Affine", "Binarize+Threshold", "BinaryConv2D+Affine", "Add",
    ]  # fmt: skip


@pytest.mark.parametrize("padded", [False, True])
def test_the_denominator_of_an_average(padded):
    b = graphs.Builder((5, 5, 2))
    b.conv("conv", 4)
    b.average_pool("average", ir.Window((3, 3), (2, 2), (1, 1, 1, 1) if padded else (0, 0, 0, 0)))
    graph = finished(b)
    (pool,) = run_passes(graph).of_type(ir.AveragePool)
    assert pool.denominator == (36 if padded else 0)  # counts 4, 6 and 9


def test_the_table_of_a_smooth_function():
    b = graphs.Builder((5, 5, 2))
    b.conv("conv", 4)
    b.element(ir.Unary, "gate", "sigmoid")
    for bits, size in ((8, 256), (16, 257)):
        integer = run_passes(finished(b) if bits == 8 else b.finish(), Options(bits))
        (node,) = integer.of_type(ir.Unary)
        source, out = integer.tensors["conv"], integer.tensors["gate"]
        assert len(node.table) == size
        place = 100 if bits == 8 else 40
        x = (place - 128) * (1 if bits == 8 else 256) * source.uniform_scale
        assert node.table[place] == round(1 / (1 + np.exp(-x)) / out.uniform_scale)


# ------------------------------------------------------------------------------------------ scores


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("end", ["binary dense, norm", "dense, norm", "pool", "add", "slope", "dense on bits", "relu"])
def test_networks_that_do_not_end_in_dense(end, bits):
    b = binary_start(4)
    b.norm("bn", 4)
    if end in ("binary dense, norm", "dense on bits"):
        b.sign("sign")
        b.flatten("flat") if end == "dense on bits" else b.max_pool("max")
        if end != "dense on bits":
            b.flatten("flat")
        w = b.rng.choice(np.float32([-0.5, 0.5]), (b.tensors["flat"].size, 5)) * np.float32([1, 2, 0.3, 1, 1])
        b._append(ir.Dense("dense", ("flat",), "dense", w, np.float32([3, -1, 0, 0.25, 0.1])), (5,))
        if end == "binary dense, norm":
            b.norm("last", 9)
    else:
        b.pool("pool")
        if end == "dense, norm":
            b.dense("dense", 5)
            b.norm("last")
        elif end == "add":
            b.add("last", "pool")
        elif end == "slope":
            b.slopes("last", both=True)
        elif end == "relu":
            b.relu("last")
    graph = b.finish()
    integer = run_passes(graph, Options(bits))
    assert isinstance(integer.nodes[-1], ir.Scores | ir.Dense) and integer.output == graph.output
    assert integer.tensors[integer.output].dtype == ir.S32
    images = graphs.pixels(graph, 16, seed=99)
    want = interp.run(graph, graphs.scaled(images, graph.meta))
    got = interp.run(integer, images) * integer.tensors[integer.output].uniform_scale
    worst = np.abs(got - want).max() / want.std()
    exact = end in ("binary dense, norm", "dense on bits")
    assert worst < (1e-5 if exact else 0.05 if bits == 8 else 0.02), worst


# ----------------------------------------------------------------------------------------- weights


def test_few_valued_weights_are_found_with_odd_integers_too():
    step = np.float32([0.1, 0.7, 1e-3, 3.0])
    integers = np.array([[-1, 3, 0, 127], [1, -5, 0, -126], [-1, 9, 0, 2], [0, 3, 0, 64]])
    weights = (integers * step).astype(np.float32)
    found = quantize(weights, 1, np.ones(4))
    np.testing.assert_array_equal(found.integers, integers)
    assert found.exact.all()
    np.testing.assert_allclose(found.unit[[0, 1, 3]], step[[0, 1, 3]], rtol=1e-6)


def test_generic_weights_use_all_127_steps():
    weights = np.random.default_rng(0).normal(0, 1, (3, 3, 8, 16)).astype(np.float32)
    found = quantize(weights, 1, np.full(8, 0.5))
    assert not found.exact.any() and (np.abs(found.integers).max(axis=(0, 1, 2)) == 127).all()
    assert not common_step(weights.reshape(-1, 16)).any()
    np.testing.assert_allclose(found.integers * found.unit * 2, weights, atol=np.abs(weights).max() / 250)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_scales_of_input_channels_fold_into_the_weights(groups):
    rng = np.random.default_rng(1)
    scales = rng.uniform(0.01, 1, 8)
    weights = rng.normal(0, 1, (3, 3, 8 // groups, 16)).astype(np.float32)
    found = quantize(weights, groups, scales)
    x = rng.integers(-127, 128, (1, 5, 5, 8))
    got = interp.convolve(x.astype(float), found.integers.astype(float), graphs.SAME3, groups, 0) * found.unit
    want = interp.convolve(x * scales, weights.astype(float), graphs.SAME3, groups, 0)
    assert np.sqrt(np.mean((got - want) ** 2)) < 0.01 * want.std()


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("layer", "field", "value"),
    [(0, "weights", np.nan), (1, "gamma", np.inf), (1, "variance", -1.0), (1, "variance", np.nan)],
)
def test_values_that_no_arithmetic_carries_name_the_layer(layer, field, value):
    b = graphs.Builder((5, 5, 2))
    b.conv("conv", 4)
    b.norm("bn")
    graph = finished(b)
    getattr(graph.nodes[layer], field).flat[1] = value
    with pytest.raises(ModelError) as caught:
        run_passes(graph)
    assert graph.nodes[layer].name in caught.value.where and caught.value.why and caught.value.fix


def test_a_softmax_in_the_middle_is_refused():
    b = graphs.Builder((5, 5, 2))
    b.conv("conv", 4)
    b.pool("pool")
    b.element(ir.Softmax, "attention")
    with pytest.raises(ModelError, match="softmax in the middle") as caught:
        run_passes(finished(b))
    assert caught.value.where == "layer attention"


@pytest.mark.parametrize(
    ("field", "value"), [("step", -1.0), ("cuts", np.array([1.0, 0.0, 2.0])), ("start", 40000)]
)
def test_quantizers_that_cannot_be_are_refused(field, value):
    b = binary_start()
    b.levels("codes", "dorefa2")
    b.nodes[-1] = replace(b.nodes[-1], **{field: value})
    with pytest.raises(ModelError) as caught:
        run_passes(finished(b))
    assert caught.value.where == "layer codes" and caught.value.fix


def test_an_average_of_nothing_is_refused():
    b = graphs.Builder((5, 5, 2))
    b.conv("conv", 4)
    b.average_pool("average", ir.Window((1, 1), (1, 1), (1, 0, 0, 0)))
    with pytest.raises(ModelError, match="wholly in the padding") as caught:
        run_passes(with_ranges(b))
    assert caught.value.where == "layer average"


@pytest.mark.parametrize("seen", [(np.nan, 1.0), (-np.inf, 1.0)])
def test_a_range_that_is_not_finite_is_refused(seen):
    b = graphs.Builder((5, 5, 2))
    b.conv("conv", 4)
    graph = finished(b)
    ranges = graph.meta.ranges | {"conv": ir.ChannelRange((seen[0],), (seen[1],))}
    with pytest.raises(ModelError, match="range of tensor conv is not finite"):
        run_passes(replace(graph, meta=replace(graph.meta, ranges=ranges)))


def test_a_range_of_the_wrong_length_is_refused():
    b = graphs.Builder((5, 5, 2))
    b.conv("conv", 4)
    graph = finished(b)
    ranges = graph.meta.ranges | {"conv": ir.ChannelRange((0.0,) * 3, (1.0,) * 3)}
    with pytest.raises(ModelError, match="3 entries, the tensor 4 channels"):
        run_passes(replace(graph, meta=replace(graph.meta, ranges=ranges)))


def test_scores_must_be_a_real_vector():
    b = graphs.Builder((5, 5, 2))
    b.conv("conv", 4)
    with pytest.raises(ModelError, match="shape .5, 5, 4."):
        run_passes(b.finish())
    b.flatten("flat")
    b.sign("sign")
    with pytest.raises(ModelError, match="output is binary"):
        run_passes(b.finish())


def test_the_latent_at_a_cut_with_a_scale_for_every_channel():
    graph = graphs.residual()
    flat = replace(graph.meta.latent, tensor="block1_add")
    c = graph.tensors["block1_add"].channels
    latent = replace(flat, **{k: tuple(np.linspace(s, 1, c).tolist()) for k, s in
                              (("threshold", 0.1), ("low", -0.5), ("high", 0.9))})  # fmt: skip
    integer = run_passes(replace(graph, meta=replace(graph.meta, latent=latent)), Options(8))
    scales = integer.tensors["block1_add"].scales
    assert len(set(scales)) > 10
    ops = latent_ops(integer)
    np.testing.assert_array_equal(ops.pack.epilogue.level, np.clip(np.ceil(latent.threshold / scales), -128, 128))
    np.testing.assert_array_equal(ops.unpack.low, np.clip(np.rint(latent.low / scales), -128, 127))
