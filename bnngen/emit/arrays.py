# SPDX-License-Identifier: Apache-2.0
"""Const arrays as C text: few long lines, hexadecimal for bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnngen.lower.program import Const

C_TYPE = {"int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "int64": "int64_t", "uint32": "uint32_t"}
LINE = 118


@dataclass(frozen=True)
class ArrayView:
    """A const array: `lines` are its initialisers."""

    ctype: str
    name: str
    size: int
    shape: str
    lines: tuple[str, ...]


def array_view(prefix: str, const: Const) -> ArrayView:
    """Format one constant."""
    flat = const.values.reshape(-1)
    ctype = C_TYPE[const.values.dtype.name]
    dims = "[" + "][".join(str(n) for n in const.values.shape) + "]"
    return ArrayView(ctype, f"{prefix}_{const.name}", flat.size, dims, tuple(_lines(flat)))


def _lines(flat: np.ndarray) -> list[str]:
    items = [_literal(int(value), flat.dtype.name) for value in flat]
    lines, line = [], ""
    for item in items:
        if line and len(line) + len(item) + 2 > LINE:
            lines.append(line + ",")
            line = ""
        line += (", " if line else "") + item
    return [*lines, line + ","] if line else lines


def _literal(value: int, dtype: str) -> str:
    if dtype == "uint32":
        return f"0x{value:08X}u"
    if dtype == "int64":
        return "INT64_MIN" if value == -(2**63) else f"INT64_C({value})" if abs(value) >= 2**31 else str(value)
    return "INT32_MIN" if value == -(2**31) else str(value)
