# SPDX-License-Identifier: Apache-2.0
"""The layers that Larq lacks: what they compute, what they learn, and that a saved model brings them back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from bnngen import interp, ir  # noqa: E402
from bnngen.train.layers import BitPlanes, DPReLU, LearnedShift, RPReLU, Thermometer  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("default")]

ALL_PIXELS = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)


def set_random(layer: tf.keras.layers.Layer, seed: int = 0) -> list[np.ndarray]:
    """Give the layer's vectors values of both signs; return them in the order of creation."""
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(size=w.shape).astype(np.float32) for w in layer.get_weights()])
    return layer.get_weights()


@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (6, 3)])
def test_slopes_and_shifts_compute_what_they_say(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    x.flat[0] = -0.0
    for cls in (LearnedShift, RPReLU, DPReLU):
        layer = cls()
        layer.build(shape)
        weights = set_random(layer)
        if cls is LearnedShift:
            expected = x + weights[0]
        elif cls is RPReLU:
            moved = x + weights[0]
            expected = np.where(moved < 0, moved * weights[1], moved) + weights[2]
        else:
            expected = np.where(x < 0, x * weights[0], x * weights[1])
        np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-6, atol=1e-6)
        assert [w.shape for w in weights] == [(3,)] * len(weights)


def test_every_vector_learns() -> None:
    x = tf.constant(np.random.default_rng(2).normal(size=(8, 4)).astype(np.float32))
    for layer in (LearnedShift(), RPReLU(), DPReLU()):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x) ** 2)
        gradients = tape.gradient(loss, layer.trainable_variables)
        assert gradients and all(np.abs(g.numpy()).min() > 0 for g in gradients)


def test_an_rprelu_starts_as_the_usual_prelu() -> None:
    x = np.float32([[-2, -1, 0, 1]])
    assert RPReLU()(x).numpy().tolist() == [[-0.5, -0.25, 0, 1]]


@pytest.mark.parametrize(("scale", "offset"), [(1 / 128, -1.0), (1 / 255, 0.0), (2 / 255, -1.0), (0.017, -2.1)])
@pytest.mark.parametrize("layer_of", [lambda **k: Thermometer(5, **k), lambda **k: BitPlanes(8, **k),
                                      lambda **k: BitPlanes(3, **k), lambda **k: Thermometer(255, **k)])
def test_encodings_equal_the_graph_op_for_every_pixel(layer_of, scale: float, offset: float) -> None:
    """All 256 pixel values, in three channels that differ, against ir.Encode on the pixels themselves."""
    layer = layer_of(scale=scale, offset=offset)
    pixels = np.concatenate([ALL_PIXELS, 255 - ALL_PIXELS, ALL_PIXELS ^ 85], axis=-1)
    signs = layer(pixels.astype(np.float32) * np.float32(scale) + np.float32(offset)).numpy()
    node = ir.Encode("e", ("image",), "y", layer.source, layer.value, isinstance(layer, BitPlanes), scale, offset)
    expected = interp.apply(node, [pixels], ir.Tensor("y", signs.shape[1:], ir.BITS))
    assert np.array_equal(signs, expected)
    assert layer.compute_output_shape((None, 16, 16, 3)).as_list() == [None, *signs.shape[1:]]


def test_a_thermometer_divides_the_pixels_evenly() -> None:
    signs = Thermometer(3)(ALL_PIXELS.astype(np.float32) / 128 - 1).numpy().reshape(256, 3)
    assert [int((signs[:, i] < 0).sum()) for i in range(3)] == [64, 128, 192]
    assert len(set(Thermometer(255).values())) == 255


def test_bit_planes_are_the_pixel() -> None:
    signs = BitPlanes()(ALL_PIXELS.astype(np.float32) / 128 - 1).numpy().reshape(256, 8)
    assert np.array_equal(((signs + 1) / 2) @ (2 ** np.arange(8)[::-1]), np.arange(256))


@pytest.mark.parametrize("make", [lambda: Thermometer(0), lambda: Thermometer(256), lambda: BitPlanes(9),
                                  lambda: BitPlanes(0), lambda: BitPlanes(scale=0.0),
                                  lambda: Thermometer(offset=float("nan"))])
def test_impossible_encodings_are_refused(make) -> None:
    with pytest.raises(ValueError, match="levels|bits|scale"):
        make()


def test_sixteen_bits_do_not_blur_the_pixels() -> None:
    """Under a mixed policy the image stays float32; only the signs are narrow."""
    pixels = ALL_PIXELS.astype(np.float32) * np.float32(0.017) - np.float32(2.1)
    options = {"scale": 0.017, "offset": -2.1}
    narrow = Thermometer(255, dtype=tf.keras.mixed_precision.Policy("mixed_bfloat16"), **options)(pixels)
    assert narrow.dtype == tf.bfloat16
    assert np.array_equal(tf.cast(narrow, tf.float32).numpy(), Thermometer(255, **options)(pixels).numpy())


def test_a_saved_model_brings_the_layers_back(tmp_path: Path) -> None:
    image = tf.keras.Input((4, 4, 2))
    planes = BitPlanes(4, scale=1 / 255, offset=0.0, name="planes")(image)
    code = Thermometer(6, name="code")(image)
    x = tf.keras.layers.Concatenate()([planes, code])
    x = DPReLU(name="two")(RPReLU(name="knee")(LearnedShift(name="shift")(x)))
    model = tf.keras.Model(image, x)
    for name in ("shift", "knee", "two"):
        set_random(model.get_layer(name))
    model.save(tmp_path / "m.keras")
    loaded = tf.keras.models.load_model(tmp_path / "m.keras", compile=False)
    value = np.random.default_rng(3).integers(0, 256, (2, 4, 4, 2)).astype(np.float32) / 128 - 1
    assert np.array_equal(loaded(value).numpy(), model(value).numpy())
    assert (loaded.get_layer("planes").bits, loaded.get_layer("code").levels) == (4, 6)
