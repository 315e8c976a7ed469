# SPDX-License-Identifier: Apache-2.0
"""larq_zoo, from its folder beside the other packages."""

from __future__ import annotations

import sys

import pytest

from tests.peers import need_peers


@pytest.fixture(scope="session", autouse=True)
def larq_zoo():
    """Let this process find larq_zoo. Its folder comes last: it shadows nothing."""
    folder = str(need_peers("larq_zoo"))
    sys.path.append(folder)
    yield
    sys.path.remove(folder)
