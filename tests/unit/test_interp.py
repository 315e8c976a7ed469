# SPDX-License-Identifier: Apache-2.0
"""The interpreter against plain loops, and its view of memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bnngen import interp, ir


def loop_convolution(x, weights, window, groups, fill):
    """A convolution nobody can get wrong: one product after the other."""
    n, height, width, _ = x.shape
    k_h, k_w, group_in, c_out = weights.shape
    out_h, out_w = window.output_size(height, width)
    out = np.zeros((n, out_h, out_w, c_out))
    for b, y, xx, o in itertools.product(range(n), range(out_h), range(out_w), range(c_out)):
        first = o // (c_out // groups) * group_in
        for i, j, c in itertools.product(range(k_h), range(k_w), range(group_in)):
            row = y * window.stride[0] - window.pads[0] + i * window.dilation[0]
            col = xx * window.stride[1] - window.pads[1] + j * window.dilation[1]
            inside = 0 <= row < height and 0 <= col < width
            out[b, y, xx, o] += (x[b, row, col, first + c] if inside else fill) * weights[i, j, c, o]
    return out


@pytest.mark.parametrize(
    ("window", "groups", "fill"),
    [
        (ir.Window((3, 3), (1, 1), (1, 1, 1, 1)), 1, 1),
        (ir.Window((3, 3), (2, 2), (0, 0, 1, 1)), 1, 0),
        (ir.Window((2, 3), (2, 1), (0, 1, 1, 1), (1, 2)), 2, 1),
        (ir.Window((1, 1)), 4, 0),
        (ir.Window((5, 4), (3, 3), (2, 2, 2, 2)), 1, -1),
    ],
)
def test_convolution_equals_the_loop(window, groups, fill):
    rng = np.random.default_rng(5)
    x = rng.integers(-9, 10, (2, 7, 6, 4)).astype(np.float64)
    weights = rng.integers(-9, 10, (*window.kernel, 4 // groups, 8)).astype(np.float64)
    got = interp.convolve(x, weights, window, groups, fill)
    np.testing.assert_array_equal(got, loop_convolution(x, weights, window, groups, fill))


def test_sign_of_zero_and_minus_zero_is_plus_one():
    node = ir.Sign("s", ("x",), "y")
    out = ir.Tensor("y", (3,), ir.BITS)
    got = interp.apply(node, [np.array([[0.0, -0.0, -1e-45]], np.float32)], out)
    assert got.tolist() == [[1, 1, -1]]


def test_affine_rounds_ties_up_and_floors_negatives():
    rule = ir.Affine(np.array([1]), np.array([2]), 2, -128, 127)  # acc / 4, rounded
    got = interp.affine(np.array([[2], [-2], [-6], [6], [-7], [5]]), rule)[:, 0]
    assert got.tolist() == [1, 0, -1, 2, -2, 1]


def test_affine_saturates_and_clamps_before_and_after():
    rule = ir.Affine(np.array([100]), np.array([-50]), 0, -128, 127, acc_lo=0)
    assert interp.affine(np.array([[-5], [0], [1], [9]]), rule)[:, 0].tolist() == [-50, -50, 50, 127]


def test_maximum_ignores_the_outside():
    node = ir.MaxPool("m", ("x",), "y", ir.Window((2, 2), (1, 1), (0, 0, 1, 1)))
    x = np.full((1, 2, 2, 1), -7, np.int16)
    got = interp.apply(node, [x], ir.Tensor("y", (2, 2, 1), ir.S16))
    assert got.min() == got.max() == -7


@pytest.mark.parametrize("channels", [1, 31, 32, 33, 64])
def test_packed_bits(channels):
    rng = np.random.default_rng(channels)
    value = rng.choice(np.array([-1, 1], np.int8), (2, 3, channels))
    words = np.frombuffer(interp.to_bytes(value, ir.BITS), "<u4").reshape(2, 3, -1)
    assert words.shape[-1] == -(-channels // 32)
    for c in range(words.shape[-1] * 32):
        bit = (words[..., c // 32] >> (c % 32)) & 1
        want = value[..., c] < 0 if c < channels else np.zeros((2, 3), bool)
        np.testing.assert_array_equal(bit, want)


def test_integers_are_little_endian():
    assert interp.to_bytes(np.array([1, -2]), ir.S16) == b"\x01\x00\xfe\xff"
    assert interp.to_bytes(np.array([-1]), ir.S32) == b"\xff\xff\xff\xff"
