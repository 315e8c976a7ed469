# SPDX-License-Identifier: Apache-2.0
"""Each operator of model.onnx by itself: onnxruntime, which inlines the functions, equals the imported graph."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnngen import interp, ir
from bnngen.errors import ModelError
from bnngen.frontend import load_onnx, spelling
from bnngen.frontend.elements import uniform_cuts
from tests.onnx_files import KERNEL, RANGE, metadata, node, save

onnxruntime = pytest.importorskip("onnxruntime")

H, W, C = 5, 4, 6
RNG = np.random.default_rng(7)
BORDERS = [0.0, -0.0, 0.05, -0.05, 0.3, -0.3, 0.5, 1.0, -1.0, 2.0, 1 / 6, 1 / 14, 3 / 14, 6.0, -3.0, 1e-40]

PIXEL_IMAGES = 13  # with one pixel in all channels, they hold each value of 0..255


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1, 1, 1)


WEIGHTS = {
    "slope": column(0.25, -0.5, 0, 1, 2, 0.1),
    "other": column(1, 2, -1, 0.5, 0, 3),
    "scale": RNG.normal(0, 1, (1, C, 1, 1)).astype(np.float32),
    "vector": RNG.normal(0, 1, C).astype(np.float32),
    "zero": np.array(0, np.float32),
    "six": np.array(6, np.float32),
    "minus": np.array(-1, np.float32),
    "no_most": np.array(np.finfo(np.float32).max, np.float32),
    "no_least": np.array(np.finfo(np.float32).min, np.float32),
    "kernel": RNG.normal(0, 1, (8, 3, 3, 3)).astype(np.float32),
    "depthwise": RNG.normal(0, 1, (C, 1, 3, 3)).astype(np.float32),
    "row": RNG.normal(0, 1, (C, C, 3, 1)).astype(np.float32),
    "one_pixel": RNG.normal(0, 1, (C, C, 1, 1)).astype(np.float32),
    "bits": RNG.choice([-1, 1], (9, 2, 3, 3)).astype(np.int8),
    "latents": np.random.default_rng(8).choice([-127, -1, 0, 1, 127], (9, 2, 3, 3)).astype(np.int8),
    "dense_bits": RNG.choice([-1, 1], (C, C, 1, 1)).astype(np.int8),
    "picked": np.array([5, 0, 0, 3], np.int64),
    "channel_pads": np.array([0, 1, 0, 0, 0, 2, 0, 0], np.int64),
    "vector_pads": np.array([0, 1, 0, 2], np.int64),
    "to_point": np.array([-1, C, 1, 1], np.int64),
    "matrix": RNG.normal(0, 1, (C, C)).astype(np.float32),
    **{f"bn_{part}": RNG.uniform(0.5, 2, C).astype(np.float32) for part in ("gamma", "beta", "mean", "variance")},
}
NORM = "bn_gamma bn_beta bn_mean bn_variance"
POOL = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
DENSE = {"pads": [0, 0, 0, 0], "strides": [1, 1], "dilations": [1, 1], "group": 1, "pad_value": 1.0}
VECTOR_OF_X = [("GlobalAveragePool", "x", "g", {}), ("Flatten", "g", "v", {"axis": 1})]
ENCODED = {"scale": 1 / 128, "offset": -1.0, "source": [0, 5, 5, 2]}

# name -> nodes (operator, inputs, output, attributes) from x [N, C, H, W] to y, the nodes of the graph, exact?
CASES = {
    "sign": ([("bnngen.Sign", "x", "y", {})], [ir.Sign], True),
    "ternary": ([("bnngen.Ternary", "x", "y", {"threshold": 0.05})], [ir.Levels], True),
    "ternary, wide": ([("bnngen.Ternary", "x", "y", {"threshold": 0.3})], [ir.Levels], True),
    "ternary without a gap": ([("bnngen.Ternary", "x", "y", {"threshold": 0.0})], [ir.Levels], True),
    "heaviside": ([("bnngen.Heaviside", "x", "y", {})], [ir.Levels], True),
    "one bit": ([("bnngen.UniformQuantize", "x", "y", {"steps": 1.0})], [ir.Levels], True),
    "two bits": ([("bnngen.UniformQuantize", "x", "y", {"steps": 3.0})], [ir.Levels], True),
    "three bits": ([("bnngen.UniformQuantize", "x", "y", {"steps": 7.0})], [ir.Levels], False),
    "relu": ([("Relu", "x", "y", {})], [ir.Clip], True),
    "relu6": ([("Clip", "x zero six", "y", {})], [ir.Clip], True),
    "hard tanh of bits": ([("bnngen.Sign", "x", "s", {}), ("Clip", "s minus zero", "y", {})], [ir.Sign, ir.Clip], True),
    "prelu": ([("PRelu", "x slope", "y", {})], [ir.PRelu], True),
    "dprelu": ([("bnngen.DPRelu", "x slope other", "y", {})], [ir.PRelu], True),
    "sigmoid": ([("Sigmoid", "x", "y", {})], [ir.Unary], False),
    "tanh": ([("Tanh", "x", "y", {})], [ir.Unary], False),
    "hard sigmoid": ([("HardSigmoid", "x", "y", {"alpha": 0.2, "beta": 0.5})], [ir.Unary], False),
    "hard swish": ([("HardSwish", "x", "y", {})], [ir.Unary], False),
    "elu": ([("Elu", "x", "y", {"alpha": 1.0})], [ir.Unary], False),
    "swish": ([("bnngen.Swish", "x", "y", {})], [ir.Unary], False),
    "scale": ([("Mul", "x scale", "y", {})], [ir.BatchNorm], True),
    "shift": ([("Add", "x scale", "y", {})], [ir.BatchNorm], True),
    "batch norm": ([("BatchNormalization", f"x {NORM}", "y", {"epsilon": 1e-3})], [ir.BatchNorm], False),
    "shift and batch norm": (
        [("Add", "x scale", "a", {}), ("BatchNormalization", f"a {NORM}", "y", {"epsilon": 1e-3})],
        [ir.BatchNorm],
        False,
    ),
    "product": ([("Relu", "x", "r", {}), ("Mul", "r x", "y", {})], [ir.Clip, ir.Mul], True),
    "squeeze and excite": (
        [*VECTOR_OF_X, ("Gemm", "v matrix", "d", {}), ("Sigmoid", "d", "e", {}),
         ("Reshape", "e to_point", "p", {}), ("Mul", "x p", "y", {})],
        [ir.GlobalAveragePool, ir.Dense, ir.Unary, ir.Mul],
        False,
    ),
    "squeeze and excite by convolutions": (
        [("GlobalAveragePool", "x", "g", {}), ("Relu", "g", "r", {}), ("Conv", "r one_pixel", "c", {}),
         ("Flatten", "c", "f", {"axis": 1}), ("Reshape", "f to_point", "p", {}), ("Mul", "p x", "y", {})],
        [ir.GlobalAveragePool, ir.Clip, ir.Conv2D, ir.Flatten, ir.Mul],
        False,
    ),
    "pooled twice": (
        [("GlobalAveragePool", "x", "g", {}), ("Relu", "g", "r", {}), ("Mul", "x g", "m", {}), ("Mul", "m r", "y", {})],
        [ir.GlobalAveragePool, ir.Clip, ir.Mul, ir.Mul],
        False,
    ),
    "slopes of a vector": (
        [*VECTOR_OF_X, ("PRelu", "v vector", "w", {}), ("Mul", "w vector", "m", {}), ("Add", "m vector", "a", {}),
         ("Reshape", "a to_point", "p", {}), ("Mul", "x p", "y", {})],
        [ir.GlobalAveragePool, ir.PRelu, ir.BatchNorm, ir.BatchNorm, ir.Mul],
        False,
    ),
    "concat": (
        [("Relu", "x", "r", {}), ("Concat", "x r x", "y", {"axis": 1})],
        [ir.Clip, ir.Concat],
        True,
    ),
    "concat of bits": (
        [("bnngen.Sign", "x", "s", {}), ("Gather", "s picked", "t", {"axis": 1}), ("Concat", "s t", "y", {"axis": 1})],
        [ir.Sign, ir.Channels, ir.Concat],
        True,
    ),
    "channels": ([("Gather", "x picked", "y", {"axis": 1})], [ir.Channels], True),
    "channel pad": ([("Pad", "x channel_pads zero", "y", {})], [ir.Channels], True),
    "moves of a vector": (
        [*VECTOR_OF_X, ("Pad", "v vector_pads", "w", {}), ("Gather", "w picked", "u", {"axis": 1}),
         ("Concat", "u v", "scores", {"axis": 1})],
        [ir.GlobalAveragePool, ir.Channels, ir.Channels, ir.Concat],
        False,
    ),
    "max pool": ([("MaxPool", "x", "y", POOL)], [ir.MaxPool], True),
    "max pool of bits": ([("bnngen.Sign", "x", "s", {}), ("MaxPool", "s", "y", POOL)], [ir.Sign, ir.MaxPool], True),
    "average pool": ([("AveragePool", "x", "y", {**POOL, "count_include_pad": 0})], [ir.AveragePool], False),
    "average of bits": (
        [("bnngen.Sign", "x", "s", {}), ("AveragePool", "s", "y", POOL)],
        [ir.Sign, ir.AveragePool],
        False,
    ),
    "grouped convolution": ([("Conv", "x kernel", "y", {**KERNEL, "group": 2})], [ir.Conv2D], False),
    "depthwise convolution": (
        [("Conv", "x depthwise", "y", {"pads": [1, 1, 1, 1], "group": C})],
        [ir.Conv2D],
        False,
    ),
    "convolution of a sequence": ([("Conv", "x row", "y", {"pads": [1, 0, 1, 0]})], [ir.Conv2D], False),
    "convolution of bits": (
        [("bnngen.Sign", "x", "s", {}), ("Conv", "s kernel", "y", {**KERNEL, "group": 2})],
        [ir.Sign, ir.Conv2D],
        False,
    ),
    "binary convolution": (
        [("bnngen.Sign", "x", "s", {}),
         ("bnngen.BinaryConv2D", "s bits", "c", {**KERNEL, "group": 3, "pad_value": 0.0}),
         ("Relu", "c", "y", {})],
        [ir.Sign, ir.BinaryConv2D, ir.Clip],
        True,
    ),
    "latent convolution": (
        [("bnngen.Sign", "x", "s", {}),
         ("bnngen.LatentConv2D", "s latents", "c", {**KERNEL, "group": 3, "pad_value": 1.0}),
         ("Relu", "c", "y", {})],
        [ir.Sign, ir.BinaryConv2D, ir.Clip],
        True,
    ),
    "binary dense layer": (
        [*VECTOR_OF_X, ("bnngen.Sign", "v", "s", {}), ("Reshape", "s to_point", "p", {}),
         ("bnngen.BinaryConv2D", "p dense_bits", "c", DENSE), ("Flatten", "c", "f", {"axis": 1}),
         ("Mul", "f vector", "scores", {})],
        [ir.GlobalAveragePool, ir.Sign, ir.BinaryConv2D, ir.Flatten, ir.BatchNorm],
        True,
    ),
    "thermometer": (
        [("bnngen.Thermometer", "x", "y", {**ENCODED, "value": [0, 128, 255, 256]})],
        [ir.Encode],
        True,
    ),
    "bit planes": ([("bnngen.BitPlanes", "x", "y", {**ENCODED, "value": [0, 7, 3, 5]})], [ir.Encode], True),
}  # fmt: skip


def images() -> np.ndarray:
    """[N, H, W, C]: every border in every channel, then the 256 pixels scaled, then noise."""
    count = 24
    x = np.random.default_rng(3).normal(0, 1.5, (count, H, W, C)).astype(np.float32)
    x[0].reshape(-1, C)[: len(BORDERS)] = np.float32(BORDERS)[:, None]
    pixels = np.resize(np.arange(256), (PIXEL_IMAGES, H, W, 1))
    x[-PIXEL_IMAGES:] = np.float32(pixels / 128 - 1)
    return x


def make(nodes: list[onnx.NodeProto], output: str, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    used = {made.op_type for made in nodes if made.domain} & set(spelling.FUNCTIONS)
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", H, W, C])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=spelling.opset_imports(), functions=spelling.functions(used),
                             ir_version=spelling.IR_VERSION)  # fmt: skip


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": x})[0]


def complete(steps: list[tuple], **changes: np.ndarray) -> onnx.ModelProto:
    """A whole file of these nodes; what is a map at the end is flattened to the scores."""
    nodes = [node("Transpose", "image", "x", perm=spelling.TO_NCHW)]
    nodes += [node(op, inputs, output, **attributes) for op, inputs, output, attributes in steps]
    weights, output = WEIGHTS | changes, steps[-1][2]
    size = int(np.prod(run(make(nodes, output, weights), images()[:1]).shape))
    if output == "y":
        weights["flat"] = np.array([-1, size], np.int64)
        weights["twos"] = np.full(size, 2, np.float32)  # scores are real-valued, also those of bits
        nodes += [node("Transpose", "y", "last", perm=spelling.TO_NHWC), node("Reshape", "last flat", "vector_of_y"),
                  node("Mul", "vector_of_y twos", "scores")]  # fmt: skip
    return described(make(nodes, "scores", weights), size)


def described(model: onnx.ModelProto, classes: int) -> onnx.ModelProto:
    names = ["image", *(made.output[0] for made in model.graph.node)]
    meta = metadata(
        classes=[str(i) for i in range(classes)],
        trained_classes=list(range(classes)),
        input={"scale": 1 / 128, "offset": -1.0},
        ranges=dict.fromkeys(names, RANGE),
        latent=None,
        head=None,
    )
    helper.set_model_props(model, {"bnngen": json.dumps(meta)})
    return model


@pytest.mark.parametrize("case", CASES, ids=CASES.keys())
def test_an_operator_computes_what_onnxruntime_computes(tmp_path, case):
    steps, kinds, exact = CASES[case]
    model, x = complete(steps), images()[-PIXEL_IMAGES if ir.Encode in kinds else 0 :]
    graph = load_onnx(save(model, tmp_path))
    ir.verify(graph)
    behind = [ir.Flatten, ir.BatchNorm] if steps[-1][2] == "y" else []
    assert [type(made) for made in graph.nodes] == kinds + behind
    expected, actual = run(model, x), interp.run(graph, x)
    assert np.ptp(expected) > 0 and actual.shape == expected.shape
    if exact:
        np.testing.assert_array_equal(actual, expected)
    else:
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_the_last_number_is_no_limit(tmp_path):
    steps = [("Clip", "x zero no_most", "r", {}), ("Clip", "r no_least six", "y", {})]
    first, second = load_onnx(save(complete(steps), tmp_path)).nodes[:2]
    assert (first.lo, first.hi) == (0.0, np.inf) and (second.lo, second.hi) == (-np.inf, 6.0)


@pytest.mark.parametrize("bits", range(1, 9))
def test_cuts_of_uniform_quantizers_decide_every_border_as_float32_does(bits):
    """Ties to even of the float32 product, at all numbers within eight steps of each cut."""
    steps = 2**bits - 1
    cuts = uniform_cuts(steps)
    assert (np.diff(cuts) > 0).all()
    x = cuts.astype(np.float32)
    near = [x]
    for direction in (-np.inf, np.inf):
        for _ in range(8):
            near.append(np.nextafter(near[-1], np.float32(direction)))
        near.append(x)
    x = np.concatenate(near)
    codes = np.rint(np.clip(x, 0, 1) * np.float32(steps))
    np.testing.assert_array_equal((x[:, None] >= cuts).sum(axis=1), codes)


# ------------------------------------------------------------------------------------------ refusals

BAD = {
    "threshold": ([("bnngen.Ternary", "x", "y", {"threshold": -0.1})], {}, "a threshold of -0.1"),
    "threshold that is no number": (
        [("bnngen.Ternary", "x", "y", {"threshold": float("nan")})],
        {},
        "a threshold of nan cannot be",
    ),
    "steps": ([("bnngen.UniformQuantize", "x", "y", {"steps": 2.5})], {}, "a quantizer of 2.5 steps"),
    "too many steps": ([("bnngen.UniformQuantize", "x", "y", {"steps": 65535.0})], {}, "a quantizer of 65535.0 steps"),
    "limits": ([("Clip", "x six zero", "y", {})], {}, "limits [6.0, 0.0] cannot be"),
    "limit that is no constant": ([("Clip", "x x", "y", {})], {}, "input 1 of the node, x, is not a constant"),
    "limit that is no number": ([("Clip", "x zero six", "y", {})], {"six": column(np.nan)[0, 0, 0]}, "not a finite"),
    "one slope": ([("PRelu", "x slope", "y", {})], {"slope": column(0.25)}, "constant slope is float32 [1, 1, 1]"),
    "slope that is no number": ([("PRelu", "x slope", "y", {})], {"slope": column(*[np.inf] * C)}, "not a finite"),
    "alpha": ([("Elu", "x", "y", {"alpha": 2.0})], {}, "attribute alpha = 2.0 is not supported"),
    "hard sigmoid of others": ([("HardSigmoid", "x", "y", {"alpha": 1 / 6})], {}, "attribute alpha"),
    "unknown attribute": ([("Sigmoid", "x", "y", {"gain": 1.0})], {}, "attribute gain is not supported"),
    "axis": ([("Concat", "x x", "y", {"axis": 2})], {}, "cannot join [5, 4, 6], [5, 4, 6] along axis 2"),
    "bits and reals joined": (
        [("bnngen.Sign", "x", "s", {}), ("Concat", "s x", "y", {"axis": 1})],
        {},
        "input x is a f32 tensor",
    ),
    "index": ([("Gather", "x picked", "y", {"axis": 1})], {"picked": np.array([0, 6])}, "channels 0 to 6 of 6"),
    "index from behind": ([("Gather", "x picked", "y", {"axis": 1})], {"picked": np.array([-1])}, "channels -1"),
    "rows": ([("Gather", "x picked", "y", {"axis": 2})], {"picked": np.array([0])}, "along axis 2"),
    "pad around the image": (
        [("Pad", "x channel_pads", "y", {})],
        {"channel_pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        "pads [0, 0, 1, 1, 0, 0, 1, 1] are not supported",
    ),
    "pad with one": ([("Pad", "x channel_pads six", "y", {})], {}, "are not supported"),
    "pad by repetition": ([("Pad", "x channel_pads", "y", {"mode": "edge"})], {}, "attribute mode"),
    "pad of bits": (
        [("bnngen.Sign", "x", "s", {}), ("Pad", "s channel_pads", "y", {})],
        {},
        "input s is a bits tensor",
    ),
    "product of a map and a row": (
        [("Conv", "x one_pixel", "c", {"strides": [5, 4]}), ("Mul", "x c", "y", {})],
        {},
        "cannot multiply [5, 4, 6] by [1, 1, 6]",
    ),
    "reshape": ([*VECTOR_OF_X, ("Reshape", "v to_point", "y", {})], {"to_point": np.array([-1, 3, 2])}, "a reshape to"),
    "pixels of a real map": (
        [("Relu", "x", "r", {}), ("bnngen.BitPlanes", "r", "y", {**ENCODED, "value": [0, 1, 2, 3]})],
        {},
        "only the image can be encoded",
    ),
    "pixels of another scale": (
        [("bnngen.BitPlanes", "x", "y", {**ENCODED, "scale": 0.5, "value": [0, 1, 2, 3]})],
        {},
        "scale 0.5 and offset -1.0 are not those of the image",
    ),
    "ninth bit": ([("bnngen.BitPlanes", "x", "y", {**ENCODED, "value": [0, 1, 2, 8]})], {}, "cannot be"),
    "three values": ([("bnngen.Thermometer", "x", "y", {**ENCODED, "value": [0, 1, 2]})], {}, "cannot be"),
    "channel outside": (
        [("bnngen.Thermometer", "x", "y", {**ENCODED, "source": [6], "value": [1]})],
        {},
        "source [6] and value [1] cannot be",
    ),
    "values of another type": (
        [("bnngen.Thermometer", "x", "y", {**ENCODED, "value": [0.5, 1.0, 2.0, 3.0]})],
        {},
        "attribute value cannot be read",
    ),
    "unknown operator": ([("Erf", "x", "y", {})], {}, "operator Erf is not supported"),
}


@pytest.mark.parametrize("case", BAD, ids=BAD.keys())
def test_an_operator_that_cannot_be_is_named(tmp_path, case):
    steps, changes, message = BAD[case]
    nodes = [node("Transpose", "image", "x", perm=spelling.TO_NCHW)]
    nodes += [node(op, inputs, output, **attributes) for op, inputs, output, attributes in steps]
    model = described(make(nodes, "scores", WEIGHTS | changes), 4)
    with pytest.raises(ModelError) as caught:
        load_onnx(save(model, tmp_path))
    error = caught.value
    assert message in error.message and error.where and error.fix
    assert steps[-1][2] in error.where or error.where.startswith("initializer")


def test_a_function_that_the_file_does_not_carry(tmp_path):
    model = complete(CASES["heaviside"][0])
    assert [function.name for function in model.functions] == ["Heaviside"]
    del model.functions[:]
    with pytest.raises(ModelError, match="function Heaviside of model.onnx is not the one"):
        load_onnx(save(model, tmp_path))
