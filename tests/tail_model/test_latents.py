# SPDX-License-Identifier: Apache-2.0
"""Latent weights in model.onnx: which layers carry them, that their signs survive, that the file runs as before."""

from __future__ import annotations

import larq
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.export.quantizers import latent_steps
from bnngen.frontend import load_onnx
from tests.onnx_files import make_model, save, small_nodes, with_ranges
from tests.tail_model.networks import Trained, trained

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Trained:
    return trained("quicknet-nano", 0.25, tmp_path_factory.mktemp("latents"))


def kept(graph: ir.Graph) -> list[str]:
    return [node.name for node in graph.of_type(ir.BinaryConv2D) if node.latent is not None]


def test_layers_behind_the_cut_carry_their_latent_weights(model):
    expected = {
        "features": [],
        "tail:1": ["stage3_block2_conv"],
        "tail:2": ["stage3_block1_conv", "stage3_block2_conv"],
        "stage2_block2_add": ["stage3_block1_conv", "stage3_block2_conv"],
        "transition2_bn": ["stage3_block1_conv", "stage3_block2_conv"],
    }
    for cut, layers in expected.items():
        result, graph = model.export(cut)
        assert kept(graph) == layers, cut
        used = {function.name for function in onnx.load(result.path).functions}
        assert ("LatentConv2D" in used) == bool(layers)
    assert model.export("tail:2")[0].cut == "transition2_bn"


def test_they_are_keras_weights_in_steps_and_none_loses_its_sign(model):
    _, graph = model.export("tail:2")
    for node in graph.of_type(ir.BinaryConv2D):
        weights = model.model.get_layer(node.name).kernel
        weights = getattr(weights, "latent_variable", weights).numpy()
        np.testing.assert_array_equal(node.weights, np.where(weights >= 0, 1, -1))
        if node.latent is not None:
            np.testing.assert_array_equal(node.latent >= 0, weights >= 0)
            assert (np.abs(node.latent - np.clip(weights, -1, 1) * 127) < 1).all()
            assert (weights[node.latent == 0] >= 0).all() and (node.latent == 0).any()


def test_the_cut_changes_no_score(model):
    scores = []
    for cut in ("features", "tail:1", "tail:2"):
        result, _ = model.export(cut)
        run = onnxruntime.InferenceSession(result.path, providers=["CPUExecutionProvider"])
        scores.append(run.run(None, {"image": model.x})[0])
    np.testing.assert_array_equal(scores[1], scores[0])
    np.testing.assert_array_equal(scores[2], scores[0])


def test_a_cut_in_front_of_more_blocks_than_there_are(model):
    for cut in ("tail:7", "tail:0", "tail:x"):
        with pytest.raises(ModelError) as caught:
            model.export(cut)
        assert "6 residual blocks" in caught.value.why and "tail:1 to tail:6" in caught.value.fix


def test_a_network_without_branches_has_no_blocks(tmp_path):
    plain = trained("binary-chain", 0.25, tmp_path)
    with pytest.raises(ModelError) as caught:
        plain.export("tail:1")
    assert "no residual block" in caught.value.why and "features" in caught.value.fix


@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=8))
def test_signs_survive_rounding(values):
    latent = np.array(values, np.float32)
    kernel = np.where(latent >= 0, 1, -1).astype(np.float32)
    steps = latent_steps(latent, kernel)
    assert steps is not None and steps.dtype == np.int8 and abs(steps.astype(int)).max() <= 127
    np.testing.assert_array_equal(steps >= 0, kernel >= 0)


def test_a_kernel_that_is_not_of_its_weights_signs_has_no_latents():
    latent = np.array([0.5, -0.5], np.float32)
    assert latent_steps(latent, -latent) is None
    quantizer = larq.quantizers.MagnitudeAwareSign()
    weights = np.random.default_rng(0).normal(0, 0.3, (3, 3, 4, 5)).astype(np.float32)
    assert latent_steps(weights, quantizer(tf.constant(weights)).numpy()) is not None


@pytest.mark.parametrize("lowest", [-127, -128])
def test_what_a_file_may_hold(lowest, tmp_path):
    nodes = small_nodes()
    conv = next(node for node in nodes if node.op_type == "BinaryConv2D")
    conv.op_type, conv.input[1] = "LatentConv2D", "conv/latent"
    built = make_model(nodes, with_ranges("conv/scale"))
    latent = np.full((6, 2, 3, 3), lowest, np.int8)
    latent[0, 0] = 0
    built.graph.initializer.append(numpy_helper.from_array(latent, "conv/latent"))
    assert built.graph.initializer[-1].data_type == TensorProto.INT8
    if lowest == -128:
        with pytest.raises(ModelError, match="lie in -127..127"):
            load_onnx(save(built, tmp_path))
        return
    node = next(load_onnx(save(built, tmp_path)).of_type(ir.BinaryConv2D))
    np.testing.assert_array_equal(node.latent, latent.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(node.weights, np.where(node.latent >= 0, 1, -1))
