# SPDX-License-Identifier: Apache-2.0
"""The architecture as a test: who may import whom (docs/design.md), and which package stays where."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "bnngen"

MAY_IMPORT = {  # part of bnngen -> the parts it may import; everyone may import errors
    "errors": set(),
    "ir": set(),
    "resources": set(),
    "interp": {"ir"},
    "frontend": {"ir"},
    "passes": {"ir"},
    "ports": set(),
    "targets": {"ports", "resources"},
    "data": set(),
    "lower": {"ir", "passes", "targets"},
    "plan": {"lower"},
    "emit": {"plan", "lower", "targets", "ir", "resources"},
    "analysis": {"ir", "pipeline"},
    "learning_memory": {"analysis", "ir", "lower", "pipeline", "plan", "targets"},
    "pipeline": {"frontend", "passes", "lower", "plan", "emit", "targets", "ir"},
    "continual": {"ir", "interp", "passes", "data", "lower"},
    "session": {"continual"},
    "simulate": {"continual", "data", "device", "lower", "pipeline", "plan", "session", "targets"},
    "validate": {"ir", "interp"},
    "layer_errors": {"ir", "interp"},
    "device": {"targets", "resources"},
    "report": set(),
    "export": {"data", "ir", "frontend", "train"},
    "train": {"data"},
    "cli": {
        "analysis", "continual", "data", "device", "export", "interp", "ir", "layer_errors", "learning_memory", "lower",
        "pipeline",
        "plan", "report", "session", "simulate", "targets", "train", "validate", "frontend", "passes", "resources",
    },
}  # fmt: skip

ONLY_IN = {  # package from outside -> the only parts that may import it
    "tensorflow": {"train", "export"},
    "keras": set(),
    "larq": {"train", "export"},
    "onnx": {"export", "frontend"},
    "onnxruntime": {"export"},
    "jinja2": {"emit"},
    "subprocess": {"device"},
    "sklearn": {"data"},
    "matplotlib": {"report"},
    "click": {"cli"},
    "rich": {"cli"},
    "serial": {"device"},
    "elftools": {"device"},
}


def part_of(path: Path, root: Path) -> str:
    """The name of the module or package directly below bnngen."""
    return path.relative_to(root).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def violations(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob("*.py")):
        here = part_of(path, root)
        if here == "__init__":
            continue
        for name in imported(path):
            top, *rest = name.split(".")
            if top == "bnngen" and rest and rest[0] != "__version__":
                if rest[0] not in MAY_IMPORT[here] | {here, "errors"}:
                    yield f"{path.relative_to(root)}: {here} must not import {name}"
            elif here not in ONLY_IN.get(top, {here}):
                yield f"{path.relative_to(root)}: {here} must not import {top}"


def test_the_arrows_hold():
    assert list(violations(ROOT)) == []


def test_every_part_is_described():
    parts = {part_of(p, ROOT) for p in ROOT.rglob("*.py")} - {"__init__"}
    assert parts == set(MAY_IMPORT)


@pytest.mark.parametrize("line", ["import tensorflow", "from bnngen.cli import main", "import subprocess"])
def test_the_rule_can_fail(tmp_path, line):
    (tmp_path / "ir.py").write_text(line + "\n", encoding="utf-8")
    assert list(violations(tmp_path))


def test_only_the_command_line_prints():
    for path in sorted(ROOT.rglob("*.py")):
        if part_of(path, ROOT) == "cli":
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
        names = {n.func.id for n in calls if isinstance(n.func, ast.Name)}
        assert "print" not in names, path


def test_the_runtime_knows_nothing_of_python_or_the_heap():
    runtime = ROOT.parent / "runtime_c"
    allowed = {"stdint.h", "stddef.h", "string.h", "arm_neon.h", "unistd.h", "errno.h"}
    for path in sorted([*runtime.rglob("*.c"), *runtime.rglob("*.h")]):
        text = path.read_text(encoding="utf-8")
        for word in ("malloc(", "free(", "printf(", "alloca("):
            assert word not in text, f"{path}: {word}"
        for line in text.splitlines():
            if line.startswith("#include <"):
                assert line.split("<")[1].split(">")[0] in allowed, f"{path}: {line}"


def test_every_source_file_names_its_licence():
    top = ROOT.parent
    for folder in ("bnngen", "runtime_c", "templates", "tests", "targets"):
        for path in sorted((top / folder).rglob("*")):
            if path.suffix in (".py", ".c", ".h", ".j2", ".toml", ".S") and path.stat().st_size:
                head = path.read_text(encoding="utf-8")[:300]
                assert "SPDX-License-Identifier: Apache-2.0" in head, path
