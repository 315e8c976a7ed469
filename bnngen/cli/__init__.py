# SPDX-License-Identifier: Apache-2.0
"""The command line: arguments, messages, exit codes. Nothing outside this package prints.

This module imports next to nothing: `main` is there at once, and says also what goes wrong while the rest is imported.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

PACKAGES = {  # modules that bnngen needs -> what pip calls them (pyproject.toml)
    "click": "click", "elftools": "pyelftools", "jinja2": "jinja2", "matplotlib": "matplotlib", "numpy": "numpy",
    "onnx": "onnx", "PIL": "pillow", "rich": "rich", "serial": "pyserial", "sklearn": "scikit-learn",
}  # fmt: skip
STOPPED = 130  # 128 + SIGINT, what a shell gives


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the process ends with the error's exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        with _quiet_start():
            from bnngen.cli.commands import run
        run(arguments)
    except ModuleNotFoundError as error:
        missing = [name for name in PACKAGES if not _is_there(name)]
        if "--debug" in arguments or not missing:
            raise
        print(_not_installed(missing, error.name), file=sys.stderr)  # rich may be among them
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nbnngen: stopped", file=sys.stderr)
        sys.exit(STOPPED)


@contextmanager
def _quiet_start() -> Iterator[None]:
    """While nothing has been done yet, let Ctrl-C end the process at once.

    As an exception it would be lost in the callbacks of the import machinery, or printed there.
    """
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_usual or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        os.write(2, b"\nbnngen: stopped\n")
        os._exit(STOPPED)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # a module without a specification: one that is loaded is there
        return sys.modules.get(name) is not None


def _not_installed(missing: list[str], wanted: str | None) -> str:
    names = [PACKAGES[name] for name in missing]
    verb = "is" if len(names) == 1 else "are"
    where = f"\n  where  import {wanted}" if wanted else ""
    return (
        f"bnngen: error: {', '.join(names)} {verb} not installed{where}\n"
        f"  why    bnngen needs {'it' if len(names) == 1 else 'them'} for every command\n"
        f"  fix    python -m pip install {' '.join(names)}"
    )
