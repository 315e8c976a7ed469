# SPDX-License-Identifier: Apache-2.0
"""model.onnx -> Graph: what is read, and that damage never ends in a traceback."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from bnngen import interp, ir
from bnngen.errors import BnngenError, ModelError, UsageError
from bnngen.frontend import load_onnx
from tests.onnx_files import WEIGHTS, make_model, save, with_ranges

EXPECTED = """\
graph small(image: f32[8,8,2])
  stem: f32[4,4,4] = Conv2D(image) weights=<float32[3, 3, 2, 4]> \
window=(3, 3)/(2, 2) pads (0, 0, 1, 1) dilation (1, 1) groups=1 bias=<float32[4]>
  conv/sign: bits[4,4,4] = Sign(stem)
  conv/scale: f32[2,2,6] = BinaryConv2D(conv/sign) weights=<int8[3, 3, 2, 6]> \
window=(3, 3)/(2, 2) pads (0, 0, 1, 1) dilation (1, 1) pad_value=0 groups=2 kernel_scale=<float32[6]>
  bn: f32[2,2,6] = BatchNorm(conv/scale) gamma=<float32[6]> beta=<float32[6]> mean=<float32[6]> \
variance=<float32[6]> epsilon=0.0010000000474974513
  relu: f32[2,2,6] = Clip(bn) lo=0.0 hi=inf
  sum: f32[2,2,6] = Add(bn, relu) lo=-2147483648 hi=2147483647
  max: f32[2,2,6] = MaxPool(sum) window=(2, 2)/(2, 2) pads (1, 1, 1, 1) dilation (1, 1)
  mean: f32[1,1,6] = AveragePool(max) window=(2, 2)/(2, 2) pads (0, 0, 0, 0) dilation (1, 1) denominator=0
  pool: f32[6] = GlobalAveragePool(mean)
  flat: f32[6] = Flatten(mean)
  both: f32[6] = Add(pool, flat) lo=-2147483648 hi=2147483647
  hidden: f32[5] = Dense(both) weights=<float32[6, 5]>
  scores: f32[3] = Dense(hidden) weights=<float32[5, 3]> bias=<float32[3]>
  return scores
"""


def test_the_whole_dialect(tmp_path):
    path = save(make_model(meta=with_ranges("conv/scale")), tmp_path)
    graph = load_onnx(path)
    assert ir.to_text(graph) == EXPECTED
    assert [node.name for node in graph.nodes][:3] == ["stem", "conv/sign", "conv"]
    conv = next(graph.of_type(ir.BinaryConv2D))
    np.testing.assert_array_equal(conv.weights, WEIGHTS["conv/kernel"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(conv.kernel_scale, WEIGHTS["conv/kernel_scale"].ravel())
    norm = next(graph.of_type(ir.BatchNorm))
    np.testing.assert_array_equal(norm.mean, WEIGHTS["bn/mean"] - WEIGHTS["conv/bias"].ravel())
    meta = graph.meta
    assert (meta.name, meta.classes, meta.trained_classes) == ("small", tuple("abcd"), (2, 0, 1))
    assert (meta.input_scale, meta.input_offset) == (0.5, -1.0)
    assert meta.latent == ir.Latent("hidden", (0.0,) * 5, (0.0,) * 5, (1.0,) * 5)
    assert meta.head == ir.HeadInput("hidden", 0.0, 3.5, 10)
    assert meta.source == {"tool": "test", "onnx_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert "pool/out" not in meta.ranges and meta.ranges["stem"] == ir.ChannelRange((-1.5,), (2.0,))


def test_it_computes_what_onnx_means(tmp_path):
    """Against onnx's own reference evaluator, which inlines the two functions by itself."""
    model = make_model(meta=with_ranges("conv/scale"))
    graph = load_onnx(save(model, tmp_path))
    x = np.random.default_rng(3).normal(0, 1, (5, 8, 8, 2)).astype(np.float32)
    expected = ReferenceEvaluator(model).run(None, {"image": x})[0]
    np.testing.assert_allclose(interp.run(graph, x), expected, rtol=1e-4, atol=1e-4)


def test_a_bias_that_is_needed_stays(tmp_path):
    """Where a latent is cut, or a second layer reads, the biased tensor itself exists."""
    latent = {"tensor": "conv", "threshold": [0.0] * 6, "low": [0.0] * 6, "high": [1.0] * 6}
    meta = with_ranges("conv/scale") | {"latent": latent}
    graph = load_onnx(save(make_model(meta=meta), tmp_path))
    bias, norm = graph.of_type(ir.BatchNorm)
    assert (bias.output, norm.inputs) == ("conv", ("conv",))
    np.testing.assert_array_equal(bias.beta, WEIGHTS["conv/bias"].ravel())
    assert bias.epsilon == 0 and (bias.gamma == 1).all() and (bias.variance == 1).all() and (bias.mean == 0).all()


def test_no_file_and_no_onnx(tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        load_onnx(tmp_path / "none.onnx")
    path = tmp_path / "model.onnx"
    for content in (b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="model.onnx is not an ONNX file"):
            load_onnx(path)


# --------------------------------------------------------------------------------------------- damage

WHOLE = make_model(meta=with_ranges("conv/scale")).SerializeToString()


def loads_or_explains(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        ir.verify(load_onnx(path))
    except BnngenError as error:
        assert error.message


def test_names_that_are_no_text(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(WHOLE.replace(b"relu", b"re\xffu"))
    with pytest.raises(ModelError, match="a name cannot be read"):
        load_onnx(path)


def test_truncated_anywhere(tmp_path):
    for length in range(0, len(WHOLE), 7):
        loads_or_explains(tmp_path / "model.onnx", WHOLE[:length])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=3))
def test_damaged_anywhere(tmp_path, damage):
    content = bytearray(WHOLE)
    for place, value in damage:
        content[place] = value
    loads_or_explains(tmp_path / "model.onnx", bytes(content))
