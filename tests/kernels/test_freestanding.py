# SPDX-License-Identifier: Apache-2.0
"""The memory functions for boards without a C library: what they do, and that none calls itself."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess

import pytest

from bnngen import resources

SOURCE = resources.runtime() / "port" / "freestanding.c"
NAMES = ("memcpy", "memmove", "memset", "memcmp")
WARNINGS = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Werror", "-ffreestanding"]
COMPILERS = {
    "gcc": ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb"],
    "clang": ["clang", "--target=arm-none-eabi", "-mcpu=cortex-m4", "-mthumb"],
}


@pytest.mark.parametrize("level", ["-O1", "-O2", "-O3", "-Os"])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_no_function_is_compiled_into_a_call_of_itself(compiler, level, tmp_path):
    for tool in (COMPILERS[compiler][0], "arm-none-eabi-objdump"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} not installed")
    command = [*COMPILERS[compiler], *WARNINGS, level, "-c", str(SOURCE), "-o", str(tmp_path / "out.o")]
    subprocess.run(command, check=True, timeout=60)
    listing = ["arm-none-eabi-objdump", "-d", "-r", str(tmp_path / "out.o")]
    text = subprocess.run(listing, capture_output=True, text=True, check=True, timeout=60).stdout
    bodies = dict(re.findall(r"^[0-9a-f]+ <(mem\w+)>:\n((?:.+\n)*)", text, re.MULTILINE))
    assert set(bodies) == set(NAMES)
    for name, body in bodies.items():
        linked = set(re.findall(r"R_ARM_\w+\s+(\w+)", body))
        called = set(re.findall(r"\bblx?(?:\.\w)?\s.*<(\w+)", body))
        assert linked | called <= ({"memcpy"} if name == "memmove" else set()), f"{name}:\n{body}"


@pytest.fixture(scope="module")
def functions(tmp_path_factory) -> ctypes.CDLL:
    """The file as a library of the host, under names that are not the host's own."""
    library = tmp_path_factory.mktemp("freestanding") / "library.so"
    renamed = [f"-D{name}=ours_{name}" for name in NAMES]
    subprocess.run(["gcc", *WARNINGS, *renamed, "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    for name in NAMES[:3]:
        getattr(loaded, f"ours_{name}").restype = ctypes.c_void_p
    return loaded


@pytest.mark.parametrize("size", [0, 1, 3, 4, 17, 64])
@pytest.mark.parametrize(("to", "source"), [(0, 100), (1, 102), (3, 99), (8, 12), (12, 8), (9, 8), (8, 9), (8, 8)])
def test_bytes_are_moved_as_by_the_library(functions, to, source, size):
    """memmove with every overlap; memcpy where there is none."""
    before = bytes(range(1, 201))
    want = bytearray(before)
    want[to : to + size] = before[source : source + size]
    apart = abs(to - source) >= size
    for name in ("memmove", "memcpy") if apart else ("memmove",):
        memory = ctypes.create_string_buffer(before, 200)
        base = ctypes.addressof(memory)
        result = getattr(functions, f"ours_{name}")(
            ctypes.c_void_p(base + to), ctypes.c_void_p(base + source), ctypes.c_size_t(size)
        )
        assert memory.raw == bytes(want) and result == base + to


def test_bytes_are_set_and_compared(functions):
    memory = ctypes.create_string_buffer(b"\x01" * 9, 9)
    functions.ours_memset(ctypes.c_void_p(ctypes.addressof(memory) + 1), 0x1FF, ctypes.c_size_t(7))
    assert memory.raw == b"\x01" + b"\xff" * 7 + b"\x01"
    sign = [functions.ours_memcmp(b"abc", other, ctypes.c_size_t(3)) for other in (b"abc", b"abd", b"ab\x00")]
    assert sign[0] == 0 and sign[1] < 0 < sign[2]
    assert functions.ours_memcmp(b"a\xff", b"a\x01", ctypes.c_size_t(2)) > 0, "bytes are unsigned"
