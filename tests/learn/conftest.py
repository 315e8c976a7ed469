# SPDX-License-Identifier: Apache-2.0
"""The harness on the host, built once, with the address and undefined-behaviour sanitizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.learn.script import HERE, Call, Case, build, program_lines, twin_lines

SANITIZE = ["gcc", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
Check = Callable[[Case, Sequence[Call]], list[list[str]]]


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The harness for the host."""
    return build(tmp_path_factory.mktemp("learn") / "harness", SANITIZE, [HERE / "main_host.c"])


@pytest.fixture()
def check(harness: Path, tmp_path: Path) -> Check:
    """Run calls on the C learner and on the twin, compare after each; return the lines, split in words."""

    def run(case: Case, calls: Sequence[Call]) -> list[list[str]]:
        script = tmp_path / "script.bin"
        script.write_bytes(case.encode(calls))
        lines, wanted = program_lines([str(harness), str(script)]), twin_lines(case, calls)
        assert len(lines) == len(calls)
        for number, (line, want) in enumerate(zip(lines, wanted, strict=True)):
            assert line == want, f"call {number}, {calls[number][0]}, seed {case.seed}, {case.config}"
        return [line.split() for line in lines]

    return run
