# SPDX-License-Identifier: Apache-2.0
"""Compilers, emulators and flashing tools: find them, say how to install them, run them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bnngen.errors import ToolError
from bnngen.targets import Target

TAIL_LINES = 25
NO_HOST = ("Could not resolve hostname", "Connection refused", "Connection timed out", "No route to host")
NO_LOGIN = ("Permission denied", "Host key verification failed")
NO_PROGRAM = ("No such file or directory", "not found")
VERSION_TIMEOUT_S = 20


@dataclass(frozen=True)
class Tool:
    """A program that bnngen calls. `packages` are Debian's names; `pip` is set for a Python tool."""

    name: str
    purpose: str
    packages: tuple[str, ...]
    pip: str = ""

    def install_command(self) -> str:
        """Return the command line that installs it."""
        return f"pip install {self.pip}" if self.pip else apt_command(self.packages)


FLASH_PROGRAMS = {
    "st-flash": Tool("st-flash", "flashing by ST-Link", ("stlink-tools",)),
    "openocd": Tool("openocd", "flashing by any probe", ("openocd",)),
    "pyocd": Tool("pyocd", "flashing by CMSIS-DAP or ST-Link", (), pip="pyocd"),
    "gdb": Tool("gdb-multiarch", "loading over a gdb connection", ("gdb-multiarch",)),
    "ssh": Tool("ssh", "running on a Raspberry Pi", ("openssh-client",)),
    "scp": Tool("scp", "copying to a Raspberry Pi", ("openssh-client",)),
}
MAKE = Tool("make", "building generated projects", ("make",))


def apt_command(packages: Sequence[str]) -> str:
    """Return the Debian command that installs `packages`, with sudo where it is needed."""
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install -y --no-install-recommends {' '.join(packages)}"


def compiler(target: Target) -> Tool:
    """Return the target's C compiler as a tool."""
    return Tool(target.toolchain.cc, f"compiling for {target.name}", target.toolchain.packages)


def emulator(target: Target) -> Tool | None:
    """Return the target's emulator as a tool, or None where it has none."""
    if target.emulator is None:
        return None
    return Tool(target.emulator.program, f"running {target.name} without a board", target.emulator.packages)


def build_tools(target: Target) -> list[Tool]:
    """Return everything that `build_project` needs for the target."""
    tools = [MAKE, compiler(target)]
    if target.toolchain.objcopy:
        tools.append(Tool(target.toolchain.objcopy, "raw images", target.toolchain.packages))
    return tools


def find_tool(tool: Tool) -> Path:
    """Return the path of an installed tool. ToolError: it is missing; says how to install it."""
    found = shutil.which(tool.name)
    if found is None:
        raise ToolError(f"{tool.name} is not installed", where="PATH", why=f"needed for {tool.purpose}",
                        fix=tool.install_command())
    return Path(found)


def tool_version(tool: Tool) -> str:
    """Return the first line that the tool says about its version; empty when it will not say."""
    found = shutil.which(tool.name)
    if found is None:
        return ""
    option = "-V" if tool.name == "ssh" else "--version"
    try:
        done = subprocess.run([found, option], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S,
                              stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[0] if lines and done.returncode == 0 else ""


def last_lines(text: str, count: int = TAIL_LINES) -> str:
    """Return the end of a tool's output, which is where tools say what went wrong."""
    return "\n".join(text.strip().splitlines()[-count:])


def ssh_advice(said: str) -> str:
    """Return what to do about a failure that ssh or scp reports; empty for one that is not theirs."""
    advice = ((NO_HOST, "name the machine with --host user@machine, and see that it is on"),
              (NO_LOGIN, "ssh once by hand, then ssh-copy-id, so that nothing is asked"),
              (NO_PROGRAM, "copy the program there first: bnngen flash"))
    return next((fix for texts, fix in advice if any(text in said for text in texts)), "")


def run_tool(argv: Sequence[str], *, cwd: Path | None = None, timeout_s: float = 600) -> tuple[int, str]:
    """Run a program to its end. Returns (exit status, stdout and stderr together).

    ToolError: it could not be started, or did not end in time.
    """
    plain = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run(list(argv), cwd=cwd, env=plain, timeout=timeout_s, check=False,
                              errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{argv[0]} did not finish within {timeout_s:.0f} s", where=" ".join(argv)) from error
    except OSError as error:
        raise ToolError(f"{argv[0]} could not be started: {error.strerror}", where=" ".join(argv)) from error
    return done.returncode, done.stdout
