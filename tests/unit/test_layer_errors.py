# SPDX-License-Identifier: Apache-2.0
"""The per-layer table must point at the layer that is wrong, and at no other."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bnngen import ir, layer_errors
from bnngen.errors import DataError, ModelError
from bnngen.passes import Options, run_passes
from tests import graphs


def quiet(what, done, total):
    pass


def measure(real, integer, **options):
    """Over the images that the graph was calibrated on: nothing saturates unless a test wants it."""
    return layer_errors.layer_errors((real, integer), graphs.pixels(real, 32, seed=99), quiet, **options)


def plain():
    """Real-valued layers without a shortcut: every tensor has a scale of its own."""
    b = graphs.Builder((8, 8, 3), 5)
    for name in ("a", "b", "c"):
        b.conv(f"{name}_conv", 16)
        b.norm(f"{name}_bn")
        b.relu(f"{name}_relu")
    b.pool("pool")
    b.dense("logits", 4)
    return b.finish()


@pytest.fixture(scope="module")
def real():
    return graphs.residual()


@pytest.fixture(scope="module")
def report(real):
    return measure(real, run_passes(real))


def rows(report):
    return {layer.name: layer for layer in report.layers}


def test_what_moves_integers_is_exact_and_what_rounds_is_not(report):
    table = rows(report)
    for name in ("image", "t_relu", "t_pool", "block1_sign"):
        assert table[name].alone.exact and table[name].alone.snr == math.inf, name
    assert table["image"].accumulated.exact
    for name in ("stem_bn", "block1_bn", "t_bn", "pool", "logits"):
        assert not table[name].alone.exact and 20 < table[name].alone.snr < 120, name
    assert not table["t_relu"].accumulated.exact, "exact by itself, on inputs that are not"


def test_layers_carry_the_names_of_the_float_graph(real, report):
    names = {node.name for node in real.nodes} | {"image"}
    assert {layer.name for layer in report.layers} <= names
    assert report.layers[-1].name == "logits" and report.images == 32


def test_the_ratio_is_that_of_the_scores(report):
    expected, found = report.scores
    noise = np.square(found - expected).sum()
    ratio = 10 * math.log10(np.square(np.float64(expected)).sum() / noise)
    assert report.layers[-1].accumulated.snr == pytest.approx(ratio)


def test_wrong_signs_have_a_ratio_too(real):
    report = measure(real, run_passes(real, Options(8)))
    block = rows(report)["block2_sign"].accumulated
    assert 0.5 < block.signs < 1 and 0 <= block.upward <= 1
    assert block.snr == pytest.approx(-10 * math.log10(4 * (1 - block.signs)))


def test_six_decibels_a_bit(real):
    """8 bits less are 48 dB less, and scales by channel win some back; a batch norm behind a binary convolution."""
    wide, narrow = (rows(measure(real, run_passes(real, Options(bits))))["block1_bn"].alone.snr for bits in (16, 8))
    assert 30 < wide - narrow < 50


@pytest.mark.parametrize("name", ["a_relu", "b_relu", "pool"])
def test_a_spoiled_range_shows_as_the_worst_layer(name):
    real = plain()
    assert rows(measure(real, run_passes(real, Options(8))))[name].saturated < 0.01
    seen = real.meta.ranges[name]
    spoiled = ir.ChannelRange(*(tuple(value / 20 for value in part) for part in (seen.lo, seen.hi, seen.clip)))
    meta = replace(real.meta, ranges={**real.meta.ranges, name: spoiled})
    report = measure(real, run_passes(replace(real, meta=meta), Options(8)))
    assert report.worst == (name,)
    assert rows(report)[name].saturated > 0.1
    assert [layer.name for layer in report.layers if layer.saturated > 0.1] == [name]


@pytest.mark.parametrize("name", ["stem_bn", "block1_bn", "t_bn"])
def test_spoiled_weights_show_as_the_worst_layer(real, name):
    integer = run_passes(real)
    broken = tuple(
        replace(node, weights=np.roll(node.weights, 1, axis=-1)) if node.output == name else node
        for node in integer.nodes
    )
    report = measure(real, replace(integer, nodes=broken))
    assert report.worst == (name,)
    good = rows(measure(real, integer))
    assert all(row.alone == good[row.name].alone for row in report.layers if row.name != name)


def quality(snr=math.inf, wrong=0.0, upward=None, count=100_000):
    return layer_errors.Quality(snr, snr == math.inf, 1 - wrong, upward, round(wrong * count))


def layer(name, alone, whole=None, dtype=ir.S16):
    return layer_errors.LayerError(name, dtype, (1.0, 1.0), alone, whole or alone, 0.0, None)


def marked(*layers, different=0):
    """The marks where `different` of 100 images change their class."""
    real = np.tile([1.0, 0.0], (100, 1))
    integer = np.where(np.arange(100)[:, None] < different, real[:, ::-1], real)
    return layer_errors.LayerReport(layers, (real, integer)).marks


def test_good_layers_are_not_marked(report):
    assert report.marks == {} and report.worst == ()
    assert marked(layer("a", quality(math.inf)), layer("b", quality(36.0)), layer("c", quality(92.0))) == {}
    assert marked(layer("a", quality(21.0), dtype=ir.S8), layer("b", quality(15.0), dtype=ir.BITS)) == {}


def test_layers_below_the_limit_of_their_type_are_marked():
    layers = layer("a", quality(30.0)), layer("b", quality(19.0), dtype=ir.S8), layer("c", quality(28.0))
    assert marked(*layers) == {"c": "error", "a": "error"}
    assert marked(layers[1]) == {"b": "error"}
    assert len(marked(*(layer(name, quality(30.0)) for name in "abcde"))) == layer_errors.WORST


def test_signs_that_go_one_way_are_marked_where_they_are_many():
    one_way = layer("a", quality(50.0, wrong=0.024, upward=1.0))
    assert marked(one_way, layer("b", quality(50.0, wrong=0.024, upward=0.6))) == {"a": "signs one way"}
    assert marked(layer("a", quality(50.0, wrong=0.024, upward=0.0))) == {"a": "signs one way"}
    assert marked(layer("a", quality(50.0, wrong=0.0005, upward=1.0))) == {}
    assert marked(layer("a", quality(50.0, wrong=0.01, upward=1.0, count=1000))) == {}, "ten may be chance"


def test_where_classes_change_the_layer_is_named_at_which_signs_turn():
    good = quality(80.0)
    layers = [layer("a", good, quality(60.0, wrong=0.001)), layer("b", good, quality(9.0, wrong=0.03)),
              layer("c", good, quality(9.0, wrong=0.04)), layer("d", quality(92.0), quality(5.0))]  # fmt: skip
    assert marked(*layers, different=2) == {"b": "signs turn"}
    assert marked(*layers) == {}


def test_what_stands_for_no_float_tensor_has_a_name_and_claims_nothing():
    """Behind a binary convolution a maximum is taken of signs: the bits before it are nobody's in the float graph."""
    b = graphs.Builder((8, 8, 3), 5)
    b.conv("stem", 8)
    b.norm("stem_bn")
    b.sign("block_sign")
    b.binary_conv("block", 8)
    b.norm("block_bn")
    b.max_pool("half")
    b.sign("next_sign")
    b.binary_conv("next", 8)
    b.norm("next_bn")
    b.pool("pool")
    b.dense("logits", 4)
    real = b.finish()
    integer = run_passes(real)
    hidden = [n for n in integer.nodes if n.output not in real.tensors and not isinstance(n, ir.QuantizeInput)]
    assert hidden
    report = measure(real, integer)
    names = [row.name for row in report.layers]
    assert "" not in names
    for node in hidden:
        row = report.layers[list(integer.nodes).index(node)]
        assert row.name == node.name and math.isnan(row.alone.snr) and not row.alone.exact


