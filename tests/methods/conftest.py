# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of the methods."""

from __future__ import annotations

import numpy as np
import pytest

from tests.methods.data import make


@pytest.fixture(scope="session")
def stream() -> tuple[np.ndarray, np.ndarray]:
    """Features and labels, classes side by side."""
    return make(1)


@pytest.fixture(scope="session")
def unseen() -> tuple[np.ndarray, np.ndarray]:
    """Other samples of the same classes."""
    return make(2)
