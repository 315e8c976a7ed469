# SPDX-License-Identifier: Apache-2.0
"""Spellings beyond tf2onnx's, each in a small file: what is recognised, and that its scores are the original's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from bnngen.export.foreign import open_foreign
from tests.foreign.hand_made import Hand
from tests.foreign.route import assert_same, translate
from tests.foreign.test_qonnx import written


def binary(hand: Hand, x: str, **options: object) -> str:
    """A convolution with weights +-s on x, behind it a batch norm."""
    weights = hand.signs(16, 16, 3, 3, scale=hand.rng.uniform(0.1, 2, (16, 1, 1, 1)))
    return hand.norm(hand.op("Conv", x, weights, **{"pads": [1, 1, 1, 1], **options}), 16)


def compared(kind: str, reverse: bool = False):
    """Where(x kind c, 1, -1), operands swapped on demand."""

    def make(h: Hand) -> str:
        level = h.constant(h.rng.normal(0, 0.3, (16, 1, 1)))
        x = h.stem()
        return h.op("Where", h.op(kind, *((level, x) if reverse else (x, level))), h.constant(1.0), h.constant(-1.0))

    return make


def from_cast(h: Hand) -> str:
    """2 * (x >= 0) - 1."""
    bit = h.op("Cast", h.op("GreaterOrEqual", h.stem(), h.constant(0.0)), to=1)
    return h.op("Sub", h.op("Mul", bit, h.constant(2.0)), h.constant(1.0))


def scaled(h: Hand) -> str:
    """A sign with a scale, a pool behind it."""
    x = h.op("Mul", h.sign(h.stem()), h.constant(0.75))
    return h.op("MaxPool", x, kernel_shape=[2, 2], strides=[1, 1])


SIGNS = {
    "larq": lambda h: h.sign(h.stem()),
    "ge": compared("GreaterOrEqual"),
    "gt": compared("Greater"),
    "le": compared("LessOrEqual"),
    "lt": compared("Less"),
    "swapped": compared("Less", reverse=True),
    "cast": from_cast,
    "scaled": scaled,
}


@pytest.mark.parametrize("name", SIGNS)
def test_signs(tmp_path, name):
    hand = Hand()
    made = translate(hand.save(tmp_path / "other.onnx", hand.head(binary(hand, SIGNS[name](hand)), 16)))
    assert_same(made)
    assert made.operators["Sign"] == made.operators["BinaryConv2D"] == 1


@pytest.mark.parametrize("kind", ["GreaterOrEqual", "Greater", "LessOrEqual", "Less"])
def test_equality_in_a_comparison_goes_to_the_side_that_the_operator_says(tmp_path, kind):
    hand = Hand((1, 2, 2))
    test = hand.op("Where", hand.op(kind, "x", hand.constant(0.5)), hand.constant(3.0), hand.constant(-1.0))
    path = hand.save(tmp_path / "other.onnx", hand.op("Gemm", hand.op("Flatten", test), hand.constant(np.eye(4))))
    half, up, down = np.float32([0.5, 1, 0])
    images = np.float32([half, np.nextafter(half, up), np.nextafter(half, down), -0.5])
    images = images.reshape(1, 2, 2, 1)
    source = open_foreign(path)
    expected = np.concatenate(list(source.run(images)))
    assert set(expected.ravel()) == {3, -1}
    np.testing.assert_array_equal(written(source, images), expected)


def pads(value: float, before: bool):
    """Explicit padding of 1 on all sides with `value`, in front of the sign or behind it."""

    def make(h: Hand) -> str:
        amounts, fill = h.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), h.constant(value)
        x = h.stem()
        return h.sign(h.op("Pad", x, amounts, fill)) if before else h.op("Pad", h.sign(x), amounts, fill)

    return make


@pytest.mark.parametrize(
    ("value", "before", "fill"), [(1.0, False, 1.0), (0.0, False, 0.0), (0.0, True, 1.0), (2.0, True, 1.0)]
)
def test_padding(tmp_path, value, before, fill):
    hand = Hand()
    x = binary(hand, pads(value, before)(hand), pads=[0, 0, 0, 0])
    path = hand.save(tmp_path / "other.onnx", hand.head(x, 16))
    assert_same(translate(path))
    (node,) = (n for n in open_foreign(path).graph.builder.nodes if n.op_type == "BinaryConv2D")
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert given["pad_value"] == fill and list(given["pads"]) == [1, 1, 1, 1]


def asymmetric(h: Hand) -> str:
    x = h.op("Conv", h.sign(h.stem()), h.signs(16, 16, 3, 3), pads=[0, 1, 1, 0], strides=[2, 2], dilations=[1, 1])
    return h.head(h.norm(x, 16), 16)


def same_upper(h: Hand) -> str:
    x = h.op("Conv", h.sign(h.stem()), h.signs(16, 16, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
    x = h.op("MaxPool", h.norm(x, 16), kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_LOWER")
    return h.head(x, 16)


def ceil_pool(h: Hand) -> str:
    x = h.op("MaxPool", h.stem(), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    return h.head(binary(h, h.sign(x)), 16)


def grouped_binary(h: Hand) -> str:
    x = h.op("Conv", h.sign(h.stem()), h.signs(32, 4, 3, 3), group=4)
    x = h.op("Conv", h.sign(h.norm(x, 32)), h.signs(32, 1, 3, 3), group=32)
    return h.head(h.norm(x, 32), 32)


def real_weights_on_bits(h: Hand) -> str:
    x = h.op("Conv", h.sign(h.stem()), h.weights(16, 16, 3, 3), pads=[1, 1, 1, 1])
    return h.head(h.norm(x, 16), 16)


def zero_scale(h: Hand) -> str:
    """A batch norm with a gamma of 0, folded: all weights of a channel are 0."""
    scale = h.rng.uniform(0.5, 1, (16, 1, 1, 1))
    scale[3] = 0
    x = h.op("Conv", h.sign(h.stem()), h.signs(16, 16, 3, 3, scale=scale), h.weights(16))
    return h.head(x, 16)


def flattened_channels_first(h: Hand) -> str:
    """PyTorch's order of a flattened map, into a binary dense layer, and a batch norm over all elements."""
    x = h.op("MaxPool", h.stem(8), kernel_shape=[5, 5], strides=[5, 5])
    flat = h.op("Flatten", x)
    y = h.op("MatMul", h.sign(flat), h.signs(32, 12, scale=0.5))
    z = h.op("Gemm", h.norm(flat, 32), h.weights(4, 32), transB=1)
    return h.op("Add", z, h.op("MatMul", h.norm(y, 12), h.weights(12, 4)))


