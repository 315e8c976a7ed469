# SPDX-License-Identifier: Apache-2.0
"""The tail's harness on the host, built once, with the address and undefined-behaviour sanitizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bnngen.lower.tail import TailSpec
from bnngen.lower.tail_constants import TailConfig
from tests.learn.conftest import SANITIZE
from tests.learn.script import program_lines
from tests.tail.script import PLATFORM, Call, build, encode, twin_lines

Check = Callable[[TailSpec, TailConfig, Sequence[Call]], list[str]]


@pytest.fixture(scope="session")
def tail_harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The harness for the host."""
    return build(tmp_path_factory.mktemp("tail") / "harness", SANITIZE, [PLATFORM / "main_host.c"])


@pytest.fixture()
def check(tail_harness: Path, tmp_path: Path) -> Check:
    """Run calls on the C tail and on the twin, compare after each; return the lines."""

    def run(spec: TailSpec, config: TailConfig, calls: Sequence[Call]) -> list[str]:
        script = tmp_path / "script.bin"
        script.write_bytes(encode(spec, config, calls, 5))
        lines, wanted = program_lines([str(tail_harness), str(script)]), twin_lines(spec, config, calls, 5)
        assert len(lines) == len(calls)
        for number, (line, want) in enumerate(zip(lines, wanted, strict=True)):
            assert line == want, f"call {number}, {calls[number][0]}"
        return lines

    return run
