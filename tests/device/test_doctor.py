# SPDX-License-Identifier: Apache-2.0
"""The doctor sees what is there and what is not."""

from __future__ import annotations

from bnngen.device.doctor import examine
from bnngen.targets import load_target


def test_it_finds_the_compiler_with_its_version():
    found = {finding.name: finding for finding in examine([load_target("host")])}
    assert list(found) == ["make", "gcc"]
    assert "gcc" in found["gcc"].version
    assert "Make" in found["make"].version


def test_with_an_empty_path_everything_is_missing_and_can_be_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    findings = examine()
    assert {f.version for f in findings} == {""}
    commands = ("apt-get install", "sudo apt-get install", "pip install")
    assert all(finding.install.startswith(commands) for finding in findings)
    names = [finding.name for finding in findings]
    assert len(names) == len(set(names))
    assert {"qemu-aarch64", "qemu-system-arm", "arm-none-eabi-gcc", "openocd", "st-flash", "scp"} <= {*names}
