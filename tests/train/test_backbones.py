# SPDX-License-Identifier: Apache-2.0
"""The backbones: their cost, their padding, and what stands before each sign."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
larq = pytest.importorskip("larq")

from bnngen.train.config import BACKBONE_NAMES  # noqa: E402
from bnngen.train.layers import LearnedShift  # noqa: E402
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
    assert tuple(BACKBONES) == BACKBONE_NAMES


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
