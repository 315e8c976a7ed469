# SPDX-License-Identifier: Apache-2.0
"""The tiny model, built once per target and test process."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

import pytest

from bnngen.device.compile import BuildResult, build_project
from bnngen.device.toolchain import build_tools, find_tool
from bnngen.errors import ToolError
from bnngen.targets import load_target
from tests.device import project


def need(*tools) -> None:
    """Skip, and say so in the summary, where a tool is missing; `make test` installs them all. Under CI: fail."""
    try:
        for tool in tools:
            find_tool(tool)
    except ToolError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(error.message)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], BuildResult]:
    """Return a function: name of a target -> the tiny model built for it."""

    @cache
    def build(name: str) -> BuildResult:
        target = load_target(name)
        need(*build_tools(target))
        return build_project(project.write_project(tmp_path_factory.mktemp(name), target), target)

    return build
