# SPDX-License-Identifier: Apache-2.0
"""What is not recognised is named: the node, what stands there, and what was expected."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bnngen.errors import ModelError, UsageError
from bnngen.export import export_model
from bnngen.export.config import Calibration, ExportConfig
from bnngen.export.foreign import open_foreign
from tests.foreign.hand_made import Hand
from tests.foreign.route import info_for, pixels, silent


def refused(path) -> str:
    with pytest.raises(ModelError) as caught:
        open_foreign(path)
    assert caught.value.fix
    return str(caught.value)


def padded_real(h: Hand) -> str:
    x = h.op("Pad", h.stem(), h.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), h.constant(1.0))
    return h.op("Conv", x, h.weights(16, 16, 3, 3))


def padded_twice(h: Hand) -> str:
    x = h.op("Pad", h.sign(h.stem()), h.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), h.constant(1.0))
    return h.op("Conv", x, h.signs(16, 16, 3, 3), pads=[1, 1, 1, 1])


def padded_one_real_weights(h: Hand) -> str:
    x = h.op("Pad", h.sign(h.stem()), h.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), h.constant(1.0))
    return h.op("Conv", x, h.weights(16, 16, 3, 3))


def mixed_axes(h: Hand) -> str:
    """A map and its transpose are added: heights meet channels."""
    x = h.stem(10)
    return h.op("Add", x, h.op("Transpose", x, perm=[0, 3, 2, 1]))


CASES = {
    "round": (lambda h: h.op("Round", h.stem()), ["(Round)", "Clip, or Min and Max"]),
    "operator": (lambda h: h.op("Erf", h.stem()), ["(Erf)", "Erf is not recognised", "docs/other-onnx.md lists"]),
    "resize": (
        lambda h: h.op("Resize", h.stem(), "", h.constant([1, 1, 2, 2])), ["(Resize)", "not recognised"]
    ),
    "padded_real": (padded_real, ["(Pad)", "padding that no window takes", "1 around bits"]),
    "padded_twice": (padded_twice, ["(Pad)", "without other padding"]),
    "padded_one_real_weights": (padded_one_real_weights, ["(Conv)", "real weights is padded with 1", "+s and -s"]),
    "count_padding": (
        lambda h: h.op("AveragePool", h.stem(), kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        ["(AveragePool)", "count_include_pad = 0"],
    ),
    "softmax": (lambda h: h.op("Softmax", h.stem(), axis=1), ["(Softmax)", "a softmax is over the classes"]),
    "mixed_axes": (mixed_axes, ["(Add)", "different meaning"]),
    "cut_rows": (
        lambda h: h.op("Slice", h.stem(), *(h.constant(v, np.int64) for v in ([1], [4], [2]))),
        ["(Slice)", "only channels are selected"],
    ),
    "by_element": (lambda h: h.op("Mul", h.stem(), h.weights(16, 10, 10)), ["(Mul)", "one number a channel"]),
    "division": (lambda h: h.op("Div", h.constant(1.0), h.stem()), ["(Div)", "Div by a constant"]),
    "choice": (
        lambda h: h.op("Where", h.op("Greater", h.stem(), h.constant(0.0)), h.stem(), h.constant(0.0)),
        ["(Where)", "Where(comparison, constant, constant)"],
    ),
    "bounds": (lambda h: h.op("Max", h.stem(), h.weights(16, 1, 1)), ["(Max)", "Max with one number"]),
    "half": (lambda h: h.op("Cast", h.op("Cast", h.stem(), to=7), to=1), ["(Cast)", "whole numbers"]),
    "elu": (lambda h: h.op("Elu", h.stem(), alpha=0.5), ["(Elu)", "alpha 0.5", "alpha 1"]),
    "other_domain": (lambda h: h.op("Gelu", h.stem(), domain="com.microsoft"), ["com.microsoft.Gelu", "BipolarQuant"]),
    "no_operator": (lambda h: h.op("PartitionedCall", h.stem()), ["(PartitionedCall)", "could not convert this layer"]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_node_and_what_was_expected(tmp_path, name):
    make, words = CASES[name]
    hand = Hand()
    x = make(hand)
    text = refused(hand.save(tmp_path / "other.onnx", hand.head(x, 10 if name == "mixed_axes" else 16)))
    assert "where  node net/" in text
    for word in words:
        assert word in text, text


def test_mean_over_channels(tmp_path):
    hand = Hand()
    x = hand.op("ReduceMean", hand.stem(), axes=[1], keepdims=1)
    flat = hand.op("MatMul", hand.op("Flatten", x), hand.weights(100, 4))
    assert "only height and width" in refused(hand.save(tmp_path / "other.onnx", flat))


def test_a_map_as_output(tmp_path):
    hand = Hand()
    assert "not a vector of scores" in refused(hand.save(tmp_path / "other.onnx", hand.stem()))


def test_sizes_that_are_not_fixed(tmp_path):
    hand = Hand()
    path = hand.save(tmp_path / "other.onnx", hand.head(hand.stem(), 16))
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(model, path)
    assert "[N, 3, height, 10]" in refused(path)


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.FLOAT16])
def test_inputs_of_other_types(tmp_path, kind):
    hand = Hand()
    path = hand.save(tmp_path / "other.onnx", hand.head(hand.op("Cast", "x", to=1), 3))
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = kind
    onnx.save(model, path)
    text = refused(path)
    assert "an image is float" in text and "with a float32 input" in text and "1,224" not in text


def test_vectors_as_input(tmp_path):
    hand = Hand()
    path = hand.save(tmp_path / "other.onnx", hand.head(hand.stem(), 16))
    model = onnx.load(path)
    del model.graph.input[0].type.tensor_type.shape.dim[2:]
    onnx.save(model, path)
    assert "[N, 1, 1, C]" in refused(path)


def test_weights_in_a_file_that_is_not_there(tmp_path):
    hand = Hand()
    path = hand.save(tmp_path / "other.onnx", hand.head(hand.stem(), 16))
    apart = {"save_as_external_data": True, "location": "other.data", "size_threshold": 0}
    onnx.save(onnx.load(path), path, **apart)
    (tmp_path / "other.data").unlink()
    text = refused(path)
    assert "the weights of other.onnx are missing" in text and "beside the ONNX file" in text


def test_several_inputs(tmp_path):
    hand = Hand()
    path = hand.save(tmp_path / "other.onnx", hand.head(hand.op("Add", hand.stem(), "y"), 16))
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16, 10, 10]))
    onnx.save(model, path)
    assert "2 inputs" in refused(path)


def test_weights_that_are_not_numbers(tmp_path):
    hand = Hand()
    x = hand.op("Conv", "x", hand.constant(np.full((16, 3, 3, 3), np.nan)))
    assert "(Conv) of other.onnx" in refused(hand.save(tmp_path / "other.onnx", hand.head(x, 16)))


def test_no_file_no_onnx_own_file(tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        open_foreign(tmp_path / "other.onnx")
    path = tmp_path / "text.onnx"
    path.write_text("not a model")
    assert "text.onnx" in refused(path)
    hand = Hand()
    given = hand.save(tmp_path / "other.onnx", hand.head(hand.stem(), 16))
    config = ExportConfig(given, tmp_path / "model.onnx", Calibration(pixels(4, (10, 10, 3))), info_for())
    export_model(config, silent)
    assert "bnngen build model.onnx" in refused(config.out)


def test_nothing_is_left_behind(tmp_path):
    hand = Hand()
    given = hand.save(tmp_path / "other.onnx", hand.head(hand.op("Erf", hand.stem()), 16))
    config = ExportConfig(given, tmp_path / "model.onnx", Calibration(pixels(4, (10, 10, 3))), info_for())
    with pytest.raises(ModelError):
        export_model(config, silent)
    assert [path.name for path in tmp_path.iterdir()] == ["other.onnx"]
