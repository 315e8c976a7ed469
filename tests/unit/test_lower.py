# SPDX-License-Identifier: Apache-2.0
"""Lowering: segments, proofs of the arithmetic, selection, and what is refused."""

from __future__ import annotations

import re
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnngen import ir, resources
from bnngen.errors import ModelError, UsageError
from bnngen.lower import bounds, lower
from bnngen.lower.kernels import KERNELS
from bnngen.lower.layers import LOWERINGS
from bnngen.lower.names import HEADER_WORDS, RUNTIME_WORDS, c_name, model_name
from bnngen.lower.program import graph_hash
from bnngen.lower.select import choose
from bnngen.lower.shapes import HIGH, NARROW, WIDE, ConvShape, DenseShape, MapShape, MoveShape, MulShape, PoolShape
from tests.golden import tiny, wide

NODE = ir.Node("layer", ("x",), "y")


def exchanged(graph: ir.Graph, old: ir.Node, new: ir.Node) -> ir.Graph:
    """The graph with one node replaced by another."""
    return replace(graph, nodes=tuple(new if node is old else node for node in graph.nodes))


# ---------------------------------------------------------------------------------------- agreement with C


@pytest.mark.parametrize("shape", [ConvShape, PoolShape, MapShape, MulShape, MoveShape, DenseShape])
def test_shapes_have_the_fields_of_the_c_struct(shape):
    header = (resources.runtime() / "include/bnn/kernel.h").read_text(encoding="utf-8")
    body = re.search(r"typedef struct \{([^}]*)\} " + shape.C_NAME + ";", header).group(1)
    declared = [name for line in re.findall(r"int32_t ([^;]*);", body) for name in line.split(", ")]
    assert declared == [f.name for f in fields(shape)]


def test_every_variant_has_its_function():
    for kernel in KERNELS.values():
        for variant in kernel.variants:
            path = resources.runtime() / "kernels" / f"{kernel.header}_{variant.name}.h"
            names = re.findall(r"\bbnn_\w+", path.read_text(encoding="utf-8"))
            assert f"bnn_{kernel.name}_{variant.name}" in names, path


def test_the_last_variant_is_a_reference_for_everyone():
    for kernel in KERNELS.values():
        assert kernel.variants[-1].name == "ref" and not kernel.variants[-1].features


