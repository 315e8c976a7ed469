# SPDX-License-Identifier: Apache-2.0
"""A small stream of features for the tests of the methods, and their memory counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnngen.continual.methods import MethodSetting, Tuning
from bnngen.lower.learning import LearnConfig

CLASSES, SIZE, PER_CLASS = 5, 16, 60
CONFIG = LearnConfig(capacity=CLASSES, replay=40, buffer=60, batch=32, epochs=6, lr=0.1)
COUNTERS = 4 * CLASSES
ROWS = 4 * CLASSES * SIZE
ONE_SAMPLE = 4 * (CLASSES + SIZE)
TRIANGLE = 4 * (SIZE * (SIZE + 1) // 2)
SIZES = (
    ("nearest-mean", {"class sums": ROWS, "samples seen": COUNTERS}, {"one sample": ONE_SAMPLE}),
    (
        "slda",
        {"class sums": ROWS, "samples seen": COUNTERS, "products": TRIANGLE},
        {"one sample": ONE_SAMPLE, "discriminant rows": ROWS},
    ),
    (
        "ridge",  # 24 projections
        {"class sums": 4 * CLASSES * 24, "samples seen": COUNTERS, "products": 4 * 24 * 25 // 2},
        {"one sample": 4 * (CLASSES + 24), "discriminant rows": 4 * CLASSES * 24},
    ),
)


def make(seed: int, classes: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Return non-negative features [N, SIZE], with correlated noise, and labels: classes side by side."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(99).uniform(0.5, 2.5, (classes, SIZE))
    mix = np.random.default_rng(98).normal(0, 0.15, (SIZE, SIZE))
    y = np.repeat(np.arange(classes), PER_CLASS)
    x = means[y] + rng.normal(0, 1, (len(y), SIZE)) @ mix + rng.normal(0, 0.3, (len(y), SIZE))
    return np.maximum(x, 0).astype(np.float32), y


def setting(tuning: Tuning | None = None, **config: object) -> MethodSetting:
    """Return the setting of the tests; keywords change LearnConfig."""
    known = make(7, 12)
    return MethodSetting(CLASSES, SIZE, *known, config=replace(CONFIG, **config), tuning=tuning or Tuning())
