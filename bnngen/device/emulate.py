# SPDX-License-Identifier: Apache-2.0
"""Command lines that run a program: here, in an emulator, or on another machine."""

from __future__ import annotations

from pathlib import Path

from bnngen.device.toolchain import FLASH_PROGRAMS, emulator, find_tool
from bnngen.errors import TargetError
from bnngen.targets import Target

SSH_OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10")


def _emulator_path(target: Target) -> str:
    tool = emulator(target)
    if tool is None:
        raise TargetError(f"{target.name} has no emulator", where=f"--target {target.name}",
                          fix="run it on the board: --on serial or --on ssh")
    return str(find_tool(tool))


def native_command(program: Path) -> list[str]:
    """Return the command of a program for this machine."""
    return [str(program.resolve())]


def user_emulator_command(target: Target, program: Path) -> list[str]:
    """Return the command that runs a Linux program of another instruction set."""
    return [_emulator_path(target), *target.emulator.args, str(program.resolve())]


def machine_command(target: Target, *extra: str) -> list[str]:
    """Return the command that starts the emulated board, with nothing on its console but `extra`.

    -no-reboot ends the emulator where a board would start again.
    """
    quiet = ["-display", "none", "-monitor", "none", "-no-reboot"]
    return [_emulator_path(target), *target.emulator.args, *quiet, *extra]


def semihosting_options() -> list[str]:
    """Connect the emulator's own standard input and output with the program."""
    return ["-serial", "none", "-semihosting-config", "enable=on,target=native"]


def uart_options(socket: Path) -> list[str]:
    """Connect the first UART with a Unix socket that the emulator opens."""
    return ["-chardev", f"socket,id=uart,path={socket},server=on,wait=off", "-serial", "chardev:uart"]


def gdb_options(socket: str) -> list[str]:
    """Power on halted, with a gdb server on a Unix socket."""
    return ["-S", "-chardev", f"socket,id=gdb,path={socket},server=on,wait=off", "-gdb", "chardev:gdb"]


def kernel_option(program: Path) -> list[str]:
    """Put a program into the emulated flash before the start."""
    return ["-kernel", str(program.resolve())]


def ssh_command(host: str, program: Path) -> list[str]:
    """Return the command that runs a program which `flash` has copied into the home directory of `host`."""
    return [str(find_tool(FLASH_PROGRAMS["ssh"])), *SSH_OPTIONS, host, f"./{program.name}"]
