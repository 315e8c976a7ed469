# SPDX-License-Identifier: Apache-2.0
"""What the learning runtime is generated from: options, parts, fixed-point constants, buffers.

Every constant is computed in exact rational arithmetic from the model's metadata (docs/numerics.md, section 5). The
NumPy twin (continual/twin.py) computes the same values on its own; nothing here is shared with it but the options.
"""

from bnngen.lower.learning.config import LearnConfig
from bnngen.lower.learning.heads import HEADS
from bnngen.lower.learning.memory import POLICIES
from bnngen.lower.learning.program import LearningProgram, learn_buffers, learning_constants

__all__ = ["HEADS", "POLICIES", "LearnConfig", "LearningProgram", "learn_buffers", "learning_constants"]
