# SPDX-License-Identifier: Apache-2.0
"""Compiling, measuring and refusing: what a user sees when something is missing or too large."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from elftools.elf.elffile import ELFFile

from bnngen.device.compile import build_project, open_build
from bnngen.device.session import Where, connect
from bnngen.device.size import check_budget, measure_size
from bnngen.device.toolchain import build_tools
from bnngen.errors import BudgetError, TargetError, ToolError
from bnngen.targets import load_target
from tests.device import project
from tests.device.conftest import need
from tests.device.project import Changes

KIB = 1024


@pytest.fixture(scope="module")
def stm32():
    target = load_target("stm32f405")
    need(*build_tools(target))
    return target


def grow(directory, line: str):
    """Add a line of C to the model."""
    path = directory / "tiny.c"
    path.write_text(path.read_text(encoding="utf-8") + line, encoding="utf-8")
    return directory


def test_sizes_are_those_of_the_linker_script(built, stm32):
    size = measure_size(built("stm32f405").program("uart"), stm32)
    sections = dict(size.sections)
    assert size.stack_bytes == sections[".stack"] == 8 * KIB
    assert size.ram_bytes == 8 * KIB + sections.get(".data", 0) + sections[".bss"]
    raw = built("stm32f405").program("uart").with_suffix(".bin")
    assert size.flash_bytes == raw.stat().st_size
    assert ("tiny_table", "flash", KIB) in [(c.name, c.kind, c.bytes) for c in size.largest]


def test_raw_and_hex_images_are_made(built):
    for program in built("stm32f405").programs.values():
        assert program.with_suffix(".bin").stat().st_size > 1000
        assert program.with_suffix(".hex").read_text(encoding="ascii").startswith(":020000040800F2")


def test_the_two_images_differ_in_the_stream_alone(built):
    def functions(path):
        with path.open("rb") as file:
            table = ELFFile(file).get_section_by_name(".symtab")
            return {s.name for s in table.iter_symbols() if s["st_info"]["type"] == "STT_FUNC"}

    uart, semihosting = (functions(path) for path in built("stm32f405").programs.values())
    stream = {"call", "open_terminal", "board_open_stream", "board_exit", "bnn_port_read", "bnn_port_write"}
    assert uart ^ semihosting <= stream
    assert {"bnn_server_run", "bnn_tiny_infer", "bnn_tiny_learn_step"} <= uart & semihosting


def test_nothing_of_a_c_library_is_in_the_image(built):
    with built("stm32f405").program("uart").open("rb") as file:
        names = {s.name for s in ELFFile(file).get_section_by_name(".symtab").iter_symbols()}
    assert not names & {"malloc", "printf", "_sbrk", "exit"}


def test_a_program_without_a_map_counts_the_stack_budget(built):
    target = load_target("host")
    size = measure_size(built("host").program(), target)
    assert size.stack_bytes == target.budget.stack_bytes < size.ram_bytes
    check_budget(size, target)


@pytest.mark.parametrize(("field", "limit", "kind"), [
    ("ram_bytes", 8400, "RAM"), ("flash_bytes", 2000, "flash")])
def test_budget_error_says_how_many_bytes_too_many(built, stm32, field, limit, kind):
    small = replace(stm32, budget=replace(stm32.budget, **{field: limit}))
    size = measure_size(built("stm32f405").program("uart"), small)
    with pytest.raises(BudgetError) as caught:
        check_budget(size, small)
    needed = getattr(size, field)
    assert f"{needed:,} bytes of {kind}, stm32f405 has {limit:,}" in caught.value.message
    assert caught.value.where.startswith(f"{kind}: {needed - limit:,} bytes too many")
    assert {"flash": "bnn_server_run", "RAM": "learner"}[kind] in caught.value.why


def test_129_kib_of_ram_do_not_link_though_the_emulator_has_them(stm32, tmp_path):
    directory = project.write_project(tmp_path, stm32)
    grow(directory, "uint8_t huge[121 * 1024];\n")
    path = directory / "tiny.c"
    text = path.read_text(encoding="utf-8")
    text = text.replace("scores[c] = tiny_table", "scores[c] = huge[c] + tiny_table")
    path.write_text("#include <stdint.h>\nextern uint8_t huge[121 * 1024];\n" + text, encoding="utf-8")
    with pytest.raises(BudgetError) as caught:
        build_project(directory, stm32)
    assert re.fullmatch(r"RAM: 1,\d\d\d bytes too many", caught.value.where)
    assert "huge 123,904 (RAM)" in caught.value.why


def test_the_linker_asserts_the_budget(stm32, tmp_path):
    changes = Changes(memory={"budget_ram_bytes": 8300, "budget_flash_bytes": 3000})
    with pytest.raises(BudgetError) as caught:
        build_project(project.write_project(tmp_path, stm32, changes), stm32)
    assert "RAM: more than the budget of 8,300 bytes" in caught.value.where


def test_the_compilers_words_are_in_the_error(tmp_path):
    directory = project.write_project(tmp_path, load_target("host"))
    grow(directory, "int broken(void);\nint broken(void) { return undeclared; }\n")
    with pytest.raises(ToolError, match="'undeclared' undeclared"):
        build_project(directory, load_target("host"))


@pytest.mark.parametrize(("name", "tool"), [("host", "make"), ("rpi4", "make")])
def test_missing_tools_are_named_with_the_command_that_installs_them(tmp_path, monkeypatch, name, tool):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError) as caught:
        build_project(tmp_path, load_target(name))
    assert caught.value.message == f"{tool} is not installed"
    assert f"apt-get install -y --no-install-recommends {tool}" in caught.value.fix


@pytest.mark.parametrize(("name", "package"), [
    ("rpi4", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"), ("stm32f405", "gcc-arm-none-eabi")])
def test_missing_cross_compiler(tmp_path, monkeypatch, name, package):
    (tmp_path / "make").symlink_to("/usr/bin/make")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="gcc is not installed") as caught:
        build_project(tmp_path, load_target(name))
    assert package in caught.value.fix


@pytest.mark.parametrize(("name", "package"), [("rpi4", "qemu-user"), ("stm32f405", "qemu-system-arm")])
def test_missing_emulator(built, monkeypatch, tmp_path, name, package):
    program = built(name)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="qemu-.* is not installed") as caught:
        connect(program)
    assert caught.value.fix.endswith(f"install -y --no-install-recommends {package}")


def test_a_folder_that_is_no_project(tmp_path):
    with pytest.raises(ToolError, match="is not a generated project"):
        open_build(tmp_path, load_target("host"))


def test_a_project_that_was_not_compiled(tmp_path):
    directory = project.write_project(tmp_path, load_target("host"))
    with pytest.raises(ToolError, match="tiny has not been built"):
        open_build(directory, load_target("host"))


def test_unknown_way_to_run(built):
    with pytest.raises(TargetError, match="choose one of native"):
        connect(built("host"), Where("telepathy"))
