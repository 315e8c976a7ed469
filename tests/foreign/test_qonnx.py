# SPDX-License-Identifier: Apache-2.0
"""QONNX, as Brevitas writes it. docs/other-onnx.md says how the evaluation compares with the qonnx package's."""

from __future__ import annotations

import numpy as np
import pytest

from bnngen.errors import ModelError
from bnngen.export.foreign import open_foreign
from bnngen.export.foreign.qonnx import integer_range
from tests.foreign.hand_made import QONNX, Hand, bipolar, brevitas_like, quant
from tests.foreign.route import assert_same, translate


def test_a_network_of_bipolar_and_several_bit_quantizers(tmp_path):
    hand = Hand()
    made = translate(hand.save(tmp_path / "other.onnx", brevitas_like(hand)))
    assert_same(made)
    assert "QONNX operators written out" in made.result.engine
    # bits: two convolutions, the dense layer that reads bits with weights of one magnitude is the third
    found = {op: made.operators[op] for op in ("BinaryConv2D", "Sign", "UniformQuantize", "Round", "Div")}
    assert found == {"BinaryConv2D": 2, "Sign": 3, "UniformQuantize": 3, "Round": 0, "Div": 0}, made.operators
    assert made.operators["Gemm"] == 1 and made.result.features, "the last Mul belongs to the weights"


def definition(x: np.ndarray, scale: np.ndarray, bits: int, signed: bool, narrow: bool) -> np.ndarray:
    """Quant as the QONNX specification has it: clip, then round, ties to even."""
    if bits == 1 and signed:
        return np.where(x >= 0, scale, -scale)
    most = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    least = (-(2 ** (bits - 1)) + narrow) if signed else 0
    return np.round(np.clip(x / scale, least, most)) * scale


RANGES = [(bits, s, n) for bits in range(1, 9) for s in (0, 1) for n in (0, 1) if (bits, s, n) != (1, 0, 1)]


@pytest.mark.parametrize(("bits", "signed", "narrow"), RANGES)
def test_quant_equals_its_definition_ties_included(tmp_path, bits, signed, narrow):
    """Scores of a pass-through network are the quantized inputs. Multiples of half a step are ties."""
    hand = Hand((1, 2, 4))
    scale = np.float32(0.25)
    flat = hand.op("Flatten", quant(hand, "x", scale, bits, signed=signed, narrow=narrow))
    path = hand.save(tmp_path / "other.onnx", hand.op("Gemm", flat, hand.constant(np.eye(8))))
    step = np.arange(-12, 12) if bits < 5 else np.arange(-600, 600, 7)
    images = (np.resize(step, 8 * 24).reshape(24, 2, 4, 1) * 0.125).astype(np.float32)
    source = open_foreign(path)
    expected = definition(images.reshape(24, 8), scale, bits, bool(signed), bool(narrow)).astype(np.float32)
    np.testing.assert_array_equal(np.concatenate(list(source.run(images))), expected)
    np.testing.assert_allclose(written(source, images), expected, atol=1e-6)


def written(source, images: np.ndarray) -> np.ndarray:
    """Run the translated graph."""
    from bnngen.export.session import run_batches

    model = source.graph.builder.model("test", source.graph.scores.shape[0])
    return np.concatenate([values[0] for values in run_batches(model, images, ["scores"])])


def test_integer_ranges():
    assert integer_range(8, True, False) == (-128, 127)
    assert integer_range(8, True, True) == (-127, 127)
    assert integer_range(8, False, False) == (0, 255)
    assert integer_range(2, False, True) == (0, 2)


@pytest.mark.parametrize("channels", [16, 1])
def test_one_threshold_a_channel_is_a_sign(tmp_path, channels):
    hand = Hand()
    levels = hand.constant(hand.rng.normal(0, 0.5, (channels, 1)))
    output = {"out_scale": 2.0, "out_bias": -1.0, "out_dtype": "BIPOLAR"}
    bits = hand.op("MultiThreshold", hand.stem(), levels, domain=QONNX, **output)
    x = hand.op("Conv", bits, bipolar(hand, hand.weights(16, 16, 3, 3)), pads=[1, 1, 1, 1])
    made = translate(hand.save(tmp_path / "other.onnx", hand.head(hand.norm(x, 16), 16)))
    assert_same(made)
    assert made.operators["BinaryConv2D"] == 1


def network(tmp_path, make):
    hand = Hand()
    x = make(hand)
    return hand.save(tmp_path / "other.onnx", hand.head(x, 3))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda h: quant(h, "x", 0.1, 8, rounding_mode="FLOOR"), ["rounding FLOOR", "rounding mode ROUND"]),
        (lambda h: quant(h, "x", 0.1, 9), ["9 bits", "1 to 8 bits"]),
        (lambda h: quant(h, "x", -0.1, 4), ["not positive", "zero point 0"]),
        (lambda h: quant(h, "x", 0.1, 1, signed=0, narrow=1), ["one value", "narrow=0"]),
        (lambda h: bipolar(h, "x", -1.0), ["not positive"]),
        (lambda h: h.op("BipolarQuant", "x", h.op("ReduceMax", "x"), domain=QONNX), ["scale is not a constant"]),
        (lambda h: h.op("Trunc", "x", domain=QONNX), ["Trunc of QONNX is not recognised", "BipolarQuant"]),
        (lambda h: h.op("MultiThreshold", "x", h.weights(3, 2), domain=QONNX), ["thresholds [3, 2]", "[C, 1]"]),
    ],
)
def test_what_has_no_form_is_named(tmp_path, make, words):
    with pytest.raises(ModelError) as caught:
        open_foreign(network(tmp_path, make))
    text = str(caught.value)
    assert "node net/" in text
    for word in words:
        assert word in text, text