def test_somebody_elses_layers(real, report):
    """The float graph itself as the outside reference gives the accumulated ratio; unknown names give none."""
    from bnngen import interp

    def outside(pixels):
        values = interp.evaluate(real, graphs.scaled(pixels, real.meta))
        return {name: values[name] for name in ("stem_bn", "pool")} | {"unknown": values["pool"]}

    table = rows(measure(real, run_passes(real), outside=outside))
    assert table["stem_bn"].outside == pytest.approx(table["stem_bn"].accumulated.snr)
    assert table["pool"].outside == pytest.approx(table["pool"].accumulated.snr)
    assert table["block1_bn"].outside is None
    with pytest.raises(ModelError, match="no layer in common"):
        measure(real, run_passes(real), outside=lambda pixels: {"unknown": pixels})


def test_the_size_of_a_batch_changes_nothing(real, report, monkeypatch):
    monkeypatch.setattr(layer_errors, "BATCH_BYTES", 1)
    for one, other in zip(measure(real, run_passes(real)).layers, report.layers, strict=True):
        assert one.accumulated.snr == pytest.approx(other.accumulated.snr) and one.saturated == other.saturated


def test_images_that_do_not_fit(real):
    integer = run_passes(real)
    good = graphs.pixels(real, 2)
    for images in (good[:, :4], good.astype(np.float32), good[:0]):
        with pytest.raises(DataError, match="cannot be compared on"):
            layer_errors.layer_errors((real, integer), images, quiet)


def test_graphs_of_two_models(real):
    with pytest.raises(ModelError, match="not made from this float graph"):
        layer_errors.layer_errors((graphs.chain(), run_passes(real)), graphs.pixels(real, 1), quiet)
