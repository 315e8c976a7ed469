# SPDX-License-Identifier: Apache-2.0
"""Lowering of the newer ops: what is proved about them, what is packed, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.lower import bounds, lower
from bnngen.lower.program import graph_hash
from bnngen.lower.shapes import NARROW
from tests.golden import tiny, wide

NODE = ir.Node("layer", ("x",), "y")


def refused(graph: ir.Graph, name: str, match: str, **changes: object) -> None:
    """Lower the graph with one node changed; the message names it."""
    old = next(node for node in graph.nodes if node.name == name)
    nodes = tuple(replace(node, **changes) if node is old else node for node in graph.nodes)
    lower(graph)
    with pytest.raises(ModelError, match=match) as caught:
        lower(replace(graph, nodes=nodes))
    assert name in caught.value.where


def node_of(graph: ir.Graph, name: str) -> ir.Node:
    return next(node for node in graph.nodes if node.name == name)


def const(program: object, name: str) -> np.ndarray:
    return next(c.values for c in program.consts if c.name == name)


# ----------------------------------------------------------------------------------------------- refusals


def test_bits_have_no_zero_to_pad_with():
    refused(wide.bits_first(), "shuffle_bits", "asked for, join_bits has 0 .. 56", index=np.array([-1] * 58))


@pytest.mark.parametrize("index", [-2, 60])
def test_a_channel_that_is_not_there_is_refused(index):
    graph = wide.elements()
    changed = node_of(graph, "moved").index.copy()
    changed[3] = index
    refused(graph, "moved", "asked for, dense2 has 0 .. 59", index=changed)


def test_tensors_of_other_sizes_are_not_joined():
    refused(wide.elements(), "dense1", "cannot be joined", inputs=("excite", "mean"))


def test_a_product_of_other_shapes_is_refused():
    refused(wide.elements(), "excite", r"shapes \[31\] and \[9, 8, 2\]", inputs=("gate", "input"))


def test_codes_have_to_fit_the_output():
    graph = wide.elements()
    rule = node_of(graph, "codes").epilogue
    refused(graph, "codes", "125 .. 128 of a quantizer do not fit s8", epilogue=replace(rule, first=125))


def test_the_sides_of_a_slope_share_shift_and_limits():
    graph = wide.elements()
    rule = node_of(graph, "slope").epilogue
    for changed in (replace(rule.below, shift=rule.below.shift - 1), replace(rule.below, hi=5)):
        refused(graph, "slope", "differ in shift or limits", epilogue=replace(rule, below=changed))
    limited = replace(rule.above, acc_lo=0)
    refused(graph, "slope", "limits its input", epilogue=replace(rule, above=limited))


def test_a_table_has_the_entries_of_its_input():
    table = node_of(wide.elements(), "gate").table
    refused(wide.elements(), "gate", "257 entries of type s16", table=table[:256])
    refused(wide.elements(), "gate", "257 entries of type s16", table=table + 70000)
    refused(wide.elements(), "gate", "257 entries of type s16", table=None)


def test_encodings_read_what_the_image_has():
    graph = wide.bits_first()
    refused(graph, "levels", "a channel that the image lacks", source=np.full(33, 3))
    refused(graph, "planes", "below the lowest", value=np.full(24, -1))


def test_a_sum_of_two_types_is_refused():
    b = tiny.Builder((4, 4, 2), seed=0)
    x = b.conv("a", b.quantize("input"), 2, ir.S8)
    b.add(ir.Add("sum", (x, b.conv("b", x, 2, ir.S16)), "sum"), (4, 4, 2), ir.S16)
    b.dense("logits", b.average("pool", "sum"), 2)
    with pytest.raises(ModelError, match="s16, s8"):
        lower(b.finish("mixed")[0])


def test_what_a_bit_stands_for_has_to_fit():
    refused(wide.bits_first(), "plus_minus", "does not fit s8", high=np.full(33, 128))


def test_a_model_ends_in_scores():
    graph = wide.bits_first()
    with pytest.raises(ModelError, match="does not end in scores"):
        lower(replace(graph, nodes=graph.nodes[:-1], output="dense"))


def test_scores_are_of_a_vector():
    b = wide.Wide((4, 4, 2), seed=0)
    b.scores("scores", b.quantize("input"))
    with pytest.raises(ModelError, match="made of one vector"):
        lower(b.finish("map")[0])


# ------------------------------------------------------------------------------------------------- proofs


def test_ranges_follow_the_ops():
    ranges = bounds.tensor_ranges(wide.elements())
    table = node_of(wide.elements(), "gate").table
    assert ranges["codes"] == (-1, 2) and ranges["gate"] == (table.min(), table.max())
    assert ranges["moved"] == (-32768, 32767)
    assert bounds.tensor_ranges(wide.bits_first())["plus_minus"] == (-1, 1)


def test_padding_of_channels_counts_in_the_range():
    b = wide.Wide((2, 2, 1), seed=0)
    x = b.quantizer("codes", b.quantize("input"), 2, 5)
    b.dense("logits", b.average("pool", b.channels("padded", x, [0, -1])), 2)
    ranges = bounds.tensor_ranges(b.finish("pad")[0])
    assert ranges["codes"] == (5, 7) and ranges["padded"] == (0, 7)


def test_a_product_has_the_range_of_its_corners():
    assert bounds.product_range((-32768, 32767), (-32768, 32767)) == (-32768 * 32767, 2**30)
    assert bounds.product_range((2, 5), (-7, -3)) == (-35, -6)


def test_a_padded_average_is_bounded_with_its_denominator():
    graph = wide.elements()
    node = node_of(graph, "padded")
    refused(graph, "padded", "beyond 32 bits", denominator=36 * 2000)
    assert bounds.sum_range(node, 36, 1, (-10, 7)) == [(-360, 252)]


def test_exact_sums_of_binary_layers_pass_through():
    program = lower(wide.elements())
    affine = next(a for a in program.affines if a.name == "grow_affine")
    assert (affine.shift, affine.arithmetic) == (0, NARROW) and set(const(program, "grow_mult")) == {1}


def test_levels_and_knots_are_clipped_to_what_is_reached():
    """Beyond the reach every level means the same, and int32 is enough for any level."""
    graph = wide.elements()
    codes, slope = node_of(graph, "codes"), node_of(graph, "slope_down")
    far = replace(codes, epilogue=replace(codes.epilogue, level=np.tile([-(2**40), 3, 2**40], (55, 1))))
    steep = replace(slope, epilogue=replace(slope.epilogue, knot=np.full(55, 2**40)))
    nodes = tuple({"codes": far, "slope_down": steep}.get(node.name, node) for node in graph.nodes)
    program = lower(replace(graph, nodes=nodes))
    lo, hi = bounds.tensor_ranges(graph)["smooth"]
    np.testing.assert_array_equal(const(program, "codes_level"), np.tile([lo, 3, hi + 1], (55, 1)))
    assert set(const(program, "slope_down_knot")) == {32768}


def test_a_slope_is_proved_on_both_sides():
    """The side above the knot reaches farther than int32 allows; only there the wide form is needed."""
    graph = wide.elements()
    rule = node_of(graph, "slope").epilogue
    c = 31
    zero, big = np.zeros(c, np.int64), np.full(c, 2**31 - 1)
    for below, above, narrow in ((1, 1, True), (big, 1, False), (1, big, False)):
        sides = [replace(rule.below, mult=np.full(c, m), bias=zero, shift=1) for m in (below, above)]
        sides = [replace(side, mult=np.broadcast_to(m, c)) for side, m in zip(sides, (below, above), strict=True)]
        made = ir.Piecewise(np.zeros(c, int), *sides)
        node = replace(node_of(graph, "slope"), epilogue=made)
        nodes = tuple(node if n.name == "slope" else n for n in graph.nodes)
        affine = next(a for a in lower(replace(graph, nodes=nodes)).affines if a.name == "slope_affine")
        assert (affine.arithmetic == NARROW) == narrow


# ------------------------------------------------------------------------------------------------ program


def test_a_vector_may_be_either_factor():
    call = next(c for c in lower(wide.elements()).calls() if c.layer == "excite")
    assert [arg.name for arg in call.args[:2]] == ["slope", "gate"] and call.shape.broadcast == 1


def test_a_product_of_a_tensor_with_itself_may_lie_on_it():
    program = lower(wide.elements())
    values = program.values
    assert values["square"].buffer == values["depthwise"].buffer
    vector = next(c for c in program.calls() if c.layer == "excite")
    assert vector.in_place and values["excite"].buffer == values["slope"].buffer


def test_any_number_of_tensors_is_joined_by_one_call():
    program = lower(wide.elements())
    call = next(c for c in program.calls() if c.layer == "dense2")
    assert call.reads == ("dense1", "grow2", "grow") and call.shape.inputs == 3
    assert const(program, "dense2_counts").tolist() == [39, 13, 8]


def test_a_binary_map_that_fills_words_is_flattened_by_nobody():
    for channels, called in ((64, 0), (33, 1)):
        b = wide.Wide((4, 4, 3), seed=0)
        x = b.flatten("flat", b.encode("levels", channels, False))
        b.scores("scores", b.conv("dense", b.unpack("plus_minus", x, ir.S8), 3, ir.S16, ir.Window((1, 1))))
        program = lower(b.finish("flat")[0])
        assert sum(call.kernel == "bflatten" for call in program.calls()) == called


def test_the_hash_covers_slopes_and_quantizers():
    graph = wide.elements()
    slope, codes = node_of(graph, "slope"), node_of(graph, "codes")
    mult = slope.epilogue.below.mult.copy()
    mult[20] += 1
    level = codes.epilogue.level.copy()
    level[30, 1] += 1
    changes = {
        "slope": replace(slope, epilogue=replace(slope.epilogue, below=replace(slope.epilogue.below, mult=mult))),
        "codes": replace(codes, epilogue=replace(codes.epilogue, level=level)),
    }
    hashes = {graph_hash(graph), graph_hash(wide.elements())}
    assert len(hashes) == 1
    for name, node in changes.items():
        hashes.add(graph_hash(replace(graph, nodes=tuple(node if n.name == name else n for n in graph.nodes))))
    assert len(hashes) == 3
