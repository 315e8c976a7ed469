# SPDX-License-Identifier: Apache-2.0
"""Run the Makefile of a generated project, and say what came out."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from bnngen.device.size import Contributor, largest_objects
from bnngen.device.toolchain import TAIL_LINES, build_tools, find_tool, last_lines, run_tool
from bnngen.errors import BudgetError, ToolError
from bnngen.targets import Target

OVERFLOW = re.compile(r"region `(\w+)' overflowed by (\d+) bytes")
OVER_BUDGET = re.compile(r"(RAM|flash): more than the (\d+) bytes of this target")


@dataclass(frozen=True)
class BuildResult:
    """A compiled project. programs: file name suffix ("", "_uart.elf", ...) -> the file."""

    directory: Path
    model: str
    target: Target
    programs: dict[str, Path]
    seconds: float
    log: str

    def program(self, io: str = "") -> Path:
        """Return the program with that stream: "uart" or "semihosting"; the only one where there is one."""
        suffix = f"_{io}.elf" if f"_{io}.elf" in self.programs else next(iter(self.programs))
        return self.programs[suffix]


def model_name(directory: Path) -> str:
    """Return the C name of the model in a generated project, from its manifest."""
    manifest = directory / "manifest.json"
    try:
        return str(json.loads(manifest.read_text(encoding="utf-8"))["model"])
    except (OSError, ValueError, KeyError) as error:
        raise ToolError(f"{directory} is not a generated project", where=str(manifest),
                        why=f"its manifest cannot be read: {error}", fix="bnngen build writes one") from error


def open_build(directory: Path, target: Target) -> BuildResult:
    """Return the programs that an earlier build left. ToolError: one of them is missing."""
    model = model_name(directory)
    programs = {suffix: directory / f"{model}{suffix}" for suffix, _ in target.port_files.programs}
    for path in programs.values():
        if not path.is_file():
            raise ToolError(f"{path.name} has not been built", where=str(directory),
                            fix=f"bnngen build --target {target.name}")
    return BuildResult(directory, model, target, programs, 0.0, "")


def build_project(directory: Path, target: Target, jobs: int | None = None) -> BuildResult:
    """Compile a generated project with its own Makefile.

    ToolError: a tool is missing, or the compiler refuses (with its output). BudgetError: the linker says
    that the program does not fit.
    """
    for tool in build_tools(target):
        find_tool(tool)
    start = time.monotonic()
    argv = ["make", "--no-print-directory", "-C", str(directory), f"-j{jobs or os.cpu_count() or 1}"]
    status, output = run_tool(argv)
    if status != 0:
        _raise_overflow(output, directory, target)
        raise ToolError("the C compiler refused the generated project",
                        where=str(directory), why=f"make ended with status {status}:\n{_complaint(output)}",
                        fix=f"delete {directory} and build again; if it is refused again, that is a defect of bnngen")
    built = open_build(directory, target)
    return BuildResult(directory, built.model, target, built.programs, time.monotonic() - start, output)


def _complaint(output: str) -> str:
    """Return what the compiler said from its first error on; the command lines before it help nobody."""
    lines = output.splitlines()
    first = next((number for number, line in enumerate(lines) if " error:" in line), len(lines))
    return "\n".join(lines[first:][:TAIL_LINES]) or last_lines(output)


def _raise_overflow(output: str, directory: Path, target: Target) -> None:
    """Turn the linker's words about space into a BudgetError with numbers."""
    excess = {name.lower().replace("ram", "RAM"): int(count) for name, count in OVERFLOW.findall(output)}
    limits = {kind: int(count) for kind, count in OVER_BUDGET.findall(output)}
    kinds = sorted(excess.keys() | limits.keys())
    if not kinds:
        return
    where = "; ".join(
        f"{kind}: {excess[kind]:,} bytes too many" if kind in excess
        else f"{kind}: more than the budget of {limits[kind]:,} bytes" for kind in kinds
    )
    raise BudgetError(f"the program does not fit {target.name}", where=where,
                      why=f"largest: {_contributors(largest_objects(directory))}",
                      fix="a smaller model, fewer replay or buffer samples, or a larger target")


def _contributors(items: list[Contributor]) -> str:
    return ", ".join(f"{item.name} {item.bytes:,} ({item.kind})" for item in items)