def channel_moves(h: Hand) -> str:
    """Slice, Gather, Concat, Split of channels."""
    x = h.stem()
    bounds = [h.constant(v, np.int64) for v in ([4], [12], [1])]
    part = h.op("Slice", x, *bounds)
    mixed = h.op("Gather", x, h.constant([3, 0, 15, -1, 7, 7, 2, 9], np.int64), axis=1)
    x = h.op("Concat", part, mixed, axis=1)
    return h.head(binary(h, h.sign(x)), 16)


def shuffled(h: Hand) -> str:
    """Channel shuffle: cut in groups, exchanged, joined; of bits, and of real values with channels last."""
    x = h.sign(h.stem())
    x = h.op("Transpose", h.op("Reshape", x, h.constant([-1, 4, 4, 10, 10], np.int64)), perm=[0, 2, 1, 3, 4])
    x = h.op("Reshape", x, h.constant([-1, 16, 10, 10], np.int64))
    x = h.op("Conv", x, h.signs(16, 8, 3, 3), group=2)
    x = h.op("Reshape", h.op("Transpose", x, perm=[0, 2, 3, 1]), h.constant([0, 8, 8, 2, 8], np.int64))
    x = h.op("Reshape", h.op("Transpose", x, perm=[0, 1, 2, 4, 3]), h.constant([-1, 8, 8, 16], np.int64))
    return h.head(binary(h, h.sign(h.norm(h.op("Transpose", x, perm=[0, 3, 1, 2]), 16))), 16)


