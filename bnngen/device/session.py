# SPDX-License-Identifier: Apache-2.0
"""From a built project to a client that speaks with it: choose how to run, start it, say hello."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from bnngen.device import emulate
from bnngen.device.client import TIMEOUT_S, DeviceClient
from bnngen.device.compile import BuildResult
from bnngen.device.transport import Process, Transport, open_pipe, open_serial, open_socket
from bnngen.errors import TargetError
from bnngen.targets import Target

METHODS = ("native", "qemu-user", "qemu-system", "qemu-uart", "ssh", "serial")


@dataclass(frozen=True)
class Where:
    """How to run. method: one of METHODS, None for the target's own; host: for ssh; port: serial line."""

    method: str | None = None
    host: str | None = None
    port: str | None = None


class Folder:
    """A temporary folder with the close() that a transport expects of what it owns."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bnngen-")
        self.path = Path(self._folder.name)

    def close(self) -> None:
        self._folder.cleanup()


def _open_emulated_uart(built: BuildResult) -> Transport:
    folder = Folder()
    line = folder.path / "uart"
    argv = emulate.machine_command(built.target, *emulate.uart_options(line),
                                   *emulate.kernel_option(built.program("uart")))
    name = f"{built.target.emulator.program}, UART"
    transport = open_socket(line, name, Process(argv, pipes=False))
    transport.own(folder)
    return transport


def _require(value: str | None, method: str, option: str) -> str:
    if value:
        return value
    raise TargetError(f"running by {method} needs {option}", fix=f"give {option}")


def _check_method(target: Target, method: str) -> None:
    """Raise TargetError for a way to run that a target of this kind does not have."""
    board = ("qemu-system", "qemu-uart", "serial")
    linux = ("native", "qemu-user", "ssh", "serial")
    possible = [m for m in (board if target.port_files.memory_map else linux)
                if target.emulator is not None or not m.startswith("qemu")]
    if method in METHODS and method not in possible:
        raise TargetError(f"{target.name} does not run by {method}", where=f"--on {method}",
                          fix=f"leave --on out, or choose one of {', '.join(possible)}")


def open_transport(built: BuildResult, where: Where = Where()) -> Transport:
    """Start the program, or connect with a board where it runs already. ToolError, TargetError: why not."""
    target = built.target
    method = where.method or target.run.method
    _check_method(target, method)
    if method == "native":
        return open_pipe(emulate.native_command(built.program()), built.program().name)
    if method == "qemu-user":
        return open_pipe(emulate.user_emulator_command(target, built.program()), target.emulator.program)
    if method == "qemu-system":
        argv = emulate.machine_command(target, *emulate.semihosting_options(),
                                       *emulate.kernel_option(built.program("semihosting")))
        return open_pipe(argv, f"{target.emulator.program}, semihosting")
    if method == "qemu-uart":
        return _open_emulated_uart(built)
    if method == "ssh":
        host = _require(where.host or (target.flash.host if target.flash else None), method, "--host")
        return open_pipe(emulate.ssh_command(host, built.program()), f"ssh {host}")
    if method == "serial":
        return open_serial(_require(where.port, method, "--port"), target.port.uart_baud)
    raise TargetError(f"there is no way to run called {method!r}", fix=f"choose one of {', '.join(METHODS)}")


def connect(built: BuildResult, where: Where = Where(), timeout_s: float = TIMEOUT_S) -> DeviceClient:
    """Run a built project and return a client of it; use it in a `with` statement."""
    return DeviceClient(open_transport(built, where), timeout_s)
