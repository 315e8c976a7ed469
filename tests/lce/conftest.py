# SPDX-License-Identifier: Apache-2.0
"""larq-compute-engine, an engine that nobody here wrote, and how it is asked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.peers import ROOT, need_peers, peer_environment

TIMEOUT_S = 900


@pytest.fixture(scope="session")
def engine() -> Callable[..., None]:
    """A function that runs tests/lce/engine.py with its arguments."""
    need_peers("larq_compute_engine")

    def run(*arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "tests.lce.engine", *arguments],
            cwd=ROOT,
            env=peer_environment(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]

    return run
