# SPDX-License-Identifier: Apache-2.0
"""The learner on other processors, in the emulator: the same lines as the twin, no libraries, small code."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from bnngen.lower.learning import LearnConfig
from tests.learn.script import HERE, RUNTIME, WARNINGS, Case, build, play, program_lines, twin_lines
from tests.learn.test_equality import random_case, random_shows

CORTEX_M4 = ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-O2"]
# What a default build links.
USUAL = ("head_cwr16", "learner", "minibatch", "operands", "replay_stored", "softmax", "store")
WITH_FLOATS = ("head_float",)  # the only files whose arithmetic a soft-float core takes from the compiler's library
CODE_LIMIT = {"-Os": 6 * 1024, "-O2": 7936}  # roots that heads read included
PARTS = [{}, {"q_b": 32, "policy": "random"}, {"head": "float32", "policy": "generative"}]
PARTS += [{"head": "lda", "projections": 9}, {"head": "ridge", "projections": 0, "undo": False}, {"head": "mean"}]


def need(*tools: str) -> None:
    """Skip, with the reason, where a tool is not installed."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def stream(parts: dict) -> tuple[Case, list]:
    """Three experiences: a reservoir that overflows, quotas that shrink, batches that differ."""
    options = {"replay": 25, "buffer": 30, **parts}
    case = random_case((31, 10), (8, options.pop("q_b", 16)), 16, options, 77)
    return case, play(case, random_shows(case, (45, 20, 40), 3))


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_aarch64(tmp_path: Path, parts: dict):
    need("aarch64-linux-gnu-gcc", "qemu-aarch64")
    case, calls = stream(parts)
    script = tmp_path / "script.bin"
    script.write_bytes(case.encode(calls))
    program = build(tmp_path / "a64", ["aarch64-linux-gnu-gcc", "-O2", "-static"], [HERE / "main_host.c"])
    assert program_lines(["qemu-aarch64", str(program), str(script)]) == twin_lines(case, calls)


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_clang(tmp_path: Path, parts: dict):
    need("clang")
    case, calls = stream(parts)
    script = tmp_path / "script.bin"
    script.write_bytes(case.encode(calls))
    program = build(tmp_path / "clang", ["clang", "-O3"], [HERE / "main_host.c"])
    assert program_lines([str(program), str(script)]) == twin_lines(case, calls)


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_cortex_m4(tmp_path: Path, parts: dict):
    """A bare STM32F405 image with the script linked in; output by semihosting. Floats are the compiler's library's."""
    need("arm-none-eabi-gcc", "qemu-system-arm")
    case, calls = stream(parts)
    script = tmp_path / "script.bin"
    script.write_bytes(case.encode(calls))
    bare = ["-ffreestanding", "-nostdlib", f"-Wl,-T,{HERE / 'cortexm.ld'}", f'-DSCRIPT="{script}"']
    image = build(tmp_path / "m4.elf", [*CORTEX_M4, *bare], [HERE / "main_cortexm.c", HERE / "script.S", "-lgcc"])
    machine = ["qemu-system-arm", "-M", "netduinoplus2", "-nographic", "-monitor", "none", "-serial", "none"]
    semihosting = ["-semihosting-config", "enable=on,target=native", "-kernel", str(image)]
    assert emulated(machine + semihosting) == twin_lines(case, calls)


def emulated(command: Sequence[str]) -> list[str]:
    """Return the lines of a semihosted run; QEMU writes them to its standard error or output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return (done.stdout + done.stderr).splitlines()


def objects(tmp_path: Path, flags: Sequence[str]) -> list[str]:
    """Compile the learner's files; return the objects."""
    paths = []
    for source in sorted((RUNTIME / "learn").glob("*.c")):
        paths.append(str(tmp_path / f"{source.stem}.o"))
        subprocess.run([*flags, f"-I{RUNTIME / 'include'}", "-c", str(source), "-o", paths[-1]], check=True, timeout=60)
    return paths


@pytest.mark.parametrize("level", ["-Os", "-O2"])
def test_code_is_small_and_needs_no_library(tmp_path: Path, level: str):
    need("arm-none-eabi-gcc")
    made = objects(tmp_path, [*CORTEX_M4[:3], level, "-ffreestanding", *WARNINGS])
    usual = [path for path in made if Path(path).stem in USUAL]
    assert len(usual) == len(USUAL)
    sizes = subprocess.run(["arm-none-eabi-size", *usual], capture_output=True, text=True, check=True).stdout
    rows = [[int(v) for v in line.split()[:3]] for line in sizes.splitlines()[1:]]
    text, data, bss = (sum(column) for column in zip(*rows, strict=True))
    assert text <= CODE_LIMIT[level] and data == bss == 0
    whole = [path for path in made if Path(path).stem not in WITH_FLOATS]
    assert len(whole) == len(made) - len(WITH_FLOATS)
    names = subprocess.run(["arm-none-eabi-nm", "-u", *whole], capture_output=True, text=True, check=True).stdout
    wanted = {line.split()[-1] for line in names.splitlines() if line.strip().startswith("U ")}
    foreign = {name for name in wanted if not name.startswith("bnn_")}
    assert foreign <= {"memcpy", "memset", "__aeabi_ldivmod", "__aeabi_uldivmod", "__aeabi_memclr"}


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_is_cplusplus_too(tmp_path: Path, compiler: str):
    need(compiler)
    warnings = [w for w in WARNINGS if w not in ("-std=c99", "-Wstrict-prototypes")]
    objects(tmp_path, [compiler, "-x", "c++", *warnings])


def test_default_config_is_the_documented_one():
    """The table of docs/numerics.md, section 5, and LearnConfig say the same."""
    text = (RUNTIME.parent / "docs" / "numerics.md").read_text()
    config = LearnConfig()
    for row in (
        f"| {config.q_f}, {config.q_b} |",
        f"| {config.batch}, {config.new_per_batch} |",
        f"| {config.buffer}, {config.replay} |",
        f"| {config.epochs}, {config.lr:g} |",
    ):
        assert row in text
