# SPDX-License-Identifier: Apache-2.0
"""Choose the kernel variant for a shape on a target: the first in the registry that the target can run."""

from __future__ import annotations

from bnngen.errors import UsageError
from bnngen.lower.float_kernels import FLOAT_KERNELS
from bnngen.lower.kernels import KERNELS, Kernel, Variant
from bnngen.lower.shapes import Shape

MODES = ("auto", "ref")


def kernel_of(name: str) -> Kernel:
    """Return the kernel of that name, of either registry."""
    return KERNELS[name] if name in KERNELS else FLOAT_KERNELS[name]


def choose(kernel: str, shape: Shape, features: frozenset[str], mode: str) -> Variant:
    """Return the variant. mode: "auto", or "ref" for the reference everywhere."""
    if mode not in MODES:
        raise UsageError(f"unknown kernel selection {mode!r}", fix=f"use one of: {', '.join(MODES)}")
    variants = kernel_of(kernel).variants
    if mode == "ref":
        return variants[-1]
    return next(v for v in variants if v.features <= features and v.suits(shape))
