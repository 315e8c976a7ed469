# SPDX-License-Identifier: Apache-2.0
"""Half-step offsets: which 8-bit tensors get them, that every reader knows, and that signs lose their direction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnngen import interp, ir
from bnngen.passes import Options, offsets, run_passes
from tests import graphs

ONE = ir.Window((1, 1))


def start(channels: int = 12) -> tuple[graphs.Builder, str]:
    b = graphs.Builder((8, 8, 3), 3)
    b.conv("stem", channels)
    return b, b.norm("stem_bn")


def block(b: graphs.Builder, name: str) -> str:
    """Sign, binary convolution, batch norm, and the sum with what came in."""
    source = b.last
    b.sign(f"{name}_sign")
    b.binary_conv(f"{name}_conv", b.tensors[source].channels)
    b.norm(f"{name}_bn", spread=4)
    return b.add(f"{name}_add", source)


def finish(b: graphs.Builder) -> ir.Graph:
    b.pool("pool")
    b.dense("logits", 4)
    return b.finish(features="pool")


def compare(graph: ir.Graph, bits: int = 8) -> tuple[ir.Graph, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the integer graph, the float values and the real values of the integers, over the calibration images."""
    integer = run_passes(graph, Options(bits))
    images = graphs.pixels(graph, 32, seed=99)
    got = interp.evaluate(integer, images)
    want = interp.evaluate(graph, graphs.scaled(images, graph.meta))
    real = {n: (got[n] + t.offsets) * t.scales for n, t in integer.tensors.items() if t.dtype in ir.STREAM_TYPES}
    return integer, want, real


def bias(want: np.ndarray, real: np.ndarray, tensor: ir.Tensor) -> np.ndarray:
    """Mean error of each channel, in steps."""
    return (real - want).reshape(-1, tensor.channels).mean(axis=0) / tensor.scales


def test_a_residual_chain_has_half_steps_where_signs_read_and_none_behind():
    b, _ = start()
    block(b, "one")
    block(b, "two")
    b.relu("relu")
    tensors = run_passes(finish(b), Options(8)).tensors
    found = {name: tensors[name].offset for name in ("stem_bn", "one_bn", "one_add", "two_bn", "relu", "pool")}
    assert found == {"stem_bn": 0.5, "one_bn": 0, "one_add": 0.5, "two_bn": -0.5, "relu": 0, "pool": 0}


def test_16_bits_have_none():
    b, _ = start()
    block(b, "one")
    assert not any(np.any(tensor.offset) for tensor in run_passes(finish(b), Options(16)).tensors.values())


def test_the_sign_of_a_tensor_that_is_written_once_is_right():
    """Rounded to nearest, the half step below 0 would become +1."""
    b, _ = start(32)
    b.sign("sign")
    b.binary_conv("conv", 32)
    trunk = b.norm("bn", spread=12)
    block(b, "next")
    integer, want, _ = compare(finish(b))
    norm = interp.apply(integer.producer(trunk), [want["sign"]], integer.tensors[trunk])
    wrong = want["next_sign"] != np.where(norm >= 0, 1, -1)
    step = integer.tensors[trunk].scales
    assert np.all(np.abs(want[trunk] / step)[wrong] <= 1 / 8), "rounding of the multiplier alone is left"
    assert ((want[trunk] >= -step / 2) & (want[trunk] < -step / 8)).sum() > 50, "these would be wrong"


def test_signs_of_a_sum_are_wrong_in_both_directions():
    b, _ = start(32)
    block(b, "one")
    block(b, "two")
    integer, want, real = compare(finish(b))
    wrong = np.sign(real["one_add"]) != np.where(want["one_add"] >= 0, 1, -1)
    upward = (real["one_add"] > 0)[wrong].mean()
    assert wrong.sum() > 100 and 0.35 < upward < 0.65


def few_valued(b: graphs.Builder, *shape: int) -> np.ndarray:
    return b.rng.choice(np.float32([-0.25, 0, 0.25, 0.5]), shape)


READERS = {
    "convolution without padding": lambda b: b.few_valued_conv("read", 6, [-2, -1, 0, 1], ONE),
    "grouped convolution": lambda b: b.element(ir.Conv2D, "read", few_valued(b, 1, 1, 4, 12), ONE, 3),
    "hidden layer": lambda b: (b.flatten("flat"), b.element_of(6, ir.Dense, "read", few_valued(b, 768, 6))),
    "average pool that reaches outside": lambda b: b.average_pool("read", ir.Window((3, 3), (2, 2), (1, 1, 1, 1))),
    "batch norm": lambda b: b.norm("read"),
    "slope": lambda b: b.slopes("read"),
    "relu": lambda b: b.relu("read"),
}
TIES = ("slope", "relu")  # of the scale of their input: q + 1/2 lies half-way between two of their integers, ties go up


