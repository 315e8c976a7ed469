# SPDX-License-Identifier: Apache-2.0
"""Smooth functions as tables over the integers of their input (docs/numerics.md, "Tables")."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnngen import ir

Array = np.ndarray


TABLE_ENTRIES = 256  # of an int16 input, and one more at the end


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "swish": lambda x: x * _sigmoid(x),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "elu": lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x),
}


# Beyond these, below and above 0, a function is constant but for less than 2e-5, half a step of an output of +-1.
FLAT: dict[str, tuple[float, float]] = {
    "sigmoid": (11, 11),
    "tanh": (6, 6),
    "hard_sigmoid": (2.5, 2.5),
    "swish": (14, np.inf),
    "hard_swish": (3, np.inf),
    "elu": (11, np.inf),
}


def needed_reach(kind: str, lo: float, hi: float) -> float:
    """Return the largest absolute input between lo and hi where function `kind` is not flat yet."""
    below, above = FLAT[kind]
    return max(min(-lo, below), min(hi, above), 0.0)


def table(kind: str, source: ir.Tensor, out: ir.Tensor) -> Array:
    """Return the int entries of UNARY function `kind` from one stream tensor to another, one scale each."""
    places = np.arange(-128, 128) if source.dtype == ir.S8 else np.arange(-32768, 32769, 256)
    lo, hi = ir.TYPE_RANGE[out.dtype]
    values = FUNCTIONS[kind](places * source.uniform_scale) / out.uniform_scale
    return np.clip(np.rint(values), lo, hi).astype(np.int8 if out.dtype == ir.S8 else np.int16)
