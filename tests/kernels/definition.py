# SPDX-License-Identifier: Apache-2.0
"""What every kernel computes, in NumPy, from docs/numerics.md alone: no code of bnngen but the shape records.

Maps are int64 [H, W, C]; binary ones hold +1 and -1. Weights are [k_h, k_w, c_in / groups, c_out].
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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


def pool_counts(s: PoolShape) -> Array:
    """Positions of each window inside the image, [out_h, out_w, 1]."""
    ones = np.ones((s.in_h, s.in_w, 1), np.int64)
    return sum_pool(s, ones)


def piecewise(x: Array, knot: Array, both: Affine) -> Array:
    """`both` has the rules below the knot, then those from it on."""
    c = len(knot)
    below, above = (replace(both, mult=both.mult[half], bias=both.bias[half]) for half in (slice(c), slice(c, None)))
    return np.where(x < knot, affine(x, below), affine(x, above))


def steps(x: Array, level: Array, down: Array, first: int) -> Array:
    """Count the cuts passed, one element after the other."""
    out = np.empty(x.shape, np.int64)
    for index in np.ndindex(x.shape):
        value, c = x[index], index[-1]
        out[index] = first + sum(bool(value < cut if down[c] else value >= cut) for cut in level[c])
    return out


def lookup(x: Array, table: Array) -> Array:
    """256 entries: one for each int8. 257: the line between two entries, rounded to nearest, ties up."""
    if len(table) == 256:
        return table[x + 128]
    out = np.empty(x.shape, np.int64)
    for index in np.ndindex(x.shape):
        i, f = divmod(int(x[index]) + 32768, 256)
        left, right = int(table[i]), int(table[i + 1])
        out[index] = left + ((right - left) * f + 128) // 256
    return out


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
