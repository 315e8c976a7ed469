# SPDX-License-Identifier: Apache-2.0
"""Kernels as Larq computes with them: the quantizer itself is called once, and its values decide what the layer is."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from larq.quantized_variable import QuantizedVariable

from bnngen.export.activations import function_name
from bnngen.export.site import Site

LATENT_STEPS = 127  # of a latent weight of 1.0

def kernel_values(site: Site, variable: Any, quantizer: Any, what: str = "kernel") -> np.ndarray:
    """Return the kernel that the layer computes with, float32: the quantizer's result on the latent weights.

    Raises ModelError for values that are not finite, and for a quantizer that changes the kernel's shape.
    """
    latent = site.weight(variable, what)
    if isinstance(variable, QuantizedVariable):
        quantizer = variable.quantizer if quantizer is None else quantizer
    if quantizer is None:
        return latent
    values = site.finite(quantizer(tf.constant(latent)), f"quantized {what}")
    if values.shape != latent.shape:
        raise site.error(
            f"quantizer {function_name(quantizer)} makes {list(values.shape)} of a kernel {list(latent.shape)}",
            fix="a kernel quantizer keeps the shape",
        )
    return values


def latent_steps(latent: np.ndarray, kernel: np.ndarray) -> np.ndarray | None:
    """Return latent weights in steps of 1/127, int8 of the same shape; None where the kernel is not of their signs.

    latent: what is trained; beyond -1 and 1 it is clipped, as the straight-through estimator passes nothing there.
    kernel: what the layer computes with. A negative weight is at most -1 step, so that each keeps its sign: 0 is +1.
    """
    if not ((latent < 0) == (kernel < 0)).all():
        return None
    steps = np.rint(np.clip(latent, -1, 1) * LATENT_STEPS).astype(np.int8)
    return np.where(latent < 0, np.minimum(steps, np.int8(-1)), steps)


def signs_and_scale(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Return (signs int8, scale [c_out]) of a kernel [..., c_out] whose values are +s[c] and -s[c]; otherwise None.

    A scale that is 1 everywhere is None. A channel of zeros has scale 0.
    """
    magnitude = np.abs(kernel).reshape(-1, kernel.shape[-1])
    scale = magnitude[0]
    if not (magnitude == scale).all():
        return None
    signs = np.where(kernel >= 0, np.int8(1), np.int8(-1))
    return signs, (None if (scale == 1).all() else scale.copy())
