# SPDX-License-Identifier: Apache-2.0
"""Builds one program with every kernel variant that a platform can run, and runs cases through it.

Everything comes from the registry: a variant that is registered is compiled here and tested, on every platform that has
its features.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnngen import resources
from bnngen.emit.render import environment
from bnngen.lower.kernels import KERNELS, LIST, Kernel, Variant
from bnngen.lower.shapes import NARROW
from bnngen.targets import load_target
from tests.kernels.cases import Case

HERE = Path(__file__).resolve().parent
WARNINGS = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror"]
SANITIZE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DHARNESS_MALLOC"]
TRAP = ["-fsanitize=undefined", "-fsanitize-trap=all"]  # needs no library
FILL = 0xA5
TIMEOUT_S = 120


@dataclass(frozen=True)
class Platform:
    """Where kernels run: a target's compiler and port, its emulator, more flags."""

    name: str
    target: str
    tools: tuple[str, ...]
    flags: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """Tools that are not installed."""
        return [tool for tool in self.tools if shutil.which(tool) is None]

    @property
    def features(self) -> frozenset[str]:
        return frozenset(load_target(self.target).features)


PLATFORMS = (
    Platform("host", "host", ("gcc",), tuple(SANITIZE)),
    Platform("host-clang", "host", ("clang",), tuple(TRAP)),
    Platform("aarch64", "rpi4", ("aarch64-linux-gnu-gcc", "qemu-aarch64")),
    Platform("cortex-m4", "stm32f405", ("arm-none-eabi-gcc", "qemu-system-arm")),
)


def variants(features: frozenset[str]) -> list[tuple[Kernel, Variant]]:
    """Return what runs with those features, in the order of the registry. Plain C variants run anywhere."""
    return [(k, v) for k in KERNELS.values() for v in k.variants if v.features <= features]


def source(features: frozenset[str]) -> str:
    """Return the C file that calls each variant with arguments from the stream."""
    chosen = variants(features)
    headers = sorted({f"kernels/{kernel.header}_{variant.name}.h" for kernel, variant in chosen})
    lines = ['#include "harness.h"', *(f'#include "{header}"' for header in headers)]
    for kernel, variant in chosen:
        lines += [f"static void run_{kernel.name}_{variant.name}(void)", "{", f"    {kernel.shape.C_NAME} s;"]
        lines += ["    harness_rows rows;"]
        names, reads = [], ["    harness_get(&s, sizeof s);", "    rows = harness_get_rows();"]
        for ctype, name in kernel.params:
            declared, call = _argument(ctype, name)
            lines.append(f"    {declared} v_{name};")
            reads.append(f"    v_{name} = {call};")
            names.append(f"&v_{name}" if ctype == "const bnn_affine *" else f"v_{name}")
        function = f"bnn_{kernel.name}_{variant.name}"
        reads.append(f"    {function}(&s, {', '.join(names)}, rows.begin, rows.end);")
        lines += [*reads, "    harness_finish();", "}"]
    table = ", ".join(f"run_{kernel.name}_{variant.name}" for kernel, variant in chosen)
    return "\n".join([*lines, f"const harness_fn harness_functions[] = {{{table}}};", ""])


def _argument(ctype: str, name: str) -> tuple[str, str]:
    """(C type, expression that reads it from the stream) of one parameter."""
    if ctype == "const bnn_affine *":
        return "bnn_affine", "harness_affine(s.arithmetic)"
    if not ctype.endswith("*"):
        return ctype, "harness_int()"
    if name == "scratch":
        return ctype, "harness_scratch()"
    if (ctype, name) == LIST:
        return ctype, "harness_list(s.inputs)"
    call = "harness_take()" if ctype.startswith("const") else "harness_blank()"
    return ctype, f"({ctype}){call}"


def build(platform: Platform, folder: Path) -> Path:
    """Compile the program and return it."""
    target, runtime = load_target(platform.target), resources.runtime()
    view, memory = target.make_view(), target.memory_view()
    (folder / "generated.c").write_text(source(platform.features), encoding="utf-8")
    suffix, io = view["programs"][-1]
    sources = [folder / "generated.c", HERE / "harness.c", *(runtime / p for p in [*view["port_sources"], io])]
    link = list(view["ldflags"])
    if memory is not None:
        script = environment().get_template("memory.ld.j2").render(memory)
        (folder / "memory.ld").write_text(script, encoding="utf-8")
        link += ["-T", str(folder / "memory.ld")]
    program = folder / f"kernels{suffix}"
    cc = platform.tools[0]
    include = [f"-I{path}" for path in (HERE, runtime, runtime / "include")]
    command = [cc, *WARNINGS, *view["cflags"], *platform.flags, *include, *map(str, sources), "-o", str(program)]
    subprocess.run([*command, *link, *view["libs"]], check=True, timeout=TIMEOUT_S)
    return program