def test_the_readme_lists_every_variant():
    text = (resources.runtime() / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    listed = {
        (name, tuple(re.findall(r"`(\w+)`", variants)))
        for header, names, variants in rows
        for name in re.findall(r"`(\w+)`", names)
        if any(kernel.header == header for kernel in KERNELS.values())
    }
    assert listed == {(k.name, tuple(v.name for v in k.variants)) for k in KERNELS.values()}


def test_every_integer_op_is_lowered():
    graph, latent = tiny.everything()
    used = {type(node) for node in (*graph.nodes, *latent, *wide.bits_first().nodes, *wide.elements().nodes)}
    assert used == set(LOWERINGS)


# ------------------------------------------------------------------------------------------------ segments


def test_segments_meet_at_the_cut_and_at_the_features():
    program = lower(*_with_latent(tiny.everything()))
    layers = {name: [call.layer for call in calls] for name, calls in program.segments.items()}
    assert layers["front"][-1] == "rescale" and layers["tail"][0] == "depthwise"
    assert layers["tail"][-1] == "average" and layers["scores"] == ["logits"]
    assert (layers["pack"], layers["unpack"]) == (["pack"], ["unpack"])
    assert program.features == "average"  # the flattened tensor is the same bytes
    assert program.latent_words == 3 * 2 * 2


def _with_latent(made):
    graph, latent = made
    return graph, frozenset(), "ref", latent


def test_without_a_cut_there_are_front_and_scores():
    graph, _ = tiny.small()
    plain = replace(graph, meta=replace(graph.meta, latent=None, head=None))
    program = lower(plain)
    assert [len(program.segments[name]) for name in ("front", "tail", "scores", "pack", "unpack")] == [6, 0, 1, 0, 0]
    assert program.cut is None and program.features == "pool" and program.latent_words == 0


def test_a_shortcut_around_the_cut_is_refused():
    graph, latent = tiny.everything()
    around = (replace(latent[0], inputs=("back",)), replace(latent[1], output="back"))
    with pytest.raises(ModelError, match="rescale goes around the latent cut") as caught:
        lower(graph, latent=around)
    assert caught.value.fix


def test_a_cut_behind_the_features_is_refused():
    graph, latent = tiny.everything()
    head = replace(graph.meta.head, tensor="stem")
    with pytest.raises(ModelError, match="behind the feature tensor"):
        lower(replace(graph, meta=replace(graph.meta, head=head)), latent=latent)


def test_reserved_names_are_refused():
    graph, latent = tiny.small()
    renamed = replace(graph.tensors["sign"], name="latent")
    nodes = tuple(
        replace(
            n,
            inputs=tuple("latent" if i == "sign" else i for i in n.inputs),
            output="latent" if n.output == "sign" else n.output,
        )
        for n in graph.nodes
    )
    tensors = {k: v for k, v in graph.tensors.items() if k != "sign"} | {"latent": renamed}
    with pytest.raises(ModelError, match="called latent"):
        lower(replace(graph, nodes=nodes, tensors=tensors), latent=latent)


def test_the_hash_follows_what_is_computed_and_nothing_else():
    graph, latent = tiny.small()
    assert graph_hash(graph) == graph_hash(tiny.small()[0]) and len(graph_hash(graph)) == 32
    hashes = {lower(graph, frozenset(f), "auto", latent).model_hash for f in ((), ("x64",), ("neon",), ("cm4", "dsp"))}
    assert hashes == {graph_hash(graph)}
    conv = next(graph.of_type(ir.Conv2D))
    weights = conv.weights.copy()
    weights[0, 0, 0, 0] += 1
    changed = exchanged(graph, conv, replace(conv, weights=weights))
    assert graph_hash(changed) != graph_hash(graph)


# ----------------------------------------------------------------------------------------------- selection


def shape_of(groups: int) -> ConvShape:
    return ConvShape(4, 4, 32, 4, 4, 32, 3, 3, 1, 1, 1, 1, 1, 1, groups, 1, 0, 1)


def test_the_best_variant_of_the_target_is_chosen():
    for feature, variant in (("neon", "neon"), ("cm4", "cm4"), ("x64", "x64")):
        assert choose("bconv2d", shape_of(1), frozenset({feature}), "auto").name == variant
        assert choose("bconv2d", shape_of(1), frozenset({feature}), "ref").name == "ref"
        assert choose("bconv2d", shape_of(2), frozenset({feature}), "auto").name == "ref"
    for groups, variant in ((1, "gather"), (2, "ref"), (32, "depthwise")):
        assert choose("conv2d", shape_of(groups), frozenset(), "auto").name == variant
        assert choose("conv2d", shape_of(groups), frozenset(), "ref").name == "ref"
    one = replace(shape_of(1), in_c=1)
    assert choose("conv2d", one, frozenset({"neon"}), "auto").name == "neon"  # one channel is one group
    with pytest.raises(UsageError):
        choose("conv2d", shape_of(1), frozenset(), "fast")


# ------------------------------------------------------------------------------------------------- proofs


def test_the_bound_of_a_dot_product_is_reached_and_not_passed():
    w = np.array([[[[3, -2], [-5, -1]]]])
    assert bounds.dot_range(NODE, w, (-10, 4)) == [(-50, 62), (-12, 30)]
    assert bounds.dot_range(NODE, w, (2, 4)) == [(-20, 12), (-12, 0)]  # a tap outside the image adds 0


def test_an_accumulator_beyond_32_bits_is_refused_with_a_way_out():
    fits = np.full((1, 1, 516, 1), 127, np.int8)
    bounds.dot_range(NODE, fits[:, :, :515], (-32768, 32767))
    with pytest.raises(ModelError) as caught:
        bounds.dot_range(NODE, fits, (-32768, 32767), np.array([2**20]))
    assert "layer" in caught.value.where and "--activation-bits 8" in caught.value.fix
    with pytest.raises(ModelError) as caught:
        bounds.dot_range(NODE, np.full((1, 1, 2**18, 1), 127, np.int8), (-128, 127))
    assert "--activation-bits" not in caught.value.fix, "8 bits it has"
    with pytest.raises(ModelError) as caught:
        bounds.sum_range(NODE, 2**26, 1, (-128, 127))
    assert "window" in caught.value.fix and "--activation-bits" not in caught.value.fix


def test_the_refusal_reaches_the_user_of_lower():
    graph, latent = tiny.everything()
    conv = next(node for node in graph.nodes if node.name == "depthwise")
    wide = replace(conv, weights=np.full((3, 3, 36, 36), 127, np.int8), groups=1)
    with pytest.raises(ModelError, match="beyond 32 bits") as caught:
        lower(exchanged(graph, conv, replace(wide, weights=np.full((5, 12, 36, 36), 127, np.int8))), latent=latent)
    assert "depthwise" in caught.value.where


def test_a_replayed_value_counts_in_the_bound():
    graph, latent = tiny.everything()
    assert bounds.tensor_ranges(graph)["rescale"] == (0, 32767)
    low, high = bounds.tensor_ranges(graph, latent[1])["rescale"]
    assert low == latent[1].low.min() and high == 32767


@st.composite
def affines(draw):
    """Multipliers with and without common factors of two, any bias and shift, and the accumulator's range."""
    channels, factor = draw(st.integers(1, 4)), 2 ** draw(st.integers(0, 30))
    limit = (2**31 - 1) // factor
    mult = [draw(st.integers(-limit, limit)) * factor for _ in range(channels)]
    bias = [draw(st.integers(-(2**45), 2**45)) for _ in range(channels)]
    bound = draw(st.integers(0, 2**31 - 1))
    acc_lo = draw(st.sampled_from([0, -(2**31)]))
    rule = ir.Affine(np.array(mult), np.array(bias), draw(st.integers(0, 62)), -128, 127, acc_lo)
    return rule, [(-bound, bound)] * channels


@given(affines(), st.data())
@settings(max_examples=300, deadline=None)
def test_lowering_keeps_the_meaning_of_an_affine(made, data):
    rule, ranges = made
    lowered = bounds.lower_affine(NODE, rule, len(ranges), ranges)
    a = lowered.affine
    for pick in (*ranges[0], 0, data.draw(st.integers(*ranges[0]))):
        acc = np.full(len(ranges), pick)
        x = [min(max(int(v), rule.acc_lo), rule.acc_hi) for v in acc]
        left, right = (a.shift, 32) if lowered.arithmetic == HIGH else (0, a.shift)
        limit = 2**31 if lowered.arithmetic == NARROW else 2**63
        for c, want in enumerate(exact(rule, acc)):
            product = (x[c] << left) * int(a.mult[c])
            total = product + int(a.bias[c])
            assert -(2**31) <= x[c] << left < 2**31
            assert -limit <= product < limit and -limit <= total < limit
            assert min(max(total >> right, a.lo), a.hi) == want


def exact(rule: ir.Affine, acc: np.ndarray) -> list[int]:
    """The rule in unbounded integers."""
    clamped = [min(max(int(v), rule.acc_lo), rule.acc_hi) for v in acc]
    scaled = [(x * int(m) + int(b)) >> rule.shift for x, m, b in zip(clamped, rule.mult, rule.bias, strict=True)]
    return [min(max(q, rule.lo), rule.hi) for q in scaled]


@pytest.mark.parametrize(
    ("mult", "bound", "arithmetic"),
    [
        (2**30, 500, NARROW),  # a power of two needs few bits
        (3 * 2**28, 500, NARROW),
        (2**30 + 1, 500, HIGH),
        (2**30 + 1, 2**29 - 1, HIGH),  # the accumulator has just the room to go up by one
        (2**30 + 1, 2**31 - 1, WIDE),
        (2**28 + 1, 2**31 - 1, HIGH),  # here the multiplier goes up
    ],
)
def test_the_cheapest_exact_arithmetic_is_chosen(mult, bound, arithmetic):
    rule = ir.Affine(np.array([mult]), np.array([2**29]), 30, -128, 127)
    assert bounds.lower_affine(NODE, rule, 1, [(-bound, bound)]).arithmetic == arithmetic


def test_flipped_filters_are_negated():
    graph, latent = tiny.everything()
    program = lower(graph, latent=latent)
    conv = next(node for node in graph.nodes if node.name == "grouped")
    level = next(c.values for c in program.consts if c.name == "grouped_level")
    flip = conv.epilogue.flip.astype(bool)
    assert flip.any() and not flip.all()
    np.testing.assert_array_equal(level, np.where(flip, 1 - conv.epilogue.level, conv.epilogue.level))


# ------------------------------------------------------------------------------------------------ refusals


def test_a_sign_behind_a_sum_that_fills_int32_is_refused():
    """2^31 - 1 is a sum that int32 holds, but no level lies above it."""
    weights = np.array([-127] * 516 + [-3, 1], np.int8)[:, None]
    reach = bounds.dot_range(NODE, weights, ir.TYPE_RANGE[ir.S16])
    assert reach[0][1] == 2**31 - 1
    with pytest.raises(ModelError, match="beyond 32 bits"):
        bounds.require_room_above(NODE, reach)
    bounds.require_room_above(NODE, [(lo, hi - 1) for lo, hi in reach])


@pytest.mark.parametrize("denominator", [0, -4, 1, 3])
def test_the_denominator_of_a_padded_average_has_to_go_into_every_window(denominator):
    graph, latent = tiny.everything()
    node = next(graph.of_type(ir.AveragePool))
    padded = replace(node, window=ir.Window((2, 2), (1, 1), (1, 1, 0, 0)), denominator=denominator)
    with pytest.raises(ModelError, match="not a multiple of all window sizes") as caught:
        lower(exchanged(graph, node, padded), latent=latent)
    assert "average" in caught.value.where


def test_a_pooling_window_in_the_padding_is_refused():
    b = tiny.Builder((3, 3, 4), seed=0)
    x = b.max_pool("pool", b.quantize("input"), ir.Window((1, 1), (1, 1), (1, 1, 1, 1)))
    b.dense("logits", b.flatten("flat", x), 2)
    with pytest.raises(ModelError, match="wholly in the padding"):
        lower(b.finish("edge")[0])


def test_binary_weights_are_signs():
    graph, latent = tiny.small()
    node = next(graph.of_type(ir.BinaryConv2D))
    broken = replace(node, weights=node.weights * 0)
    with pytest.raises(ModelError, match=r"other than \+1 and -1"):
        lower(exchanged(graph, node, broken), latent=latent)


def test_a_float_graph_is_refused():
    graph, _ = tiny.small()
    tensors = graph.tensors | {"stem": replace(graph.tensors["stem"], dtype=ir.FLOAT)}
    with pytest.raises(ModelError, match="float"):
        lower(replace(graph, tensors=tensors))


# --------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(("name", "c"), [("conv2d/3", "conv2d_3"), ("3x3", "n3x3"), ("Été", "t"), ("main", "main")])
def test_names_become_c_identifiers(name, c):
    assert c_name(name) == c


@pytest.mark.parametrize("name", ["clean", "lib", "Main", "Makefile", "class", "stdint", "learner", "add_net"])
def test_a_model_s_name_that_is_taken_gets_a_suffix(name):
    assert model_name(name) == f"{name.lower()}_model"


@pytest.mark.parametrize("name", ["quicknet", "digits04", "cleaner", "my_lib"])
def test_other_names_stay(name):
    assert model_name(name) == name


def test_every_word_and_header_of_the_runtime_is_taken():
    """Symbols, macros and include guards of the runtime and of main.c, and the system headers that they include."""
    sources = [p for p in resources.runtime().rglob("*") if p.suffix in (".h", ".c", ".S")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*sources, *resources.templates().glob("*.j2")])
    assert {word.lower() for word in re.findall(r"\bbnn_([a-z0-9]+)", text, re.IGNORECASE)} <= RUNTIME_WORDS
    assert set(re.findall(r"#include <(\w+)\.h>", text)) <= HEADER_WORDS


def test_every_constant_has_a_symbol_of_its_own():
    """Names that differ only in words that the generator itself appends."""
    b = tiny.Builder((4, 4, 1), seed=1)
    x = b.conv("a_mult_b", b.quantize("input"), 2, ir.S8)
    x = b.conv("a_affine_b", b.conv("a_mult", x, 2, ir.S8), 2, ir.S8)
    x = b.conv("a", x, 2, ir.S8)
    b.dense("logits", b.average("pool", x), 3)
    program = lower(b.finish("names")[0])
    symbols = [c.name for c in (*program.consts, *program.affines)]
    assert len(set(symbols)) == len(symbols)
    assert {a.name for a in program.affines} >= {"a_mult_b_affine", "a_affine_b_affine", "a_mult_affine", "a_affine"}
