# SPDX-License-Identifier: Apache-2.0
"""Files that tf2onnx writes from Larq models mean the same after translation."""

from __future__ import annotations

import numpy as np
import pytest

from bnngen.export.foreign import open_foreign
from tests.foreign.larq_networks import NETWORKS, build, convert
from tests.foreign.route import assert_same, pixels, translate

pytestmark = pytest.mark.filterwarnings("default")  # of tf2onnx, and exp of large numbers in swish


@pytest.fixture(scope="module")
def file_of(tmp_path_factory):
    """The file of a network, and the Keras model."""
    folder, made = tmp_path_factory.mktemp("tf2onnx"), {}

    def get(name):
        if name not in made:
            model = build(name)
            (folder / name).mkdir(exist_ok=True)
            made[name] = convert(model, folder / name / "other.onnx"), model
        return made[name]

    return get


# What must be found in each: the operators of our own spelling, and none of what tf2onnx writes instead.
FOUND = {
    "quicknet": {"BinaryConv2D": 2, "Sign": 2, "Conv": 5, "AveragePool": 1, "Gemm": 1},
    "bireal": {"BinaryConv2D": 2, "Sign": 2, "Conv": 2, "MaxPool": 1},
    "real_to_binary": {"BinaryConv2D": 2, "PRelu": 3, "Sigmoid": 2},
    "melius": {"BinaryConv2D": 2, "Conv": 2, "Concat": 1, "Pad": 1},
    "dorefa": {"UniformQuantize": 2, "Conv": 3, "Clip": 1, "Gemm": 1},
    "alexnet": {"BinaryConv2D": 3, "Conv": 1},
    "xnor": {"BinaryConv2D": 3, "Concat": 1, "Gemm": 1},
    "windows": {"BinaryConv2D": 5, "Sign": 5},
    "quantizers": {"Ternary": 1, "Heaviside": 1, "Sign": 1, "Conv": 4},
    "sequence": {"BinaryConv2D": 2, "Conv": 1, "MaxPool": 1, "Gemm": 1},
    "functions": {"BinaryConv2D": 3, "Swish": 1, "Clip": 3, "Tanh": 1, "Elu": 1, "PRelu": 1},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_route_gives_the_scores_of_the_original(file_of, name):
    path, _ = file_of(name)
    made = translate(path)
    assert_same(made)
    assert made.result.engine == "the original file"
    found = {op: made.operators[op] for op in FOUND[name]}
    assert found == FOUND[name], made.operators
    assert made.operators["Transpose"] <= 2  # the image's, and that of a flattened map


@pytest.mark.parametrize("name", ["quicknet", "dorefa"])
def test_the_original_is_run_up_to_its_scores_before_softmax(file_of, name):
    path, model = file_of(name)
    images = (pixels(5).astype(np.float32) - 128) / 128
    scores = np.concatenate(list(open_foreign(path).run(images)))
    expected = model(images, training=False).numpy()
    if name == "quicknet":
        power = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores = power / power.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores, expected, atol=1e-4)


@pytest.mark.parametrize("options", [{"channels_first": True}, {"batch": 1}, {"batch": 1, "channels_first": True}])
def test_images_of_either_order_and_a_batch_of_one(tmp_path, options):
    made = translate(convert(build("bireal"), tmp_path / "other.onnx", **options))
    assert_same(made)


def test_layers_keep_their_names(file_of):
    graph = open_foreign(file_of("quicknet")[0]).graph
    assert {"quant_conv2d", "quant_conv2d/relu", "dense"} <= set(graph.layers)
    assert any(name.startswith("quant_conv2d/ste_sign") for name in graph.layers)
    assert graph.features is not None
    assert "conv2d_1" in graph.cuttable().possible


def test_folded_batch_norm_comes_apart_into_signs_and_scales(file_of):
    """bireal: no weight of a binary convolution is left with a magnitude; a negative gamma turned whole filters."""
    path, model = file_of("bireal")
    graph = open_foreign(path).graph
    kernels = [t for t in graph.builder.initializers if t.name.endswith("/kernel") and t.data_type == 3]  # int8
    assert len(kernels) == 2
    layer = model.get_layer("quant_conv2d")
    norm = model.get_layer("batch_normalization_1")
    import larq
    import onnx

    with larq.context.quantized_scope(True):
        latent = layer.get_weights()[0]
    signs = np.sign(latent).transpose(3, 2, 0, 1) * np.sign(norm.gamma.numpy()).reshape(-1, 1, 1, 1)
    assert (norm.gamma.numpy() < 0).any()
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(kernels[0]), signs)
