# SPDX-License-Identifier: Apache-2.0
"""Real-valued ops in integers: small errors at 16 bits and at 8, each op by itself, and scales as they must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bnngen import interp, ir
from bnngen.errors import ModelError
from bnngen.lower import lower
from bnngen.passes import Options, run_passes
from tests import graphs

SAME = ir.Window((3, 3), (2, 2), (1, 1, 1, 1))
WORST = {16: 2e-3, 8: 0.08}  # relative to the tensor's own spread


def start(seed: int = 0) -> graphs.Builder:
    b = graphs.Builder((8, 8, 3), seed)
    b.conv("stem", 12)
    b.nodes[-1].weights[..., ::3] *= 0.05  # channels of very different size
    b.norm("stem_bn")
    return b


def piecewise(b: graphs.Builder) -> None:
    b.norm("shift")
    b.slopes("slope", both=True, least=-0.5)
    b.norm("shift2")


def falling_slope(b: graphs.Builder) -> None:
    """The stored tensor has two readers, so the norm with gammas of both signs is on its side of the slope."""
    stem = b.last
    piecewise(b)
    b.add("sum", stem)


def double_slope(b: graphs.Builder) -> None:
    b.conv("conv", 8)
    b.slopes("slope")
    b.slopes("slope2")
    b.norm("bn")
    b.relu("relu")
    b.norm("bn2")


def relu6(b: graphs.Builder) -> None:
    stem = b.element(ir.Clip, "six", 0.0, 0.8)
    b.conv("conv", 12)
    b.norm("bn")
    b.add("sum", stem)
    b.element(ir.Clip, "tanh", -0.7, 0.9)


def squeeze_excite(b: graphs.Builder) -> None:
    stem = b.last
    b.pool("squeeze")
    b.dense("down", 5)
    b.relu("down_relu")
    b.dense("up", 12)
    gate = b.element(ir.Unary, "gate", "sigmoid")
    b.last = stem
    b.mul("scaled", gate)
    b.norm("scaled_bn")


def product(b: graphs.Builder) -> None:
    stem = b.last
    b.conv("other", 12)
    b.mul("product", stem)
    b.relu("product_relu")


def dense_block(b: graphs.Builder) -> None:
    for i in range(3):
        before = b.last
        b.conv(f"grow{i}", 5)
        b.concat(f"cat{i}", before)
    b.max_pool("max")
    b.norm("bn")
    b.relu("relu")


def melius(b: graphs.Builder) -> None:
    before = b.last
    b.conv("part", 4)
    part = b.channels("padded", [-1] * 8 + [0, 1, 2, 3])
    b.last = before
    b.add("sum", part)
    b.channels("shuffled", list(np.arange(12).reshape(3, 4).T.ravel()))


def padded_average(b: graphs.Builder) -> None:
    b.average_pool("average", SAME)
    b.norm("bn")


def image_plus_stream(b: graphs.Builder) -> None:
    b.last = "image"
    b.conv("conv", 3)
    b.norm("conv_bn", 0.2)
    b.add("sum", "image")
    b.concat("cat", "image")


def image_alone(b: graphs.Builder) -> None:
    b.last = "image"
    b.max_pool("max")
    b.concat("cat", "max")


def bits_in_the_stream(b: graphs.Builder) -> None:
    b.thermometer("bits", [40, 90, 150, 200])
    bits = b.last
    b.conv("conv", 12, bias=True)
    b.add("sum", bits)
    b.concat("cat", bits)
    b.nodes[-1] = replace(b.nodes[-1])
    b.tensors["cat"] = replace(b.tensors["cat"], dtype=ir.FLOAT)


def codes_in_the_stream(b: graphs.Builder) -> None:
    b.thermometer("bits", [40, 90, 150, 200])
    b.binary_conv("binary", 12)
    b.norm("norm", 4)
    codes = b.levels("codes", "dorefa2")
    b.conv("conv", 12, bias=True)
    b.add("sum", codes)


def depthwise(b: graphs.Builder) -> None:
    w = b.rng.normal(0, 1, (3, 3, 1, 24)).astype(np.float32)
    b._append(ir.Conv2D("depth", (b.last,), "depth", w, graphs.SAME3, 12), (8, 8, 24))
    w = b.rng.normal(0, 1, (3, 3, 6, 8)).astype(np.float32)
    b._append(ir.Conv2D("grouped", (b.last,), "grouped", w, graphs.SAME3, 4), (8, 8, 8))


def flat(b: graphs.Builder) -> None:
    b.max_pool("max")
    b.flatten("flat")
    b.dense("hidden", 9)
    b.relu("hidden_relu")


NETWORKS: dict[str, Callable[[graphs.Builder], None]] = {
    f.__name__: f
    for f in (
        piecewise, falling_slope, double_slope, relu6, squeeze_excite, product, dense_block, melius, padded_average,
        image_plus_stream, image_alone, bits_in_the_stream, codes_in_the_stream, depthwise, flat,
    )
}  # fmt: skip
for kind in ir.UNARY:
    NETWORKS[kind] = lambda b, kind=kind: b.element(ir.Unary, "unary", kind)


def errors(graph: ir.Graph, bits: int) -> dict[str, float]:
    """Root mean square error of every real-valued tensor that both graphs have, in units of its spread."""
    integer = run_passes(graph, Options(bits))
    assert ir.is_integer(integer)
    images = graphs.pixels(graph, 24, seed=99)  # those of the calibration: nothing saturates
    want = interp.evaluate(graph, graphs.scaled(images, graph.meta))
    got = interp.evaluate(integer, images)
    result = {}
    for name, tensor in integer.tensors.items():
        if name in want and tensor.dtype not in (ir.BITS, ir.U8):
            difference = (got[name] + tensor.offsets) * tensor.scales - want[name]
            result[name] = float(np.sqrt(np.mean(difference**2)) / want[name].std())
    return result


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_op_in_integers_is_close(name, bits):
    b = start()
    NETWORKS[name](b)
    if len(b.tensors[b.last].shape) == 3:
        b.pool("pool")
    b.dense("logits", 4)
    found = errors(b.finish(), bits)
    weights = 0.02 if bits == 16 else 0  # generic weights are int8 in both
    assert max(found.values()) < WORST[bits] + weights, found
    assert len(found) > 2


def mute(graph: ir.Graph) -> None:
    """Weights that int8 holds exactly, so that only activations round."""
    for node in graph.of_type(ir.Conv2D, ir.Dense):
        step = np.abs(node.weights).max() / 127
        node.weights[:] = np.rint(node.weights / step) * np.float32(2.0**-7)


@pytest.mark.parametrize("name", NETWORKS)
def test_at_16_bits_only_the_weights_are_coarse(name):
    b = start()
    NETWORKS[name](b)
    if len(b.tensors[b.last].shape) == 3:
        b.pool("pool")
    b.dense("logits", 4)
    mute(b.finish())
    found = errors(b.finish(), 16)
    assert max(found.values()) < WORST[16], found


def test_8_bits_have_a_scale_for_every_channel_and_16_bits_one():
    b = start()
    dense_block(b)
    b.pool("pool")
    b.dense("logits", 4)
    graph = b.finish(cut="max", features="pool")
    narrow, wide = run_passes(graph, Options(8)), run_passes(graph, Options(16))
    assert all(isinstance(t.scale, float) for t in wide.tensors.values() if t.dtype == ir.S16)
    assert len(set(narrow.tensors["stem_bn"].scales)) > 6
    np.testing.assert_array_equal(narrow.tensors["stem_bn"].scales, narrow.tensors["cat0"].scales[5:])
    np.testing.assert_array_equal(narrow.tensors["cat2"].scales, narrow.tensors["max"].scales)
    assert narrow.tensors["pool"].uniform_scale > 0  # the learned head needs one


def test_scales_by_channel_are_what_keeps_small_channels_alive():
    """With one range for all channels the same network is several times worse at 8 bits."""
    b = start()
    b.conv("conv", 8)
    b.nodes[-1].weights[:, :, 1::3] = 0  # reads the small channels: most of the signal
    b.nodes[-1].weights[:, :, 2::3] *= 0.01
    b.norm("bn")
    b.pool("pool")
    b.dense("logits", 4)
    graph = b.finish()
    single = {
        name: ir.ChannelRange((min(seen.lo),), (max(seen.hi),)) for name, seen in graph.meta.ranges.items()
    }
    coarse = replace(graph, meta=replace(graph.meta, ranges=single))
    assert errors(graph, 8)["bn"] < errors(coarse, 8)["bn"]


def test_a_quiet_channel_keeps_room_and_a_clip_narrows():
    b = start()
    b.pool("pool")
    b.dense("logits", 4)
    graph = b.finish()
    c = 12
    lo, hi = (-1.0,) * c, (0.0,) + (4.0,) * (c - 1)
    for clip, want in (((), [1.0] + [4.0] * 11), ((2.0,) * c, [1.0] + [2.0] * 11)):
        ranges = graph.meta.ranges | {"stem_bn": ir.ChannelRange((0.0,) + lo[1:], hi, clip)}
        integer = run_passes(replace(graph, meta=replace(graph.meta, ranges=ranges)), Options(8))
        want[0] = max(want) / 16  # silent in calibration: a sixteenth of the largest
        np.testing.assert_allclose(integer.tensors["stem_bn"].scales * 127, want)


def test_int32_sums_of_thousands_of_int16_inputs_fit():
    b = graphs.Builder((16, 16, 1), 0)
    b.conv("stem", 36)
    b.flatten("flat")
    b.dense("hidden", 5)
    b.relu("relu")
    b.dense("logits", 3)
    graph = b.finish()
    integer = run_passes(graph)
    for name, layer in (("flat", integer.producer("relu")), ("relu", integer.producer("logits"))):
        rule = integer.producer({"flat": "stem"}.get(name, name)).epilogue
        sums = np.abs(layer.weights.astype(np.int64)).reshape(-1, layer.weights.shape[-1]).sum(axis=0)
        bias = getattr(layer, "bias", None)
        top = sums * max(rule.hi, -rule.lo) + (0 if bias is None else np.abs(bias.astype(np.int64)))
        assert top.max() < 2**31 - 1
    assert integer.producer("stem").epilogue.hi < 32767, "9216 inputs leave int32 with all 32767 steps"
    assert errors(graph, 16)["logits"] < 0.02


@pytest.mark.parametrize("size", [7, 9, 11])
def test_a_padded_average_that_leaves_too_few_steps_is_refused(size):
    """The sums have the least common multiple of all counts as denominator: 420^2, 2520^2, 27720^2."""
    b = graphs.Builder((16, 16, 3), 0)
    b.conv("stem", 4)
    side = size // 2
    b.average_pool("wide", ir.Window((size, size), (1, 1), (side,) * 4))
    b.pool("pool")
    b.dense("logits", 3)
    graph = b.finish()
    for bits in (8, 16):
        if size == 7 or (size, bits) == (9, 8):
            lower(run_passes(graph, Options(bits)))
            assert errors(graph, bits)["wide"] < 0.03
            continue
        with pytest.raises(ModelError) as caught:
            run_passes(graph, Options(bits))
        assert "wide" in caught.value.where and "smaller window" in caught.value.fix
        assert ("--activation-bits 8" in caught.value.fix) == (size == 9)
