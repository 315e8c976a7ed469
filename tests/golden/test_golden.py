# SPDX-License-Identifier: Apache-2.0
"""The generated C of a tiny model is byte-equal to the files beside this test.

`BNNGEN_BLESS=1 python -m pytest tests/golden` writes them anew; review the difference as C.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bnngen.emit.render import render_files
from bnngen.lower import lower
from bnngen.plan import make_plan
from bnngen.targets import load_target
from tests.golden import tiny

HERE = Path(__file__).resolve().parent


def generated(target: str) -> dict[str, str]:
    graph, latent = tiny.small()
    facts = load_target(target)
    program = lower(graph, frozenset(facts.features), "auto", latent)
    return render_files(program, make_plan(program), None, facts)


@pytest.mark.parametrize("target", ["host", "rpi4", "stm32f405"])
def test_generated_files_are_the_reviewed_ones(target):
    folder = HERE / target
    files = {name: text for name, text in generated(target).items() if name.startswith(("small", "plan"))}
    if os.environ.get("BNNGEN_BLESS"):
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    for name, text in files.items():
        assert (folder / name).read_text(encoding="utf-8") == text, f"{target}/{name}: bless it if it is right"


def test_generation_is_deterministic():
    assert generated("host") == generated("host")
