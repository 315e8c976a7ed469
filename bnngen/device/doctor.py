# SPDX-License-Identifier: Apache-2.0
"""Which tools are installed, and the command that installs each that is not."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from bnngen.device.toolchain import FLASH_PROGRAMS, Tool, build_tools, emulator, tool_version
from bnngen.targets import Target, load_target, target_names


@dataclass(frozen=True)
class Finding:
    """One row of `bnngen doctor`. version: empty when the tool is missing; install: the command to run."""

    name: str
    purpose: str
    version: str
    install: str


def tools_for(target: Target) -> list[Tool]:
    """Return every tool that the target can make use of: build, run, flash."""
    tools = build_tools(target)
    machine = emulator(target)
    if machine:
        tools.append(machine)
    for name in target.flash.tools if target.flash else ():
        tools += [FLASH_PROGRAMS["ssh"], FLASH_PROGRAMS["scp"]] if name == "ssh" else [FLASH_PROGRAMS[name]]
    return tools


def examine(targets: Sequence[Target] | None = None) -> list[Finding]:
    """Look for the tools of the given targets (None: of all), each once, in the order of need."""
    if targets is None:
        targets = [load_target(name) for name in target_names()]
    findings: dict[str, Finding] = {}
    for target in targets:
        for tool in tools_for(target):
            if tool.name not in findings:
                found = shutil.which(tool.name)
                version = (tool_version(tool) or "found") if found else ""
                findings[tool.name] = Finding(tool.name, tool.purpose, version, tool.install_command())
    return list(findings.values())
