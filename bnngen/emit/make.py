# SPDX-License-Identifier: Apache-2.0
"""What Makefile.j2 and CMakeLists.txt.j2 print: sources, programs, flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bnngen import resources
from bnngen.emit.view import ModelView
from bnngen.targets import Target

FLOAT_FLAGS = ["-ffp-contract=off"]  # a product and a sum are rounded one by one, as in the float graph


@dataclass(frozen=True)
class ProgramView:
    """An executable. source: the object that moves its bytes. images: raw files made from it (.bin, .hex). script: the
    linker script, "" where the system's own is taken."""

    name: str
    source: str
    object: str
    images: tuple[str, ...]
    script: str


@dataclass(frozen=True)
class MakeView:
    """library_sources: model and learning. program_sources: what all executables share. Paths from the project."""

    cc: str
    ar: str
    objcopy: str
    cflags: str
    ldflags: str
    libs: str
    linker_script: str
    library_sources: tuple[str, ...]
    program_sources: tuple[str, ...]
    programs: tuple[ProgramView, ...]


def make_view(view: ModelView, target: Target, learning: Sequence[str]) -> MakeView:
    """Combine the target's facts with the model's files. learning: the generated C files of learning."""
    facts = target.make_view()
    flags = FLOAT_FLAGS if view.is_float else []
    library = [f"{view.name}.c", f"{view.name}_weights.c"]
    if learning:
        learn = resources.runtime() / "learn"
        library += [*learning, *(f"bnn/learn/{path.name}" for path in sorted(learn.glob("*.c")))]
    script = facts["linker_script"] or ""
    return MakeView(
        cc=facts["cc"],
        ar=_binutil(facts["cc"], "ar"),
        objcopy=facts["objcopy"] or "",
        cflags=" ".join([*facts["cflags"], *flags]),
        ldflags=" ".join(facts["ldflags"]),
        libs=" ".join(facts["libs"]),
        linker_script=script,
        library_sources=tuple(library),
        program_sources=("main.c", *(f"bnn/{path}" for path in facts["port_sources"])),
        programs=tuple(
            _program(f"{view.name}{suffix}", f"bnn/{source}", facts["scripts"].get(suffix, script))
            for suffix, source in facts["programs"]
        ),
    )


def _program(name: str, source: str, script: str) -> ProgramView:
    raw = name.endswith(".elf")
    stem = name.removesuffix(".elf")
    images = (f"{stem}.bin", f"{stem}.hex") if raw else ()
    return ProgramView(name, source, f"{source.rsplit('.', 1)[0]}.o", images, script)


def _binutil(cc: str, tool: str) -> str:
    """arm-none-eabi-gcc -> arm-none-eabi-ar; any other compiler goes with the plain tool."""
    return f"{cc.removesuffix('gcc')}{tool}" if cc.endswith("gcc") else tool
