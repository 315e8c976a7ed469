# SPDX-License-Identifier: Apache-2.0
"""A wheel, installed elsewhere, finds its templates, its C runtime and its targets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="the wheel is built by hatchling, from the extra dev")
ROOT = Path(__file__).resolve().parents[2]
LOOK = """
import sys
sys.path[:0] = [sys.argv[1]]
import bnngen
from bnngen import resources
from bnngen.targets import load_target, target_names
assert bnngen.__file__.startswith(sys.argv[1]), bnngen.__file__
for folder in (resources.templates(), resources.runtime(), resources.targets()):
    assert str(folder).startswith(sys.argv[1]) and folder.is_dir(), folder
print(sum(1 for path in resources.runtime().rglob("*") if path.is_file()))
print(sum(1 for path in resources.templates().rglob("*.j2")))
print(*[load_target(name).name for name in target_names()])
"""


def files(folder: str, pattern: str) -> int:
    return sum(1 for path in (ROOT / folder).rglob(pattern) if path.is_file())


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(wheels), str(ROOT)],
                   check=True, cwd=wheels)
    (wheel,) = wheels.glob("bnngen-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)], check=True)
    return site


def test_the_wheel_has_every_resource(installed):
    done = subprocess.run([sys.executable, "-c", LOOK, str(installed)], cwd=installed, check=True, text=True,
                          capture_output=True, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
    runtime, templates, targets = done.stdout.split("\n")[:3]
    assert int(runtime) == files("runtime_c", "*")
    assert int(templates) == files("templates", "*.j2")
    assert targets.split() == sorted(path.stem for path in (ROOT / "targets").glob("*.toml"))


def test_the_wheel_carries_the_package_alone(installed):
    names = {path.name for path in installed.iterdir()}
    assert "tests" not in names
    record = next(installed.glob("bnngen-*.dist-info/RECORD")).read_text(encoding="utf-8")
    assert str(ROOT) not in record
    assert "bnngen/_resources/runtime_c/include/bnn/port.h" in record


def test_the_command_is_installed(installed):
    entry = next(installed.glob("bnngen-*.dist-info/entry_points.txt")).read_text(encoding="utf-8")
    assert "bnngen = bnngen.cli:main" in entry
