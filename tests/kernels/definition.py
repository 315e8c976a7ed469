# SPDX-License-Identifier: Apache-2.0
"""What every kernel computes, in NumPy, from docs/numerics.md alone: no code of bnngen but the shape records.

Maps are int64 [H, W, C]; binary ones hold +1 and -1. Weights are [k_h, k_w, c_in / groups, c_out].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnngen.lower.shapes import HIGH, WIDE, ConvShape, PoolShape

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Affine:
    """mult and bias [channels]; the rest as in docs/numerics.md, "Affine".

    arithmetic HIGH: the accumulator is shifted left by `shift`, and the result is the sum's high word.
    """

    mult: Array
    bias: Array
    shift: int
    lo: int
    hi: int
    acc_lo: int
    acc_hi: int
    arithmetic: int = WIDE


def affine(acc: Array, a: Affine) -> Array:
    """Apply the rule element by element, in Python's unbounded integers."""
    out = np.empty(acc.shape, np.int64)
    for index in np.ndindex(acc.shape):
        x = min(max(int(acc[index]), a.acc_lo), a.acc_hi)
        left, right = (a.shift, 32) if a.arithmetic == HIGH else (0, a.shift)
        q = ((x << left) * int(a.mult[index[-1]]) + int(a.bias[index[-1]])) >> right
        out[index] = min(max(q, a.lo), a.hi)
    return out


def sign(acc: Array, level: Array) -> Array:
    """-1 where acc is below the level of its channel."""
    return np.where(acc < level, -1, 1)


def _input_position(s: ConvShape | PoolShape, y: int, x: int, ky: int, kx: int) -> tuple[int, int] | None:
    iy = y * s.stride_h - s.pad_top + ky * s.dilation_h
    ix = x * s.stride_w - s.pad_left + kx * s.dilation_w
    return (iy, ix) if 0 <= iy < s.in_h and 0 <= ix < s.in_w else None


def conv(s: ConvShape, x: Array, w: Array) -> Array:
    """Sum of products; a tap outside the image reads s.pad_value (0, or +1 for binary layers)."""
    acc = np.zeros((s.out_h, s.out_w, s.out_c), np.int64)
    outs, ins = s.out_c // s.groups, s.in_c // s.groups
    outside = np.full(s.in_c, s.pad_value, np.int64)
    for y, x_out, ky, kx in np.ndindex(s.out_h, s.out_w, s.k_h, s.k_w):
        position = _input_position(s, y, x_out, ky, kx)
        pixel = x[position] if position else outside
        for g in range(s.groups):
            channels = slice(g * outs, (g + 1) * outs)
            acc[y, x_out, channels] += pixel[g * ins : (g + 1) * ins] @ w[ky, kx, :, channels].astype(np.int64)
    return acc


def _pool_window(s: PoolShape, x: Array, y: int, x_out: int) -> Array:
    positions = [_input_position(s, y, x_out, ky, kx) for ky, kx in np.ndindex(s.k_h, s.k_w)]
    return np.array([x[p] for p in positions if p])


def max_pool(s: PoolShape, x: Array) -> Array:
    """Largest value inside the image; on bits that is +1 if there is one."""
    return np.array([[_pool_window(s, x, y, i).max(axis=0) for i in range(s.out_w)] for y in range(s.out_h)])


def sum_pool(s: PoolShape, x: Array) -> Array:
    """Sum over the window."""
    return np.array([[_pool_window(s, x, y, i).sum(axis=0) for i in range(s.out_w)] for y in range(s.out_h)])


def to_memory(values: Array, kind: str) -> bytes:
    """Lay a map out as the device does: "bits" packed, else the little-endian NumPy type named."""
    if kind != "bits":
        return values.astype(kind).tobytes()
    pixels = values.reshape(-1, values.shape[-1])
    out = bytearray()
    for pixel in pixels:
        for first in range(0, len(pixel), 32):
            word = sum(1 << bit for bit, v in enumerate(pixel[first : first + 32]) if v < 0)
            out += word.to_bytes(4, "little")
    return bytes(out)
