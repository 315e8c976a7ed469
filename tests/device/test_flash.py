# SPDX-License-Identifier: Apache-2.0
"""Flashing: exact commands, real tools without a probe, and a real load into the emulated board."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from bnngen.device import flash as flashing
from bnngen.device.client import DeviceClient
from bnngen.device.flash import EmulatedBoard, FlashOptions, flash, flash_command, image_of
from bnngen.device.toolchain import FLASH_PROGRAMS, emulator, run_tool
from bnngen.errors import TargetError, ToolError
from bnngen.targets import load_target
from tests.device import project
from tests.device.conftest import need

STM32 = load_target("stm32f405")
ELF = Path("build/tiny-stm32f405/tiny_uart.elf")
GOLDEN = {
    "st-flash": ["st-flash", "--reset", "write", str(ELF), "0x08000000"],
    "openocd": ["openocd", "-f", "interface/stlink.cfg", "-f", "target/stm32f4x.cfg",
                "-c", "program {build/tiny-stm32f405/tiny_uart.elf} verify reset exit"],
    "pyocd": ["pyocd", "load", "--no-wait", "--target", "stm32f405rg", "--format", "elf", str(ELF)],
    "gdb": ["gdb-multiarch", "-batch", "-nx", "-ex", "set tcp connect-timeout 5", "-ex",
            "target extended-remote | exec qemu-system-arm -M netduinoplus2 -display none -S -gdb stdio",
            "-ex", "load", "-ex", "compare-sections", "-ex", "set $sp = *((unsigned *) &vectors)",
            "-ex", "set $pc = *((unsigned *) &vectors + 1) & ~1", "-ex", "detach", str(ELF)],
}  # fmt: skip


@pytest.mark.parametrize("tool", GOLDEN)
def test_argument_vectors(tool):
    assert flash_command(STM32, ELF, FlashOptions(tool, emulated=tool == "gdb")) == GOLDEN[tool]


def test_every_flash_tool_of_the_board_is_golden():
    assert set(STM32.flash.tools) == set(GOLDEN)


def test_scp_to_a_pi():
    options = FlashOptions(host="pi@10.0.0.7")
    assert flash_command(load_target("rpi4"), Path("build/tiny"), options) == [
        "scp", "-p", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "build/tiny", "pi@10.0.0.7:tiny"]


def test_st_flash_gets_the_raw_image(built):
    program = built("stm32f405")
    assert image_of(program, "st-flash").name == "tiny_uart.bin"
    assert image_of(program, "openocd").name == "tiny_uart.elf"


def test_a_target_that_is_not_flashed():
    with pytest.raises(TargetError, match="host is not flashed"):
        flash_command(load_target("host"), ELF)


def test_a_tool_that_the_board_does_not_know():
    with pytest.raises(TargetError, match="choose one of st-flash, openocd, pyocd, gdb"):
        flash_command(STM32, ELF, FlashOptions("ssh"))


def test_openocd_knows_the_configuration_and_the_flash_bank():
    need(FLASH_PROGRAMS["openocd"])
    files = [part for name in STM32.flash.openocd_config for part in ("-f", name)]
    listing = "noinit; foreach bank [flash list] {echo $bank}; shutdown"
    status, said = run_tool(["openocd", *files, "-c", listing], timeout_s=20)
    assert status == 0, said
    assert "name stm32f4x.flash driver stm32f2x" in said
    status, said = run_tool(["openocd", "-f", "board/nobody.cfg", "-c", "noinit; shutdown"], timeout_s=20)
    assert status != 0, said


@pytest.mark.parametrize("tool", ["st-flash", "openocd"])
def test_no_probe_is_said_in_so_many_words(built, tool):
    need(FLASH_PROGRAMS[tool])
    if any(Path("/sys/bus/usb/devices").glob("*/idVendor")):
        vendors = {path.read_text().strip() for path in Path("/sys/bus/usb/devices").glob("*/idVendor")}
        if "0483" in vendors:
            pytest.skip("something by ST is attached")
    with pytest.raises(ToolError, match="no debug probe was found") as caught:
        flash(STM32, image_of(built("stm32f405"), tool), FlashOptions(tool))
    assert caught.value.where.startswith(tool)
    assert {"st-flash": "Couldn't find any ST-Link", "openocd": "open failed"}[tool] in caught.value.why
    assert "lsusb" in caught.value.fix


def test_no_gdb_server(built, tmp_path):
    need(FLASH_PROGRAMS["gdb"])
    options = FlashOptions("gdb", server=str(tmp_path / "nobody"))
    with pytest.raises(ToolError, match="there is no gdb server"):
        flash(STM32, image_of(built("stm32f405"), "gdb"), options)


def test_no_such_host(built):
    need(FLASH_PROGRAMS["scp"])
    with pytest.raises(ToolError, match="nobody.invalid cannot be reached") as caught:
        flash(load_target("rpi4"), image_of(built("rpi4"), "ssh"), FlashOptions(host="nobody.invalid"))
    assert "--host" in caught.value.fix


def test_missing_tool(built, monkeypatch, tmp_path):
    image = image_of(built("stm32f405"), "openocd")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="openocd is not installed") as caught:
        flash(STM32, image, FlashOptions("openocd"))
    assert caught.value.fix.endswith("openocd")


def test_missing_image(tmp_path):
    need(FLASH_PROGRAMS["openocd"])
    with pytest.raises(ToolError, match="has not been built"):
        flash(STM32, tmp_path / "none.elf", FlashOptions("openocd"))


def test_gdb_flashes_the_emulated_board_and_the_program_runs(built):
    """The path of a real board: empty flash, load by gdb, read back, start, talk over the UART."""
    need(FLASH_PROGRAMS["gdb"], emulator(STM32))
    with EmulatedBoard(STM32) as board:
        said = board.flash(image_of(built("stm32f405"), "gdb"))
        assert ".isr_vector, range 0x8000000" in said
        device = DeviceClient(board.transport)
        assert device.facts.model_hash == project.HASH
        for image in project.images(3):
            assert np.array_equal(device.infer(image), project.scores(image))


def test_gdb_powers_on_an_emulated_board_when_it_is_told_to(built):
    need(FLASH_PROGRAMS["gdb"], emulator(STM32))
    image = image_of(built("stm32f405"), "gdb")
    said = flash(STM32, image, FlashOptions(emulated=True))
    assert f"the emulated board runs model {project.HASH}: 3 classes" in said
    status, said = run_tool(flash_command(STM32, image, FlashOptions("gdb", emulated=True)), timeout_s=30)  # as printed
    flashing._judge("gdb", [], status, said)


@pytest.mark.parametrize("options", [
    FlashOptions("gdb"), FlashOptions("gdb", server="localhost:3333", emulated=True),
    FlashOptions("st-flash", server="localhost:3333"), FlashOptions("openocd", emulated=True),
])  # fmt: skip
def test_gdb_is_told_what_it_writes_to(options):
    """An emulated board never stands in for a real one unasked."""
    with pytest.raises(TargetError, match="--server ADDRESS") as caught:
        flash_command(STM32, ELF, options)
    assert "--emulated" in caught.value.fix


def test_gdb_connects_with_a_server_that_is_named():
    argv = flash_command(STM32, ELF, FlashOptions("gdb", server="localhost:4242"))
    assert "target extended-remote localhost:4242" in argv


def test_an_emulated_board_that_was_not_flashed_does_not_answer():
    need(emulator(STM32))
    with EmulatedBoard(STM32) as board, pytest.raises(ToolError, match="does not answer|has ended"):
        DeviceClient(board.transport, timeout_s=0.5)


@pytest.mark.parametrize("said", [
    "Section .isr_vector, range 0x8000000 -- 0x8000040: matched.\n"
    "Section .text, range 0x8000040 -- 0x8001130: MIS-MATCHED!\n",
    "Section .isr_vector, range 0x8000000 -- 0x8000040: matched.\n",
    "",
])  # fmt: skip
def test_gdb_is_not_believed_without_every_section(said):
    with pytest.raises(ToolError, match="differs from what was written"):
        flashing._judge("gdb", ["gdb-multiarch"], 0, said)


def test_compare_sections_notices_a_changed_byte(built, tmp_path):
    """A program that was altered after loading is reported by the same gdb command."""
    need(FLASH_PROGRAMS["gdb"], emulator(STM32))
    image = image_of(built("stm32f405"), "gdb")
    with EmulatedBoard(STM32) as board:
        argv = flash_command(STM32, image, FlashOptions("gdb", server=board.server))
        place = argv.index("compare-sections") - 1
        argv[place:place] = ["-ex", "set {char} 0x08000101 = ~*(char *) 0x08000101"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        with pytest.raises(ToolError, match="differs from what was written"):
            flashing._judge("gdb", argv, done.returncode, done.stdout + done.stderr)
