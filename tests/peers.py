# SPDX-License-Identifier: Apache-2.0
"""The folder of packages that bnngen is compared with (tests/peers.txt), and what to do where it is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(sys.prefix) / "peers"
ENGINE_TIMEOUT_S = 900


def need_peers(package: str) -> Path:
    """Return the folder. Skip without it; fail where the environment variable CI is set: nothing is missing there."""
    if not (FOLDER / package).is_dir():
        why = f"{package} is not installed in {FOLDER} (make install-test)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    return FOLDER


def peer_environment() -> dict[str, str]:
    """Return the environment of a process that finds the packages, and this checkout, beside its own."""
    path = os.pathsep.join([str(ROOT), str(FOLDER)])
    return os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore", "TF_CPP_MIN_LOG_LEVEL": "3"}


def ask_engine(*arguments: str) -> None:
    """Run tests/lce/engine.py, larq-compute-engine in a process of its own, with its arguments."""
    need_peers("larq_compute_engine")
    done = subprocess.run(
        [sys.executable, "-m", "tests.lce.engine", *arguments],
        cwd=ROOT,
        env=peer_environment(),
        capture_output=True,
        text=True,
        timeout=ENGINE_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
