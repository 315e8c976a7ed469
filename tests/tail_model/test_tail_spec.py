# SPDX-License-Identifier: Apache-2.0
"""The tail that is read out of a network computes the network's own features, and what cannot be trained is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnngen import interp, ir
from bnngen.errors import ModelError, UsageError
from bnngen.lower.tail_spec import find_tail, tail_spec
from bnngen.passes import Options, run_passes
from tests.tail_model import reference
from tests.tail_model.networks import CASES, Trained, trained

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory) -> tuple[Trained, int]:
    width, blocks = CASES[request.param]
    return trained(request.param, width, tmp_path_factory.mktemp(request.param)), blocks


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> Trained:
    return trained("quicknet-nano", 0.25, tmp_path_factory.mktemp("quick"))


def test_the_spec_computes_the_networks_features(case):
    model, most = case
    for blocks in range(1, most + 1):
        result, real = model.export(f"tail:{blocks}")
        spec = tail_spec(real, run_passes(real), blocks)
        values = interp.evaluate(real, model.x)
        assert len(spec.blocks) == blocks and spec.cut == result.cut == real.meta.latent.tensor
        assert spec.features == real.meta.head.tensor
        cut = values[spec.cut].astype(np.float64)
        assert cut.shape[1:] == (spec.height, spec.width, spec.channels)
        expected = values[spec.features]
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(reference.features(spec, cut), expected, atol=1e-4)
        assert all(abs(block.scale).max() > 0 and len(np.unique(block.latent)) > 8 for block in spec.blocks)


def test_a_spec_with_one_value_changed_computes_something_else(quick):
    """The comparison above notices each field."""
    _, real = quick.export("tail:1")
    spec = tail_spec(real, run_passes(real), 1)
    values = interp.evaluate(real, quick.x)
    cut, expected = values[spec.cut].astype(np.float64), values[spec.features]
    (block,) = spec.blocks
    flipped = block.latent.copy()
    flipped[:, 1, 1, :4] = -1 - flipped[:, 1, 1, :4]
    changes = {"latent": flipped, "scale": block.scale * 1.1, "bias": block.bias + 0.1, "relu": False, "pad": 0}
    for name, value in changes.items():
        other = replace(spec, blocks=(replace(block, **{name: value}),))
        assert abs(reference.features(other, cut) - expected).max() > 1e-3, name
    assert abs(reference.features(replace(spec, relu=False), cut) - expected).max() > 1e-3


@pytest.mark.parametrize("bits", [8, 16])
def test_levels_are_what_the_integer_graph_reads_back(quick, bits):
    _, real = quick.export("tail:2")
    integer = run_passes(real, Options(bits))
    spec = tail_spec(real, integer, 2)
    tensor = integer.tensors[spec.cut]
    assert spec.cut_dtype == tensor.dtype == f"s{bits}" and not tensor.offsets.any()
    np.testing.assert_array_equal(spec.cut_scale, tensor.scales)
    for levels, wanted in ((spec.low, real.meta.latent.low), (spec.high, real.meta.latent.high)):
        steps = levels / tensor.scales
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)
        assert (abs(levels - wanted) <= tensor.scales / 2 + 1e-9).all()


def test_the_peak_is_that_of_the_stream(quick):
    _, real = quick.export("tail:2")
    spec = tail_spec(real, run_passes(real), 2)
    stream = [spec.cut, "stage3_block1_add", "stage3_block2_add", "head_relu"]
    calibration = quick.calibration.x.astype(np.float32) * real.meta.input_scale + real.meta.input_offset
    seen = interp.evaluate(real, calibration)
    assert spec.peak == pytest.approx(max(abs(seen[name]).max() for name in stream), rel=1e-4)


# ------------------------------------------------------------------------------------------ refusals


def test_too_many_blocks_name_the_layer_that_ends_the_tail(quick):
    _, real = quick.export("tail:2")
    with pytest.raises(ModelError) as caught:
        tail_spec(real, run_passes(real), 3)
    assert caught.value.where == "layer transition2_bn"
    assert "would add its shortcut" in caught.value.why and "--cut tail:2" in caught.value.fix


def test_a_cut_elsewhere_says_which_would_do(quick):
    _, real = quick.export("tail:2")
    with pytest.raises(UsageError) as caught:
        tail_spec(real, run_passes(real), 1)
    assert "at stage3_block1_add" in caught.value.message and "transition2_bn" in caught.value.why
    assert "--cut tail:1" in caught.value.fix and "--tail 2" in caught.value.fix
    _, real = quick.export("features")
    with pytest.raises(UsageError) as caught:
        tail_spec(real, run_passes(real), 1)
    assert "--cut tail:1" in caught.value.fix and "or train" not in caught.value.fix


def test_a_file_of_signs_alone_cannot_be_trained(quick):
    _, real = quick.export("tail:1")
    nodes = tuple(replace(n, latent=None) if isinstance(n, ir.BinaryConv2D) else n for n in real.nodes)
    with pytest.raises(ModelError) as caught:
        tail_spec(replace(real, nodes=nodes), run_passes(real), 1)
    assert caught.value.where == "layer stage3_block2_conv" and "signs of the weights alone" in caught.value.message


def changed(graph: ir.Graph, name: str, **values: object) -> ir.Graph:
    """Return the graph with one node's fields replaced."""
    assert any(node.name == name for node in graph.nodes)
    return replace(graph, nodes=tuple(replace(n, **values) if n.name == name else n for n in graph.nodes))


def test_what_is_not_a_block_is_named(quick):
    _, real = quick.export("tail:2")
    conv = next(n for n in real.nodes if n.name == "stage3_block2_conv")
    relu = next(n for n in real.nodes if isinstance(n, ir.Clip) and n.inputs[0] == conv.output)
    broken = {
        "keep the map's size": (changed(real, conv.name, window=ir.Window((3, 3), (2, 2), (1, 1, 1, 1))), conv.name),
        "all channels to as many": (changed(real, conv.name, groups=2), conv.name),
        "stands where a block has": (changed(real, relu.name, hi=6.0), relu.name),
        "no global average": (
            replace(real, meta=replace(real.meta, head=replace(real.meta.head, tensor="head_relu"))),
            "head_relu",
        ),
        "negative kernel scale": (changed(real, conv.name, kernel_scale=-np.ones(32, np.float32)), conv.name),
    }
    for why, (graph, layer) in broken.items():
        found = find_tail(graph)
        assert found.blocks == () and why in found.stop.why and found.stop.layer == layer, why
        with pytest.raises(ModelError) as caught:
            tail_spec(graph, run_passes(real), 1)
        assert caught.value.where == f"layer {layer}" and "--tail 0" in caught.value.fix


def test_a_slope_that_scales_and_a_scaled_sign_are_no_blocks(tmp_path):
    model = trained("reactnet-nano", 0.25, tmp_path)
    _, real = model.export("tail:1")
    shift = next(n for n in real.nodes if n.name == "stage3_block4_shift")
    two = np.full(shift.gamma.shape, 2, np.float32)
    before = next(n for n in real.nodes if n.name == "stage3_block4_rprelu/before")
    slope = next(n for n in real.nodes if n.name == "stage3_block4_rprelu/slope")
    for node, values, why in (
        (shift, {"gamma": two}, "in front of the sign only a shift"),
        (before, {"gamma": two}, "in front of the slopes only a shift"),
        (slope, {"positive": two}, "slope on the positive side"),
    ):
        found = find_tail(changed(real, node.name, **values))
        assert found.blocks == () and why in found.stop.why and found.stop.layer == node.name
