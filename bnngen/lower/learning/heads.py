# SPDX-License-Identifier: Apache-2.0
"""The heads by name: what `--head` takes, and the part that each one is generated from."""

from __future__ import annotations

from collections.abc import Callable

from bnngen.lower.learning.analytic import analytic_head
from bnngen.lower.learning.config import Part, Sizes
from bnngen.lower.learning.gradient import float_head, gradient_head

HEADS: dict[str, Callable[[Sizes], Part]] = {
    "cwr": gradient_head,
    "cwr+": gradient_head,
    "sgd": gradient_head,
    "mean": analytic_head,
    "lda": analytic_head,
    "ridge": analytic_head,
    "float32": float_head,
}
