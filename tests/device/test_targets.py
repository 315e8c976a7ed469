# SPDX-License-Identifier: Apache-2.0
"""Every target loads; every check can fail."""

from __future__ import annotations

import pytest

from bnngen import resources
from bnngen.errors import TargetError
from bnngen.targets import CHECKS, load_target, parse_target, target_names

GOOD = (resources.targets() / "stm32f405.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", target_names())
def test_every_target_loads_and_its_port_exists(name):
    target = load_target(name)
    view = target.make_view()
    for source in [*view["port_sources"], *(io for _, io in view["programs"])]:
        assert (resources.runtime() / source).is_file()
    assert (view["linker_script"] is None) == (target.memory_view() is None)
    assert target.board.source
    assert target.toolchain.packages


def test_targets_have_the_features_that_select_their_kernels():
    assert {name: load_target(name).features for name in target_names()} == {
        "host": ("x64",), "rpi4": ("neon",), "stm32f405": ("cm4", "dsp"), "nucleo-f746zg": ("cm4", "dsp"),
        "nucleo-h743zi": ("cm4", "dsp"), "nucleo-g071rb": ()}


def test_stm32f405_has_128_kib_of_ram_at_its_real_address():
    view = load_target("stm32f405").memory_view()
    assert (view["ram_base"], view["ram_bytes"]) == (0x20000000, 128 * 1024)
    assert (view["flash_base"], view["flash_bytes"]) == (0x08000000, 1024 * 1024)


@pytest.mark.parametrize(
    ("name", "ram", "flash"), [("nucleo-f746zg", 320, 1024), ("nucleo-h743zi", 512, 2048), ("nucleo-g071rb", 36, 128)]
)
def test_the_nucleo_boards_have_the_memory_of_their_parts(name, ram, flash):
    view = load_target(name).memory_view()
    assert (view["ram_bytes"], view["flash_bytes"]) == (ram * 1024, flash * 1024)
    assert view["flash_base"] == 0x08000000 and view["ram_base"] == (0x24000000 if "h743" in name else 0x20000000)


def test_an_emulator_with_other_addresses_has_a_script_of_its_own():
    """Sizes and budgets stay the board's: what runs in the emulator would fit the part."""
    target = load_target("nucleo-f746zg")
    real, emulated = target.memory_view(), target.emulator_view()
    assert emulated["flash_base"] == 0 and real["flash_base"] == 0x08000000
    assert {key: value for key, value in real.items() if not key.endswith("_base")} == {
        key: value for key, value in emulated.items() if not key.endswith("_base")
    }
    assert target.make_view()["scripts"] == {"_semihosting.elf": "memory_emulator.ld"}
    assert load_target("stm32f405").emulator_view() is None and load_target("host").emulator_view() is None


def test_half_of_an_emulators_addresses_is_refused():
    args = 'args     = ["-M", "netduinoplus2"]'
    assert GOOD.count(args) == 1
    with pytest.raises(TargetError, match="go together"):
        parse_target(GOOD.replace(args, f"{args}\nflash_base = 0"), "board.toml")


def test_a_port_without_a_program_for_an_emulator_cannot_be_run_in_one():
    with pytest.raises(TargetError, match="no program for an emulator"):
        parse_target(GOOD.replace('family    = "stm32f4"', 'family    = "stm32h7"'), "board.toml")


CHECKED = {  # check -> (text, its replacement, what the message says)
    "unknown_name": ('["cm4", "dsp"]', '["cm4", "mmx"]', "unknown feature 'mmx'"),
    "region_missing": ('kind = "flash"', 'kind = "ram"', "one of kind flash"),
    "regions_overlap": ("base = 0x2000_0000", "base = 0x0800_8000", "overlap"),
    "budget_exceeds_memory": ("ram_bytes   = 131_072", "ram_bytes   = 196_608", "exceeds the 131072 bytes"),
    "clock_inconsistent": ("pll_n             = 336", "pll_n             = 335", "dividers give 167500000"),
    "run_without_means": ('method = "qemu-system"', 'method = "ssh"', "needs flash.host"),
    "flash_without_facts": ('pyocd_target   = "stm32f405rg"', 'pyocd_target   = ""', "flash.pyocd_target"),
}


def test_every_check_is_tested():
    assert {check.__name__ for check in CHECKS} == set(CHECKED)


@pytest.mark.parametrize("check", CHECKED)
def test_check_fails_on_a_bad_fact(check):
    old, new, message = CHECKED[check]
    assert GOOD.count(old) == 1
    with pytest.raises(TargetError, match=message) as caught:
        parse_target(GOOD.replace(old, new), "board.toml")
    assert caught.value.where == "board.toml"


@pytest.mark.parametrize(("old", "new", "message"), [
    ("schema = 1", "schema = 2", "has schema 2"),
    ("schema = 1", "schema = ", "not valid TOML"),
    ("[budget]", "[budgets]", r"unknown table \[budgets\]"),
    ("stack_bytes = ", "stack_byte = ", "unknown key 'stack_byte'"),
    ('method = "qemu-system"', "", "lacks method"),
    ("stack_bytes = 8_192", 'stack_bytes = "8 KiB"', "must be of type int"),
    ("stack_bytes = 8_192", "stack_bytes = true", "must be of type int"),
    ('features = ["cm4", "dsp"]', 'features = "cm4"', "must be a list of strings"),
    ("stack_bytes = 8_192", "stack_bytes = 8_190", "multiple of 8"),
    ("size = 131_072", "size = 0", "has no bytes"),
    ("base = 0x2000_0000", "", "needs a base address"),
    ("uart_baud = 115_200", "", "needs a .clock. table and port.uart_baud"),
    ('default        = "st-flash"', 'default        = "dfu"', "not among flash.tools"),
])  # fmt: skip
def test_schema_names_what_is_wrong(old, new, message):
    assert GOOD.count(old) == 1
    with pytest.raises(TargetError, match=message):
        parse_target(GOOD.replace(old, new), "board.toml")


def test_a_typing_mistake_is_answered_with_the_right_key():
    with pytest.raises(TargetError) as caught:
        parse_target(GOOD.replace("stack_bytes = ", "stack_byte = "), "board.toml")
    assert caught.value.fix == "did you mean 'stack_bytes'?"


def test_unknown_target_lists_what_there_is():
    with pytest.raises(TargetError) as caught:
        load_target("stm32f407")
    assert "stm32f405" in caught.value.fix
    assert "nucleo-h743zi, rpi4, stm32f405" in caught.value.why


def test_a_board_of_ones_own_is_a_file(tmp_path):
    path = tmp_path / "feather.toml"
    path.write_text(GOOD.replace('name   = "stm32f405"', 'name   = "feather"'), encoding="utf-8")
    assert load_target(str(path)).name == "feather"
    path.rename(tmp_path / "other.toml")
    with pytest.raises(TargetError, match="describes a board called 'feather'"):
        load_target(str(tmp_path / "other.toml"))


@pytest.mark.parametrize(("change", "message"), [
    (("schema = ", "schema = 9"), "schema"), (("[cpu]", "[cpu"), "not valid TOML"), (("[board]", "[bord]"), "bord"),
])
def test_what_is_wrong_with_a_description_is_told_with_what_to_do(change, message):
    start, line = change
    text = (resources.targets() / "stm32f405.toml").read_text(encoding="utf-8")
    assert any(old.startswith(start) for old in text.splitlines())
    changed = "\n".join(line if old.startswith(start) else old for old in text.splitlines())
    with pytest.raises(TargetError, match=message) as caught:
        parse_target(changed, "own.toml")
    assert caught.value.where and caught.value.fix
