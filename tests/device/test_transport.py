# SPDX-License-Identifier: Apache-2.0
"""What is said when a program cannot be started or reached, and that it says what to do."""

from __future__ import annotations

import pytest

from bnngen.device.compile import BuildResult
from bnngen.device.session import Where, connect
from bnngen.device.toolchain import FLASH_PROGRAMS, ssh_advice
from bnngen.device.transport import DeviceError, open_pipe
from bnngen.errors import TargetError
from bnngen.targets import load_target
from tests.device.conftest import need


def test_a_program_for_another_processor(tmp_path):
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF of another machine")
    program.chmod(0o755)
    with pytest.raises(DeviceError, match="could not be started") as caught:
        open_pipe([str(program)], "here")
    assert "another processor" in caught.value.why and "leave --on out" in caught.value.fix


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(DeviceError, match="could not be started") as caught:
        open_pipe([str(tmp_path / "none")], "here")
    assert "bnngen build" in caught.value.fix


@pytest.mark.parametrize(("target", "method"), [
    ("rpi4", "qemu-system"), ("rpi4", "qemu-uart"), ("stm32f405", "qemu-user"), ("stm32f405", "ssh"),
    ("host", "qemu-user"), ("host", "qemu-system"), ("stm32f405", "native"),
])  # fmt: skip
def test_a_way_to_run_that_the_target_does_not_have(target, method, tmp_path):
    built = BuildResult(tmp_path, "m", load_target(target), {"": tmp_path / "m"}, 0.0, "")
    with pytest.raises(TargetError, match=f"does not run by {method}") as caught:
        connect(built, Where(method, host="pi@nobody.invalid"))
    assert "leave --on out" in caught.value.fix


def test_a_machine_that_cannot_be_reached(tmp_path):
    need(FLASH_PROGRAMS["ssh"])
    built = BuildResult(tmp_path, "m", load_target("rpi4"), {"": tmp_path / "m"}, 0.0, "")
    with pytest.raises(DeviceError, match="has ended") as caught:
        connect(built, Where("ssh", host="nobody.invalid"))
    assert "Could not resolve" in caught.value.why and "--host" in caught.value.fix


@pytest.mark.parametrize(("said", "fix"), [
    ("pi@pi: Permission denied (publickey).", "ssh-copy-id"),
    ("ssh: connect to host pi port 22: Connection refused", "--host"),
    ("bash: line 1: ./m: No such file or directory", "bnngen flash"),
    ("all is well", ""),
])  # fmt: skip
def test_ssh_is_understood(said, fix):
    assert fix in ssh_advice(said) and bool(fix) == bool(ssh_advice(said))
