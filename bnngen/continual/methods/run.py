# SPDX-License-Identifier: Apache-2.0
"""One method over a stream of features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnngen.continual.methods.interface import Method
from bnngen.continual.metrics import History, history
from bnngen.continual.stream import Experience

Array = np.ndarray


def run_method(method: Method, experiences: Sequence[Experience], test: tuple[Array, Array]) -> History:
    """Learn the experiences (their `images` are features) one by one; return what was right after each."""
    predictions = []
    for experience in experiences:
        method.learn(experience.images, experience.labels)
        predictions.append(method.scores(test[0]).argmax(axis=1))
    return history([e.classes for e in experiences], test[1], predictions)
