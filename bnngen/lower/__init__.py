# SPDX-License-Identifier: Apache-2.0
"""Integer graph -> Program: kernel selection, packing, overflow proofs. Float graph -> Program: the reference."""

from bnngen.lower.float32 import SCORE_STEP, lower_float32
from bnngen.lower.lowering import lower
from bnngen.lower.program import Program

__all__ = ["SCORE_STEP", "Program", "lower", "lower_float32"]
