# SPDX-License-Identifier: Apache-2.0
"""The backbones: their cost, their padding, and what stands before each sign."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
larq = pytest.importorskip("larq")

from bnngen.errors import DataError  # noqa: E402
from bnngen.train.config import BACKBONE_NAMES, Form  # noqa: E402
from bnngen.train.layers import BitPlanes, LearnedShift, Thermometer  # noqa: E402
from bnngen.train.models import BACKBONES, build  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("default")]

QuantConv2D = larq.layers.QuantConv2D


def macs(model: tf.keras.Model) -> int:
    """Multiply-accumulates of all convolutions and the head."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.Conv2D | tf.keras.layers.Dense):
            outputs = np.prod(layer.output_shape[1:-1], dtype=int)
            total += int(outputs) * int(np.prod(layer.kernel.shape))
    return total


def producers(layer: tf.keras.layers.Layer) -> list[tf.keras.layers.Layer]:
    inbound = layer.inbound_nodes[0].inbound_layers
    return inbound if isinstance(inbound, list) else [inbound]


def test_names_are_those_that_the_configuration_accepts() -> None:
    assert sorted(BACKBONES) == sorted(BACKBONE_NAMES)


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (16, 16, 1), (15, 17, 3)])
@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_every_backbone_takes_every_usual_shape(name: str, shape: tuple[int, int, int]) -> None:
    model = build(name, shape, 7)
    scores = model(np.random.default_rng(0).uniform(-1, 1, (2, *shape)).astype(np.float32)).numpy()
    assert scores.shape == (2, 7) and np.allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert model.layers[-1].name == "scores" and model.layers[-2].name == "logits"


def test_quicknet_nano_costs_about_15_million_macs() -> None:
    assert macs(build("quicknet-nano", (32, 32, 3), 10)) == 14_640_384


@pytest.mark.parametrize(("name", "pad"), [("quicknet-nano", 1.0), ("binary-chain", 0.0)])
def test_binary_convolutions_are_same_padded_without_bias(name: str, pad: float) -> None:
    model = build(name, (16, 16, 1), 10)
    binary = [layer for layer in model.layers if isinstance(layer, QuantConv2D)]
    assert len(binary) == {"quicknet-nano": 6, "binary-chain": 4}[name]
    for layer in binary:
        assert layer.padding == "same" and layer.pad_values == pad and not layer.use_bias
        assert layer.kernel_size == (3, 3)


def test_no_relu_stands_right_before_a_sign() -> None:
    """A tensor behind a ReLU has one sign only."""
    for name in BACKBONES:
        for layer in build(name, (16, 16, 1), 10).layers:
            if isinstance(layer, QuantConv2D):
                (before,) = producers(layer)
                assert isinstance(before, tf.keras.layers.BatchNormalization | tf.keras.layers.Add | LearnedShift)


def test_chain_has_nothing_but_batch_norm_between_its_convolutions() -> None:
    model = build("binary-chain", (16, 16, 1), 10)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds[1:3] == ["Conv2D", "BatchNormalization"]
    assert kinds[3:11] == ["QuantConv2D", "BatchNormalization"] * 4
    assert kinds[11:] == ["GlobalAveragePooling2D", "Dense", "Softmax"]


def test_saved_model_loads_and_stays_small(tmp_path: Path) -> None:
    model = build("quicknet-nano", (32, 32, 3), 100)
    file = tmp_path / "model.keras"
    model.save(file)
    assert file.stat().st_size <= 2_000_000
    image = np.random.default_rng(1).uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)
    loaded = tf.keras.models.load_model(file, compile=False)
    assert np.array_equal(loaded(image).numpy(), model(image).numpy())


@pytest.mark.parametrize(("name", "shifts"), [("reactnet-18", 16), ("birealnet-18", 0)])
def test_resnet18_forms_are_those_of_the_papers(name: str, shifts: int) -> None:
    """16 scaled convolutions with a shortcut each; behind block 13 the latents are 4x4x512."""
    model = build(name, (32, 32, 3), 10)
    binary = [layer for layer in model.layers if isinstance(layer, QuantConv2D)]
    assert len(binary) == 16 and all(layer.pad_values == 0 for layer in binary)
    assert {type(layer.kernel_quantizer) for layer in binary} == {larq.quantizers.MagnitudeAwareSign}
    assert {type(layer.input_quantizer) for layer in binary} == {larq.quantizers.ApproxSign}
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds.count("LearnedShift") == kinds.count("RPReLU") == shifts and kinds.count("Add") == 16
    assert kinds.count("AveragePooling2D") == 3 and "MaxPooling2D" not in kinds
    assert model.get_layer("stage4_block1_add").output_shape == (None, 4, 4, 512)
    assert model.get_layer("stem_conv").strides == (1, 1)
    convolutions = [np.prod(layer.kernel.shape[:2]) for layer in model.layers if type(layer).__name__ == "Conv2D"]
    assert sorted(convolutions) == [1, 1, 1, 9]  # the shortcuts that widen, and the stem


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_float_twin_has_the_weights_of_the_binary_form_and_no_quantizer(name: str) -> None:
    binary, twin = (build(name, (16, 16, 1), 5, Form(width=0.25, float_weights=on)) for on in (False, True))
    assert not any(isinstance(layer, QuantConv2D) for layer in twin.layers)
    shapes = [[(w.name, w.shape) for w in model.weights] for model in (binary, twin)]
    assert sorted(map(str, shapes[0])) == sorted(map(str, shapes[1]))
    x = np.random.default_rng(0).uniform(-1, 1, (8, 16, 16, 1)).astype(np.float32)
    scores = tf.keras.Model(twin.input, twin.get_layer("logits").output)(np.concatenate([x, -x])).numpy()
    assert not np.allclose(scores[8:], -scores[:8], atol=1e-3)  # it is not a linear function


@pytest.mark.parametrize(("encoding", "kind"), [("thermometer", Thermometer), ("bitplanes", BitPlanes)])
@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_an_input_encoding_makes_the_first_layer_binary(name: str, encoding: str, kind: type) -> None:
    model = build(name, (16, 16, 3), 5, Form(width=0.25, input_encoding=encoding))
    code, stem = model.layers[1:3]
    assert type(code) is kind and code.output_shape == (None, 16, 16, 24)
    assert isinstance(stem, QuantConv2D) and stem.name == "stem_conv" and stem.input_quantizer is None
    assert stem.kernel_quantizer is not None and stem.pad_values == 1.0


def test_width_scales_all_channels_and_keeps_to_multiples_of_eight() -> None:
    for width, channels in ((0.5, [16, 32, 64]), (1.0, [32, 64, 128]), (0.3, [8, 16, 40]), (0.01, [8, 8, 8])):
        model = build("quicknet-nano-s", (16, 16, 1), 5, Form(width=width))
        assert [model.get_layer(f"stage{i}_block1_conv").filters for i in (1, 2, 3)] == channels


@pytest.mark.parametrize(("name", "least"), [("quicknet-nano-s", 4), ("reactnet-nano", 4), ("reactnet-18", 8),
                                             ("birealnet-18", 8)])
def test_images_that_the_halvings_use_up_are_refused(name: str, least: int) -> None:
    build(name, (least, least, 1), 5, Form(width=0.1))
    with pytest.raises(DataError, match=f"too small for {name}") as caught:
        build(name, (least, least - 1, 1), 5)
    assert f"{least} x {least}" in caught.value.why
