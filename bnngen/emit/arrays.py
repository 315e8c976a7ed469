# SPDX-License-Identifier: Apache-2.0
"""Const arrays as C text: few long lines, numbers where people read them, 64-bit words where only compilers do.

What a compiler spends on an initialiser hardly depends on the size of its element: a megabyte of int8 weights takes
gcc 12 2.6 s as numbers, 1.0 s as 32-bit words, 0.4 s as 64-bit words. String literals would do too, but C99 promises no
more than 4095 characters of one. Every target is little-endian, so the words hold the array's bytes in order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnngen.lower.program import Const

C_TYPE = {
    "int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "int64": "int64_t", "uint32": "uint32_t",
    "float32": "float",
}  # fmt: skip
LINE = 118
AS_WORDS = ("int8", "uint32", "float32")  # weights; kernels read them through a pointer to void
WORDS_FROM = 1024  # bytes: smaller arrays stay readable
WORD_BYTES, WORDS_PER_LINE = 8, 5


@dataclass(frozen=True)
class ArrayView:
    """A const array: `lines` are its initialisers; shape: what it holds."""

    ctype: str
    name: str
    size: int
    shape: str
    lines: tuple[str, ...]


def array_view(prefix: str, const: Const) -> ArrayView:
    """Format one constant."""
    flat = const.values.reshape(-1)
    ctype, name = C_TYPE[const.values.dtype.name], f"{prefix}_{const.name}"
    dims = "[" + "][".join(str(n) for n in const.values.shape) + "]"
    if flat.dtype.name in AS_WORDS and flat.nbytes >= WORDS_FROM:
        words = _words(flat)
        return ArrayView("uint64_t", name, len(words), f"{ctype} {dims} as 64-bit words", tuple(_word_lines(words)))
    return ArrayView(ctype, name, flat.size, dims, tuple(_lines(flat)))


def _words(flat: np.ndarray) -> list[str]:
    """The array's bytes, filled up with zeros, as hexadecimal digits of 64-bit words."""
    data = flat.astype(flat.dtype.newbyteorder("<"), copy=False).tobytes()
    padded = np.frombuffer(data + bytes(-len(data) % WORD_BYTES), "<u8")
    digits = padded.astype(">u8").tobytes().hex().upper()
    size = 2 * WORD_BYTES
    return [digits[at : at + size] for at in range(0, len(digits), size)]


def _word_lines(words: list[str]) -> list[str]:
    literals = [f"0x{digits}u" for digits in words]
    return [", ".join(literals[at : at + WORDS_PER_LINE]) + "," for at in range(0, len(literals), WORDS_PER_LINE)]


def _lines(flat: np.ndarray) -> list[str]:
    dtype = flat.dtype.name
    lines, line = [], ""
    for value in flat.tolist():
        item = _literal(value, dtype)
        if line and len(line) + len(item) + 2 > LINE:
            lines.append(line + ",")
            line = ""
        line += (", " if line else "") + item
    return [*lines, line + ","] if line else lines


def _literal(value: float, dtype: str) -> str:
    if dtype == "float32":  # nine digits tell every float from its neighbours
        digits = f"{value:.9g}"
        return f"{digits}f" if "." in digits or "e" in digits else f"{digits}.0f"
    if dtype == "uint32":
        return f"0x{value:08X}u"
    if dtype == "int64":
        return "INT64_MIN" if value == -(2**63) else f"INT64_C({value})" if abs(value) >= 2**31 else str(value)
    return "INT32_MIN" if value == -(2**31) else str(value)