class VectorBuilder(graphs.Builder):
    """Adds layers to vectors too."""

    def element_of(self, channels: int, node_type: type[ir.Node], name: str, *values: object) -> str:
        return self._append(node_type(name, (self.last,), name, *values), (channels,))


@pytest.mark.parametrize("reader", READERS)
def test_readers_know_the_offset(reader):
    """A reader that took q for the value would be off by half a step of its input everywhere."""
    b = VectorBuilder((8, 8, 3), 3)
    b.conv("stem", 12)
    trunk = b.norm("trunk")
    b.sign("sign")
    b.last = trunk
    READERS[reader](b)
    if len(b.tensors["read"].shape) == 3:
        b.pool("squeeze")
    b.dense("hidden", 6)
    side = b.norm("hidden_bn")
    b.last = "sign"
    b.binary_conv("conv", 6)
    b.pool("conv_pool")
    b.add("sum", side)
    b.dense("logits", 4)
    graph = b.finish()
    single = ir.ChannelRange((-4.0,), (4.0,))  # one scale for all channels: few-valued weights stay exact
    graph = replace(graph, meta=replace(graph.meta, ranges=graph.meta.ranges | {trunk: single}))
    integer, _, real = compare(graph)
    tensor = integer.tensors["read"]
    assert integer.tensors[trunk].offset == 0.5 and tensor.dtype == ir.S8
    node = next(node for node in graph.nodes if node.name == "read")
    source = real[trunk].reshape(len(real[trunk]), *graph.tensors[node.inputs[0]].shape)
    off = np.median(bias(interp.apply(node, [source], graph.tensors["read"]), real["read"], tensor))
    assert (-0.01 if reader in TIES else -0.1) < off < (0.51 if reader in TIES else 0.1)


def test_a_padded_convolution_reads_zeros_outside():
    b, trunk = start()
    b.sign("sign")
    b.binary_conv("conv", 12)
    b.last = trunk
    side = b.conv("padded", 12)
    b.last = "conv"
    b.add("sum", side)
    assert run_passes(finish(b), Options(8)).tensors[trunk].offset == 0


def test_operands_that_signs_read_too_give_way_to_a_whole_sum():
    """Both have a half for their own signs; their sum would have 1, and the ReLU behind needs 0."""
    b, first = start()
    b.last = "image"
    b.conv("other", 12)
    second = b.norm("other_bn")
    signs = [b.sign("second_sign")]
    b.binary_conv("second_conv", 12)
    b.last = first
    signs.append(b.sign("first_sign"))
    b.binary_conv("first_conv", 12)
    b.add("convs", "second_conv")
    convs = b.last
    b.last = first
    b.add("both", second)
    b.relu("relu")
    b.add("all", convs)
    tensors = run_passes(finish(b), Options(8)).tensors
    assert [tensors[name].offset for name in (first, second, "relu")] == [0, 0, 0]


def test_a_threshold_that_is_not_zero_lies_between_integers_too():
    """Batch norm and sign on a stream tensor: every channel has its own threshold."""
    b, trunk = start()
    b.norm("shift")
    b.sign("sign")
    b.binary_conv("conv", 12)
    b.norm("conv_bn", spread=4)
    b.add("sum", trunk)
    graph = finish(b)
    integer, want, real = compare(graph)
    norm = next(node for node in graph.nodes if node.name == "shift")
    moves = norm.gamma != 0
    slope = norm.gamma / np.sqrt(norm.variance + norm.epsilon)
    cut = norm.mean - np.divide(norm.beta, slope, out=np.zeros(12), where=moves)
    tensor = integer.tensors[trunk]
    place = (cut / tensor.scales - tensor.offsets + 0.5)[moves]
    np.testing.assert_allclose(place, np.rint(place), atol=1e-4)
    assert len(set(tensor.offset)) > 6
    assert np.abs(bias(want[trunk], real[trunk], tensor)[1:]).max() < 0.1, "channel 0 is constant"