def command(platform: Platform, program: Path) -> list[str]:
    """Return the command that runs the program with its stream on stdin and stdout."""
    target = load_target(platform.target)
    if target.emulator is None:
        return [str(program)]
    emulator = [target.emulator.program, *target.emulator.args]
    if target.run.method == "qemu-user":
        return [*emulator, str(program)]
    quiet = ["-display", "none", "-monitor", "none", "-no-reboot", "-serial", "none"]
    return [*emulator, *quiet, "-semihosting-config", "enable=on,target=native", "-kernel", str(program)]


@dataclass(frozen=True)
class Call:
    """A case on one variant: which rows of the output are asked for."""

    case: Case
    variant: Variant
    begin: int
    end: int

    def __str__(self) -> str:
        return f"{self.case.kernel}_{self.variant.name} rows {self.begin}..{self.end} of {self.case.name}"

    def request(self, index: int) -> bytes:
        """Return the bytes that make the program compute it."""
        kernel, shape = KERNELS[self.case.kernel], self.case.shape
        fields = [getattr(shape, name) for name in shape.__dataclass_fields__]
        parts = [struct.pack(f"<i{len(fields)}iii", index, *fields, self.begin, self.end)]
        for ctype, name in kernel.params:
            if name == "scratch":
                parts.append(struct.pack("<i", self.variant.scratch(shape)))
            elif ctype == "const bnn_affine *":
                parts.append(_affine_bytes(self.case.affine, shape.arithmetic))
            elif (ctype, name) == LIST:
                parts += [_block(data) for data in self.case.args[name]]
            elif not ctype.endswith("*"):
                parts.append(struct.pack("<i", self.case.args[name]))
            elif ctype.startswith("const"):
                parts.append(_block(self._input(name)))
            else:
                parts.append(struct.pack("<ii", len(self.case.expected), self.case.shared))
        return b"".join(parts)

    def _input(self, name: str) -> bytes:
        if name == "w":
            return np.ascontiguousarray(self.variant.pack(self.case.weights)).tobytes()
        return self.case.args[name]

    def expected(self) -> bytes:
        """Return the output: rows that were not asked for keep the fill, or the shared input."""
        row = len(self.case.expected) // self.case.shape.rows
        whole = bytes([FILL]) * len(self.case.expected)
        if self.case.shared >= 0:
            whole = self.case.args[KERNELS[self.case.kernel].params[self.case.shared][1]]
        first, last = self.begin * row, self.end * row
        return whole[:first] + self.case.expected[first:last] + whole[last:]


def _block(data: bytes) -> bytes:
    return struct.pack("<i", len(data)) + data


def _affine_bytes(a: object, arithmetic: int) -> bytes:
    bias = a.bias.astype("<i4" if arithmetic == NARROW else "<i8").tobytes()
    scalars = struct.pack("<5i", a.shift, a.lo, a.hi, a.acc_lo, a.acc_hi)
    return _block(a.mult.astype("<i4").tobytes()) + _block(bias) + scalars


def run(platform: Platform, program: Path, calls: list[Call]) -> list[tuple[int, bytes]]:
    """Return (status, output) of each call, up to the first that did not answer."""
    order = {(kernel.name, variant.name): i for i, (kernel, variant) in enumerate(variants(platform.features))}
    stream = b"".join(call.request(order[call.case.kernel, call.variant.name]) for call in calls)
    done = subprocess.run(command(platform, program), input=stream, capture_output=True, timeout=TIMEOUT_S)
    if done.returncode != 0:
        raise AssertionError(f"the kernels ended with {done.returncode}\n{done.stderr.decode()[-3000:]}")
    results, at = [], 0
    for call in calls:
        size = len(call.case.expected)
        results.append((struct.unpack_from("<I", done.stdout, at)[0], done.stdout[at + 4 : at + 4 + size]))
        at += 4 + size
    return results
