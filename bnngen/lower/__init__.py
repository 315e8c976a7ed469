# SPDX-License-Identifier: Apache-2.0
"""Integer graph -> Program: kernel selection, packing, overflow proofs."""

from bnngen.lower.lowering import lower
from bnngen.lower.program import Program

__all__ = ["Program", "lower"]
