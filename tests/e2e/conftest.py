# SPDX-License-Identifier: Apache-2.0
"""The commands as a user runs them: a process, a folder, an exit status, what it printed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bnngen import resources
from bnngen.cli import main
from bnngen.device.doctor import examine
from bnngen.targets import load_target

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 600


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    status: int
    out: str
    err: str

    def refused(self, *words: str) -> None:
        """Check that it ended as a user's mistake should: a status, the words, what to do, no traceback."""
        assert self.status not in (0, 70), self.out + self.err
        assert "Traceback" not in self.err + self.out, self.err
        for word in ("bnngen: error:", "fix", *words):
            assert word in self.err, f"{word!r} is missing in:\n{self.err}"


class Shell:
    """Runs `bnngen` in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str, **environment: str) -> Ran:
        env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"} | environment
        argv = [sys.executable, "-m", "bnngen.cli", *arguments]
        done = subprocess.run(
            argv, cwd=self.folder, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def good(self, *arguments: str) -> str:
        """Run a command that must succeed and return its output."""
        ran = self(*arguments)
        assert ran.status == 0, ran.out + ran.err
        return ran.out


def in_process(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Return a `bnngen` that runs in this process and folder: no start-up of seconds, for tests of many commands."""

    def run(*arguments: str) -> Ran:
        status = 0
        try:
            main(list(arguments))
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capsys.readouterr()
        return Ran(status, said.out, said.err)

    return run


def good(ran: Ran) -> str:
    """Return what a command printed that must have succeeded."""
    assert ran.status == 0, ran.out + ran.err
    return ran.out


@pytest.fixture
def bnngen(tmp_path: Path) -> Shell:
    """A shell in an empty folder."""
    return Shell(tmp_path)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A folder where `train` (the shipped model of the digits 0 to 4) and `export` have run."""
    pytest.importorskip("larq", reason="needs the extra bnngen[train]")
    folder = tmp_path_factory.mktemp("digits")
    for path in resources.checkpoints().glob("quicknet-nano-digits04.*"):
        shutil.copy(path, folder / f"model{path.name.removeprefix('quicknet-nano-digits04')}")
    shell = Shell(folder)
    shell.good("export", "model")
    return shell


def need_tools(*targets: str) -> None:
    """Skip where a compiler or an emulator is not installed; `make test` installs all of them.

    Under the environment variable CI, where nothing may be missing unnoticed, the test fails instead.
    """
    optional = ("pyocd", "ssh", "scp", "st-flash", "openocd")
    missing = [f.name for f in examine([load_target(t) for t in targets]) if not f.version and f.name not in optional]
    if missing:
        absent(f"missing: {', '.join(missing)} (bnngen doctor)")


def absent(what: str) -> None:
    """Skip; fail where the environment variable CI is set."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)
