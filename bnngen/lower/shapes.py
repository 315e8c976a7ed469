# SPDX-License-Identifier: Apache-2.0
"""The shape structs of runtime_c/include/bnn/kernel.h, field for field and in the same order.

tests/unit/test_lower.py reads the header and compares.
"""

from __future__ import annotations

from dataclasses import dataclass

from bnngen import ir

TYPE_CODE = {ir.BITS: 0, ir.S8: 1, ir.S16: 2, ir.FLOAT: 4}  # BNN_BITS, BNN_S8, BNN_S16, BNN_F32
KERNEL_PREFIX = {0: "b", 4: "float_"}  # of kernels that there are for packed, integer and real maps
WIDE, NARROW, HIGH = 0, 1, 2  # BNN_WIDE, BNN_NARROW, BNN_HIGH: how an affine is computed
ARITHMETIC_MACRO = {WIDE: "BNN_WIDE", NARROW: "BNN_NARROW", HIGH: "BNN_HIGH"}
TYPE_MACRO = {0: "BNN_BITS", 1: "BNN_S8", 2: "BNN_S16", 4: "BNN_F32"}


def words(channels: int) -> int:
    """Return the number of 32-bit words that hold `channels` bits."""
    return -(-channels // 32)


@dataclass(frozen=True)
class ConvShape:
    in_h: int
    in_w: int
    in_c: int
    out_h: int
    out_w: int
    out_c: int
    k_h: int
    k_w: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_left: int
    dilation_h: int
    dilation_w: int
    groups: int
    pad_value: int
    in_type: int
    out_type: int
    arithmetic: int = 0

    C_NAME = "bnn_conv_shape"

    @property
    def rows(self) -> int:
        return self.out_h


@dataclass(frozen=True)
class PoolShape:
    in_h: int
    in_w: int
    channels: int
    out_h: int
    out_w: int
    k_h: int
    k_w: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_left: int
    dilation_h: int
    dilation_w: int
    denominator: int
    in_type: int
    out_type: int
    arithmetic: int = 0

    C_NAME = "bnn_pool_shape"

    @property
    def rows(self) -> int:
        return self.out_h


@dataclass(frozen=True)
class MapShape:
    rows: int
    width: int
    channels: int
    in_type: int
    out_type: int
    arithmetic: int = 0

    C_NAME = "bnn_map_shape"


@dataclass(frozen=True)
class MulShape:
    rows: int
    width: int
    channels: int
    a_type: int
    b_type: int
    broadcast: int
    out_type: int
    arithmetic: int = 0

    C_NAME = "bnn_mul_shape"


@dataclass(frozen=True)
class MoveShape:
    rows: int
    width: int
    in_c: int
    out_c: int
    inputs: int
    in_type: int

    C_NAME = "bnn_move_shape"


@dataclass(frozen=True)
class DenseShape:
    in_c: int
    out_c: int
    in_type: int
    arithmetic: int = 0

    C_NAME = "bnn_dense_shape"

    @property
    def rows(self) -> int:
        return self.out_c


Shape = ConvShape | PoolShape | MapShape | MulShape | MoveShape | DenseShape
