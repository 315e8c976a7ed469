# SPDX-License-Identifier: Apache-2.0
"""Signs to words, and the weight orders that kernels ask for (docs/numerics.md, "Bits")."""

from __future__ import annotations

import numpy as np

from bnngen.ir import Array
from bnngen.lower.shapes import words


def pack_bits(signs: Array) -> Array:
    """Pack +1/-1 along the last axis: [..., C] -> uint32 [..., words]. Bit 1 is -1, unused bits are 0."""
    channels = signs.shape[-1]
    bits = np.zeros((*signs.shape[:-1], words(channels) * 32), np.uint8)
    bits[..., :channels] = signs < 0
    as_bytes = np.packbits(bits, axis=-1, bitorder="little")
    return np.ascontiguousarray(as_bytes).view("<u4")


def filters_first(weights: Array) -> Array:
    """[k_h, k_w, c_in, c_out] -> [c_out, k_h, k_w, c_in]; [c_in, c_out] -> [c_out, c_in]."""
    return np.ascontiguousarray(np.moveaxis(weights, -1, 0))


def filters_of_16(weights: Array) -> Array:
    """The order of conv2d_gather: int8 [c_out][size], each filter filled up with zeros to a multiple of 16."""
    return _fill(filters_first(weights).reshape(weights.shape[-1], -1), 1, 16)


def taps_first(weights: Array) -> Array:
    """The order of conv2d_depthwise: [k_h, k_w, 1, c_out] as it stands, channels beside each other."""
    return np.ascontiguousarray(weights)


def binary_filters(weights: Array) -> Array:
    """+1/-1 [k_h, k_w, c_in, c_out] -> uint32 [c_out, k_h, k_w, words]: the order of bconv2d_ref."""
    return pack_bits(filters_first(weights))


def binary_quads(weights: Array) -> Array:
    """The order of bconv2d_neon: uint32 [c_out / 4][blocks][4 channels][4 words], filled up with zeros."""
    filters = binary_filters(weights).reshape(weights.shape[-1], -1)
    filters = _fill(filters, 4, 4)
    c_out, size = filters.shape
    return np.ascontiguousarray(filters.reshape(c_out // 4, 4, size // 4, 4).transpose(0, 2, 1, 3))


def octets(weights: Array) -> Array:
    """The order of conv2d_neon: int8 [c_out / 8][size][8 channels], filled up with zeros."""
    filters = _fill(filters_first(weights).reshape(weights.shape[-1], -1), 8, 4)
    c_out, size = filters.shape
    return np.ascontiguousarray(filters.reshape(c_out // 8, 8, size).transpose(0, 2, 1))


def smlad_quads(weights: Array) -> Array:
    """The order of conv2d_cm4: int8 [c_out / 4][size / 4][4 channels][4], filled up with zeros; in every four inputs
    the middle two are swapped."""
    filters = _fill(filters_first(weights).reshape(weights.shape[-1], -1), 4, 4)
    c_out, size = filters.shape
    quads = filters.reshape(c_out // 4, 4, size // 4, 4)[..., [0, 2, 1, 3]]
    return np.ascontiguousarray(quads.transpose(0, 2, 1, 3))


def round_up(value: int, step: int) -> int:
    """Return the smallest multiple of `step` that is not below `value`."""
    return -(-value // step) * step


def _fill(matrix: Array, rows: int, columns: int) -> Array:
    """Append zero rows and columns up to multiples of `rows` and `columns`."""
    height, width = matrix.shape
    return np.pad(matrix, ((0, round_up(height, rows) - height), (0, round_up(width, columns) - width)))
