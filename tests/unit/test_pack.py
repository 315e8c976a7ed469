# SPDX-License-Identifier: Apache-2.0
"""Bits into words, and the weight orders of the kernels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnngen.lower import pack


def unpack_bits(packed: np.ndarray, channels: int) -> np.ndarray:
    """Undo `pack_bits`: uint32 [..., words] -> int8 +1/-1 [..., channels]."""
    as_bytes = np.ascontiguousarray(packed.astype("<u4")).view(np.uint8)
    bits = np.unpackbits(as_bytes, axis=-1, bitorder="little")[..., :channels]
    return (1 - 2 * bits.astype(np.int8)).astype(np.int8)


@given(st.integers(1, 140), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_packing_is_undone_by_unpacking(channels, seed):
    signs = np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), (2, 3, channels))
    packed = pack.pack_bits(signs)
    assert packed.shape == (2, 3, -(-channels // 32)) and packed.dtype == np.uint32
    np.testing.assert_array_equal(unpack_bits(packed, channels), signs)


def test_channel_c_is_bit_c_mod_32_of_word_c_div_32():
    signs = np.ones(40, np.int8)
    signs[[0, 31, 33]] = -1
    assert pack.pack_bits(signs).tolist() == [0x80000001, 0x2]


@pytest.mark.parametrize("channels", [1, 31, 33, 127])
def test_unused_bits_are_zero(channels):
    packed = pack.pack_bits(np.full(channels, -1, np.int8))
    assert sum(int(word).bit_count() for word in packed) == channels


def test_binary_filters_stand_one_after_the_other():
    w = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), (3, 2, 33, 5))
    packed = pack.binary_filters(w)
    assert packed.shape == (5, 3, 2, 2)
    np.testing.assert_array_equal(unpack_bits(packed[4, 2, 1], 33), w[2, 1, :, 4])


def test_quads_interleave_blocks_of_four_channels():
    w = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), (3, 3, 33, 6))
    filters = pack.binary_filters(w).reshape(6, 18)
    quads = pack.binary_quads(w)
    assert quads.shape == (2, 5, 4, 4)  # 18 words are 5 blocks of 4; 6 channels are 2 groups of 4
    np.testing.assert_array_equal(quads[1, 2, 1], filters[5, 8:12])
    assert quads[1, :, 2:].max() == 0 and quads[:, 4, :, 2:].max() == 0


def test_octets_put_eight_channels_beside_each_other():
    w = np.arange(2 * 9, dtype=np.int8).reshape(1, 1, 2, 9)
    octets = pack.octets(w)
    assert octets.shape == (2, 4, 8)
    assert octets[0, 1].tolist() == w[0, 0, 1, :8].tolist()
    assert octets[1, 0].tolist() == [8, 0, 0, 0, 0, 0, 0, 0] and octets[:, 2:].max() == 0


def test_filters_of_16_are_filled_with_zeros():
    w = np.arange(1, 2 * 9 + 1, dtype=np.int8).reshape(3, 3, 1, 2)
    filters = pack.filters_of_16(w)
    assert filters.shape == (2, 16) and filters.dtype == np.int8
    assert filters[1].tolist() == [*range(2, 19, 2)] + [0] * 7


def test_taps_first_puts_the_channels_of_a_tap_beside_each_other():
    w = np.arange(2 * 3 * 5, dtype=np.int8).reshape(3, 2, 5, 1).transpose(0, 1, 3, 2)
    taps = pack.taps_first(w)
    assert taps.flags.c_contiguous and taps.reshape(3, 2, 5)[1, 0].tolist() == [10, 11, 12, 13, 14]


def test_smlad_quads_swap_the_middle_inputs():
    w = np.arange(5 * 3, dtype=np.int8).reshape(1, 1, 5, 3)
    quads = pack.smlad_quads(w)
    assert quads.shape == (1, 2, 4, 4)
    assert quads[0, 0].tolist() == [[0, 6, 3, 9], [1, 7, 4, 10], [2, 8, 5, 11], [0, 0, 0, 0]]
    assert quads[0, 1].tolist() == [[12, 0, 0, 0], [13, 0, 0, 0], [14, 0, 0, 0], [0, 0, 0, 0]]