def test_channels_carry_their_offsets():
    """Concatenation and selection move offsets as they move scales; a padded channel is 0."""
    names = {n: ir.Tensor(n, (2,), ir.S8, 1.0) for n in ("a", "b")} | {
        n: ir.Tensor(n, (4,), ir.S8, 1.0) for n in ("joined", "picked", "bits")
    }
    wide = {n: replace(t, dtype=ir.FLOAT, scale=None) for n, t in names.items()} | {"image": ir.Tensor("image", (2,))}
    norm = ir.BatchNorm("n", ("joined",), "n", *(np.float32(v) for v in ([1] * 4, [0.0, -0.25, 0.25, 0], [0] * 4)),
                        np.ones(4, np.float32), 0.0)  # fmt: skip
    sign = ir.Sign("s", ("n",), "bits")
    relu = ir.Clip("r", ("image",), "a", -float("inf"))
    nodes = (
        ir.Chain("a", ("image",), "a", (relu,)),
        ir.Chain("b", ("image",), "b", (replace(relu, output="b"),)),
        ir.Concat("joined", ("a", "b"), "joined"),
        ir.Channels("picked", ("joined",), "picked", np.array([3, -1, 1, 0])),
        ir.Chain("bits", ("joined",), "bits", (norm, sign)),
    )
    meta = ir.ModelMeta("m", ("c",), (0,), 1.0, 0.0)
    found = offsets.with_offsets(ir.Graph(nodes, wide, "image", "bits", meta), names)
    assert found["a"].offset == (0.5, -0.25) and found["b"].offset == (0.25, 0.5)
    assert found["joined"].offset == (0.5, -0.25, 0.25, 0.5) and found["picked"].offset == (0.5, 0.0, -0.25, 0.5)


MOVES = {
    "shuffle": lambda b: b.channels("moved", [5, 0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 11]),
    "slice": lambda b: b.channels("moved", [6, 7, 8, 9, 10, 11]),
    "pad": lambda b: b.channels("moved", [*range(12), -1]),
    "flatten": lambda b: b.flatten("moved"),
}


@pytest.mark.parametrize("move", MOVES)
def test_a_sign_behind_moved_channels_is_met_half_way_too(move):
    b, trunk = start()
    b.norm("side")  # a second reader, so that the trunk is stored
    b.pool("side_pool")
    b.last = trunk
    MOVES[move](b)
    b.sign("sign")
    channels = b.tensors["moved"].channels
    if move == "flatten":
        b._append(ir.BinaryConv2D("conv", ("sign",), "conv", b.rng.choice(np.int8([-1, 1]), (1, 1, channels, 12)), ONE),
                  (12,))  # fmt: skip
    else:
        b.binary_conv("conv", 12)
        b.pool("pool")
    b.add("sum", "side_pool")
    b.dense("logits", 4)
    integer = run_passes(b.finish(), Options(8))
    read = [6, 7, 8, 9, 10, 11] if move == "slice" else list(range(12))
    offset = integer.tensors[trunk].offsets * np.ones(12)
    assert set(offset[read]) == {0.5} and set(np.delete(offset, read)) <= {0.0}


def test_of_two_signs_behind_parts_each_decides_for_its_channels():
    """The halves of a split have thresholds of their own; a channel that both read takes the first one's."""
    b, trunk = start()
    parts = []
    for name, index in (("low", list(range(7))), ("high", list(range(5, 12)))):
        b.last = trunk
        b.channels(name, index)
        b.norm(f"{name}_bn")
        b.sign(f"{name}_sign")
        parts.append(b.binary_conv(f"{name}_conv", 6))
    b.add("sum", parts[0])
    b.last, branch = trunk, b.last
    b.pool("trunk_pool")
    b.dense("hidden", 6)
    hidden = b.last
    b.last = branch
    b.pool("sum_pool")
    b.add("all", hidden)
    b.dense("logits", 4)
    graph = b.finish()
    tensor = run_passes(graph, Options(8)).tensors[trunk]
    for name, channels in (("low", slice(0, 7)), ("high", slice(7, 12))):
        norm = next(node for node in graph.nodes if node.name == f"{name}_bn")
        own = slice(0, 7) if name == "low" else slice(2, 7)
        slope = (norm.gamma / np.sqrt(norm.variance.astype(np.float64) + norm.epsilon))[own]
        moves = slope != 0
        cut = norm.mean[own] - np.divide(norm.beta[own], slope, out=np.zeros(len(slope)), where=moves)
        place = (cut / tensor.scales[channels] - tensor.offsets[channels] + 0.5)[moves]
        np.testing.assert_allclose(place, np.rint(place), atol=1e-4)