def functions(h: Hand) -> str:
    x = h.op("PRelu", h.stem(), h.weights(16, 1, 1))
    x = h.op("Clip", h.op("HardSwish", x), h.constant(-1.0), h.constant(2.0))
    x = h.op("HardSigmoid", h.op("Max", x, h.op("Mul", x, h.constant(0.25))), alpha=0.3, beta=0.4)
    y = h.op("Div", h.op("Sub", h.constant(1.0), x), h.constant(0.5))
    return h.head(h.op("Mul", h.op("Sigmoid", y), y), 16)


def reduced(h: Hand) -> str:
    x = h.op("ReduceMean", binary(h, h.sign(h.stem())), axes=[2, 3], keepdims=0)
    return h.op("LogSoftmax", h.op("MatMul", x, h.weights(16, 4)), axis=1)


def channels_last(h: Hand) -> str:
    """Transposes between the sign and its convolution, and around a product over the channels of each pixel."""
    x = h.op("Transpose", h.stem(), perm=[0, 2, 3, 1])
    x = h.op("Transpose", h.sign(h.op("Add", x, h.weights(16))), perm=[0, 3, 1, 2])
    x = h.op("Transpose", binary(h, x), perm=[0, 2, 3, 1])
    x = h.op("Transpose", h.op("MatMul", x, h.weights(16, 8)), perm=[0, 3, 1, 2])
    return h.head(x, 8)


WHOLE = (asymmetric, same_upper, ceil_pool, grouped_binary, real_weights_on_bits, zero_scale, flattened_channels_first,
         channel_moves, shuffled, functions, reduced, channels_last)


@pytest.mark.parametrize("make", WHOLE, ids=[make.__name__ for make in WHOLE])
def test_networks(tmp_path, make):
    hand = Hand()
    assert_same(translate(hand.save(tmp_path / "other.onnx", make(hand))))


def test_a_plain_sign_keeps_its_zero(tmp_path):
    hand = Hand((1, 2, 2))
    flat = hand.op("Flatten", hand.op("Sign", "x"))
    path = hand.save(tmp_path / "other.onnx", hand.op("Gemm", flat, hand.constant(np.eye(4))))
    images = np.float32([-0.5, -0.0, 0.0, 0.25]).reshape(1, 2, 2, 1)
    source = open_foreign(path)
    np.testing.assert_array_equal(written(source, images), [[-1, 0, 0, 1]])
    np.testing.assert_array_equal(np.concatenate(list(source.run(images))), [[-1, 0, 0, 1]])


@pytest.mark.parametrize("least", [-3, -2, 0, 1])
def test_k_bits_of_any_range_ties_included(tmp_path, least):
    """Round(Clip(x * 4, least, 3)) / 4 over multiples of an eighth: every second is a tie."""
    hand = Hand((1, 4, 8))
    x = hand.op("Clip", hand.op("Mul", "x", hand.constant(4.0)), hand.constant(float(least)), hand.constant(3.0))
    x = hand.op("Div", hand.op("Round", x), hand.constant(4.0))
    path = hand.save(tmp_path / "other.onnx", hand.op("Gemm", hand.op("Flatten", x), hand.constant(np.eye(32))))
    images = (np.arange(-16, 16).reshape(1, 4, 8, 1) / 8).astype(np.float32)
    source = open_foreign(path)
    expected = np.concatenate(list(source.run(images)))
    assert len(set(expected.ravel())) == 4 - least
    np.testing.assert_allclose(written(source, images), expected, atol=1e-6)


def test_a_fixed_batch_is_filled(tmp_path):
    hand = Hand()
    path = hand.save(tmp_path / "other.onnx", hand.head(binary(hand, hand.sign(hand.stem())), 16), batch=4)
    assert_same(translate(path))
