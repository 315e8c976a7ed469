# SPDX-License-Identifier: Apache-2.0
"""Files that the frontend refuses: the message names what is wrong, and what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bnngen.errors import ModelError
from bnngen.frontend import load_onnx
from tests.onnx_files import KERNEL, make_model, metadata, node, save, small_nodes, with_ranges


def refused(model: onnx.ModelProto, folder: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load_onnx(save(model, folder))
    assert caught.value.fix or caught.value.why
    return caught.value


def changed(index: int, new: onnx.NodeProto) -> list[onnx.NodeProto]:
    nodes = small_nodes()
    nodes[index] = new
    return nodes


BAD_NODES = {
    "another operator": (changed(7, node("Softplus", "bn", "relu")), "operator Softplus is not supported"),
    "another domain": (changed(7, node("ai.onnx.ml.Scaler", "bn", "relu")), "operator ai.onnx.ml.Scaler"),
    "unknown function": (
        changed(2, node("bnngen.Sign2", "stem", "conv/sign")),
        "bnngen.Sign2 is not supported",
    ),
    "read before written": (changed(7, node("Relu", "max", "relu")), "max, is not computed before it"),
    "written twice": (changed(7, node("Relu", "bn", "stem")), "tensor stem is written twice"),
    "no input": (changed(7, helper.make_node("Relu", [], ["relu"], "relu")), "input 0 of the node"),
    "two outputs": (
        changed(7, helper.make_node("Relu", ["bn"], ["relu", "b"], "relu")),
        "its output cannot be read",
    ),
    "unknown attribute": (changed(7, node("Relu", "bn", "relu", alpha=1.0)), "attribute alpha is not"),
    "too many inputs": (changed(7, node("Relu", "bn bn", "relu")), "the node has 2 inputs"),
    "ceil_mode": (
        changed(9, node("MaxPool", "sum", "max", kernel_shape=[2, 2], ceil_mode=1)),
        "attribute ceil_mode = 1 is not supported",
    ),
    "three strides": (
        changed(9, node("MaxPool", "sum", "max", kernel_shape=[2, 2], strides=[1, 1, 1])),
        "attribute strides cannot be read",
    ),
    "zero stride": (
        changed(9, node("MaxPool", "sum", "max", kernel_shape=[2, 2], strides=[0, 1])),
        "strides (0, 1)",
    ),
    "window outside": (
        changed(9, node("MaxPool", "sum", "max", kernel_shape=[2, 2], pads=[2, 0, 0, 0])),
        "without a pixel",
    ),
    "window too large": (changed(9, node("MaxPool", "sum", "max", kernel_shape=[4, 4])), "cannot be"),
    "padding counts": (
        changed(10, node("AveragePool", "max", "mean", kernel_shape=[2, 2], count_include_pad=1)),
        "attribute count_include_pad = 1 is not supported",
    ),
    "strides of another type": (
        changed(9, node("MaxPool", "sum", "max", kernel_shape=[2, 2], strides=[1.0, 1.0])),
        "attribute strides cannot be read",
    ),
    "groups": (
        changed(1, node("Conv", "image/nchw stem/kernel stem/bias", "stem", **KERNEL, group=2)),
        "in 2 groups do not fit 2 channels",
    ),
    "no groups": (
        changed(1, node("Conv", "image/nchw stem/kernel stem/bias", "stem", **KERNEL, group=0)),
        "in 0 groups do not fit",
    ),
    "auto_pad": (
        changed(1, node("Conv", "image/nchw stem/kernel stem/bias", "stem", auto_pad="SAME_UPPER")),
        "attribute auto_pad",
    ),
    "pad_value": (
        changed(
            3,
            node("bnngen.BinaryConv2D", "conv/sign conv/kernel", "conv/out", **KERNEL, group=2, pad_value=0.5),
        ),
        "reads 1 or 0 outside the image",
    ),
    "no pad_value": (
        changed(3, node("bnngen.BinaryConv2D", "conv/sign conv/kernel", "conv/out", **KERNEL, group=2)),
        "attribute pad_value is missing",
    ),
    "no steps": (changed(7, node("bnngen.UniformQuantize", "bn", "relu")), "attribute steps is missing"),
    "no threshold": (changed(7, node("bnngen.Ternary", "bn", "relu")), "attribute threshold is missing"),
    "real input of a binary convolution": (
        changed(3, node("bnngen.BinaryConv2D", "stem conv/kernel", "conv/out", **KERNEL, group=2, pad_value=1.0)),
        "input stem is a f32 tensor",
    ),
    "product of other shapes": (changed(7, node("Mul", "bn stem", "relu")), "cannot multiply [2, 2, 6] by [4, 4, 4]"),
    "scale of another shape": (
        changed(7, node("Mul", "bn bn/gamma", "relu")),
        "constant bn/gamma is float32 [6]",
    ),
    "variable weights": (changed(16, node("Gemm", "both hidden", "hidden")), "is not a constant"),
    "transposed weights": (
        changed(16, node("Gemm", "both hidden/kernel", "hidden", transB=1)),
        "attribute transB",
    ),
    "shapes of a sum": (changed(8, node("Add", "bn stem", "sum")), "cannot add [2, 2, 6] and [4, 4, 4]"),
    "layouts of a sum": (changed(15, node("Add", "pool mean", "both")), "in layout NCHW"),
    "flatten channels first": (
        changed(12, node("Flatten", "max", "pool")),
        "channels first is not supported",
    ),
    "another transpose": (
        changed(13, node("Transpose", "mean", "flat/nhwc", perm=[0, 1, 3, 2])),
        "a transpose by",
    ),
    "map as scores": (
        changed(17, node("Relu", "mean", "scores")),
        "the graph's output is not a real-valued vector",
    ),
    "bits as scores": (
        changed(17, node("bnngen.Sign", "hidden", "scores")),
        "output is not a real-valued vector",
    ),
}


@pytest.mark.parametrize("case", BAD_NODES, ids=BAD_NODES.keys())
def test_nodes_that_cannot_be(tmp_path, case):
    nodes, message = BAD_NODES[case]
    error = refused(make_model(nodes, with_ranges("conv/scale")), tmp_path)
    assert message in error.message
    if "scores" not in case:
        assert error.where, "the node is named"


BAD_WEIGHTS = {
    "not a sign": ({"conv__kernel": np.zeros((6, 2, 3, 3), np.int8)}, "has weights +1 and -1"),
    "float signs": ({"conv__kernel": np.ones((6, 2, 3, 3), np.float32)}, "int8 ['any'"),
    "two axes": ({"stem__kernel": np.ones((4, 2), np.float32)}, "constant stem/kernel is float32 [4, 2]"),
    "nothing": ({"stem__kernel": np.ones((0, 2, 3, 3), np.float32)}, "constant stem/kernel is float32 [0"),
    "not finite": ({"stem__bias": np.array([0, np.nan, 0, 0], np.float32)}, "not a finite number"),
    "double": ({"stem__bias": np.zeros(4)}, "its element type cannot be read"),
    "variance": ({"bn__variance": np.full(6, -1, np.float32)}, "variance + epsilon is not positive"),
    "reshape": ({"flat__shape": np.array([-1, 3], np.int64)}, "a reshape to [-1, 3] is not supported"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS, ids=BAD_WEIGHTS.keys())
def test_weights_that_cannot_be(tmp_path, case):
    weights, message = BAD_WEIGHTS[case]
    error = refused(make_model(meta=with_ranges("conv/scale"), **weights), tmp_path)
    assert message in f"{error.message} {error.why}"


def ranges_without(name: str) -> dict:
    return {key: pair for key, pair in with_ranges("conv/scale")["ranges"].items() if key != name}


def channels(count: int) -> dict:
    return {"lo": [0.0] * count, "hi": [1.0] * count, "clip": [1.0] * count}


LATENT, HEAD = metadata()["latent"], metadata()["head"]
BAD_METADATA = {
    "no JSON": "{",
    "a list": "[]",
    "deep": "[" * 100_000,
    "schema of the first version": {"schema": 1},
    "no schema": {"schema": None},
    "name": {"name": 3},
    "classes": {"classes": []},
    "class of another type": {"trained_classes": [0, 1, True]},
    "classes twice": {"trained_classes": [0, 1, 1]},
    "class outside": {"trained_classes": [0, 1, 4]},
    "too few outputs": {"trained_classes": [0, 1, 2, 3]},
    "no scale": {"input": {"offset": 0}},
    "negative scale": {"input": {"scale": -1, "offset": 0}},
    "range missing": {"ranges": ranges_without("bn")},
    "range is a list": {"ranges": {"stem": [1, 2]}},
    "range without clip": {"ranges": {"stem": {"lo": [1], "hi": [2]}}},
    "range without entries": {"ranges": {"stem": {"lo": [], "hi": [], "clip": []}}},
    "range empty": {"ranges": {"stem": {"lo": [1], "hi": [0], "clip": []}}},
    "range of two lengths": {"ranges": {"stem": {"lo": [0, 0], "hi": [1], "clip": []}}},
    "range of other channels": {"ranges": with_ranges("conv/scale")["ranges"] | {"stem": channels(3)}},
    "range clipped to nothing": {"ranges": {"stem": {"lo": [0], "hi": [1], "clip": [-1]}}},
    "range clipped in part": {"ranges": {"stem": {"lo": [0, 0], "hi": [1, 1], "clip": [1]}}},
    "range infinite": {"ranges": {"stem": {"lo": [0], "hi": [float("inf")], "clip": []}}},
    "range huge": {"ranges": {"stem": {"lo": [0], "hi": [10**400], "clip": []}}},
    "latent of nothing": {"latent": {**LATENT, "tensor": "nothing"}},
    "latent of bits": {"latent": {**LATENT, "tensor": "conv/sign"}},
    "latent too short": {"latent": {**LATENT, "low": [0.0]}},
    "latent of text": {"latent": {**LATENT, "low": ["0"] * 5}},
    "latent is a list": {"latent": []},
    "head on a map": {"head": {**HEAD, "tensor": "bn"}},
    "head too small": {"head": {**HEAD, "capacity": 1}},
    "head empty": {"head": {**HEAD, "lo": 4}},
    "source": {"source": None},
}


@pytest.mark.parametrize("case", BAD_METADATA, ids=BAD_METADATA.keys())
def test_metadata_that_cannot_be(tmp_path, case):
    change = BAD_METADATA[case]
    meta = change if isinstance(change, str) else with_ranges("conv/scale") | change
    error = refused(make_model(meta=meta), tmp_path)
    assert "metadata cannot be used" in error.message and error.where == "metadata property bnngen"


def test_files_of_others(tmp_path):
    model = make_model()
    del model.metadata_props[:]
    model.producer_name = "pytorch"
    error = refused(model, tmp_path)
    assert "was not written by bnngen export" in error.message and "pytorch" in error.why

    model = make_model()
    model.opset_import[0].version = 13
    assert "operator sets" in refused(model, tmp_path).message

    model = make_model()
    (sign,) = (function for function in model.functions if function.name == "Sign")
    sign.node[3].op_type = "Greater"  # sign(0) would be -1
    assert "function Sign of model.onnx is not the one" in refused(model, tmp_path).message
    model.functions.remove(sign)
    assert "function Sign of model.onnx is not the one" in refused(model, tmp_path).message

    model = make_model()
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    assert "the graph's inputs are ['image', 'more']" in refused(model, tmp_path).message

    model = make_model()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "H"
    assert "the image's size is not fixed: ['any', 8, 2]" in refused(model, tmp_path).message

    model = make_model()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1 << 40
    assert "cannot be" in refused(model, tmp_path).message

    model = make_model()
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    assert "beside the model" in refused(model, tmp_path).message
