# SPDX-License-Identifier: Apache-2.0
"""The trainable tail on other processors, in the emulator; its code needs no library and is small."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from bnngen.lower.tail import TailSpec
from bnngen.lower.tail_constants import TailConfig
from tests.learn.script import RUNTIME, WARNINGS, program_lines
from tests.learn.test_targets import emulated, need
from tests.tail.script import PLATFORM, Call, Shape, build, calls_for, encode, random_tail, twin_lines

CODE_LIMIT = {"-Os": 9 * 1024, "-O2": 12 * 1024}
SEED = 9


def experience() -> tuple[TailSpec, TailConfig, list[Call]]:
    spec = random_tail(Shape(24, 4, 3, 2, shift=True, after=True, last_relu=True, cut="s8"), 7)
    return spec, TailConfig(), calls_for(spec, 7)


@pytest.mark.parametrize("compiler", [["aarch64-linux-gnu-gcc", "-O2", "-static"], ["clang", "-O3"], ["gcc", "-Os"]])
def test_other_compilers(tmp_path: Path, compiler: list[str]):
    foreign = compiler[0].startswith("aarch64")
    need(compiler[0], *(["qemu-aarch64"] if foreign else []))
    spec, config, calls = experience()
    script = tmp_path / "script.bin"
    script.write_bytes(encode(spec, config, calls, SEED))
    program = build(tmp_path / "harness", compiler, [PLATFORM / "main_host.c"])
    command = [*(["qemu-aarch64"] if foreign else []), str(program), str(script)]
    assert program_lines(command) == twin_lines(spec, config, calls, SEED)


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7"])
def test_cortex_m(tmp_path: Path, core: str):
    """A bare image with the script linked in; output by semihosting. The M7's image runs on its own core."""
    need("arm-none-eabi-gcc", "qemu-system-arm")
    spec, config, calls = experience()
    script = tmp_path / "script.bin"
    script.write_bytes(encode(spec, config, calls, SEED))
    bare = ["-ffreestanding", "-nostdlib", f"-Wl,-T,{PLATFORM / 'cortexm.ld'}", f'-DSCRIPT="{script}"']
    flags = ["arm-none-eabi-gcc", f"-mcpu={core}", "-mthumb", "-O2", *bare]
    main = [PLATFORM / "main_cortexm.c", PLATFORM / "script.S", "-lgcc"]
    image = build(tmp_path / "image.elf", flags, main)
    machine = ["qemu-system-arm", "-M", "netduinoplus2", "-cpu", core, "-nographic", "-monitor", "none"]
    quiet = ["-serial", "none", "-semihosting-config", "enable=on,target=native", "-kernel", str(image)]
    assert emulated(machine + quiet) == twin_lines(spec, config, calls, SEED)


def objects(tmp_path: Path, flags: Sequence[str]) -> list[str]:
    """Compile the tail's files; return the objects."""
    paths = []
    for source in sorted((RUNTIME / "learn").glob("tail*.c")):
        paths.append(str(tmp_path / f"{source.stem}.o"))
        subprocess.run([*flags, f"-I{RUNTIME / 'include'}", "-c", str(source), "-o", paths[-1]], check=True, timeout=60)
    return paths


@pytest.mark.parametrize("level", ["-Os", "-O2"])
def test_code_is_small_and_needs_no_library(tmp_path: Path, level: str):
    need("arm-none-eabi-gcc")
    made = objects(tmp_path, ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", level, "-ffreestanding", *WARNINGS])
    sizes = subprocess.run(["arm-none-eabi-size", *made], capture_output=True, text=True, check=True).stdout
    rows = [[int(v) for v in line.split()[:3]] for line in sizes.splitlines()[1:]]
    text, data, bss = (sum(column) for column in zip(*rows, strict=True))
    assert text <= CODE_LIMIT[level] and data == bss == 0
    names = subprocess.run(["arm-none-eabi-nm", "-u", *made], capture_output=True, text=True, check=True).stdout
    wanted = {line.split()[-1] for line in names.splitlines() if line.strip().startswith("U ")}
    foreign = {name for name in wanted if not name.startswith("bnn_")}
    assert foreign <= {"memcpy", "memset", "__aeabi_ldivmod", "__aeabi_uldivmod", "__aeabi_memclr", "__aeabi_llsl"}


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_is_cplusplus_too(tmp_path: Path, compiler: str):
    need(compiler)
    warnings = [w for w in WARNINGS if w not in ("-std=c99", "-Wstrict-prototypes")]
    objects(tmp_path, [compiler, "-x", "c++", *warnings])
