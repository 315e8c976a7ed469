# SPDX-License-Identifier: Apache-2.0
"""How much flash and RAM a program takes, what takes most, and whether the target has it.

Sizes are read from the ELF file that would be flashed, not from what the generator believes. How much of the
reserved stack is really used is measured where the program runs: DeviceClient.info().stack_peak.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from bnngen.errors import BudgetError, ToolError
from bnngen.targets import Target

STACK_SECTION = ".stack"
MOST_CONTRIBUTORS = 6


@dataclass(frozen=True)
class Contributor:
    """One function or object. kind: "flash" (code and constants) or "RAM"."""

    name: str
    kind: str
    bytes: int


@dataclass(frozen=True)
class ProgramSize:
    """Bytes of one program. ram_bytes holds data, bss and the reserved stack."""

    program: Path
    flash_bytes: int
    ram_bytes: int
    stack_bytes: int
    sections: tuple[tuple[str, int], ...]
    largest: tuple[Contributor, ...]


def _kind(flags: int, section_type: str) -> str | None:
    """flash: what is loaded and never written; RAM: what is zeroed; both: initialised data."""
    if not flags & SH_FLAGS.SHF_ALLOC:
        return None
    if section_type == "SHT_NOBITS":
        return "RAM"
    return "both" if flags & SH_FLAGS.SHF_WRITE else "flash"


def _contributors(elf: ELFFile) -> list[Contributor]:
    """Return every symbol with a size, largest first."""
    kinds = [_kind(section["sh_flags"], section["sh_type"]) for section in elf.iter_sections()]
    found = {}
    for table in elf.iter_sections():
        if not isinstance(table, SymbolTableSection):
            continue
        for symbol in table.iter_symbols():
            index = symbol["st_shndx"]
            if symbol["st_size"] and isinstance(index, int) and kinds[index]:
                kind = "RAM" if kinds[index] in ("RAM", "both") else "flash"
                place = (symbol.name, symbol["st_value"], index)
                found[place] = Contributor(symbol.name, kind, symbol["st_size"])
    return sorted(found.values(), key=lambda item: (-item.bytes, item.name))


def _elf(file: BinaryIO, program: Path) -> ELFFile:
    """Open an ELF file. ToolError: it is none, such as a program whose link was interrupted."""
    try:
        return ELFFile(file)
    except ELFError as error:
        raise ToolError(f"{program.name} is not a program", where=str(program), why=str(error),
                        fix=f"delete {program.parent} and build again") from error


def measure_size(program: Path, target: Target) -> ProgramSize:
    """Measure one program. On a system that gives the stack, the target's stack budget is counted."""
    flash = ram = stack = 0
    sections = []
    with program.open("rb") as file:
        elf = _elf(file, program)
        for section in elf.iter_sections():
            kind, size = _kind(section["sh_flags"], section["sh_type"]), section["sh_size"]
            if kind is None or size == 0:
                continue
            sections.append((section.name, size))
            flash += size if kind in ("flash", "both") else 0
            ram += size if kind in ("RAM", "both") else 0
            stack += size if section.name == STACK_SECTION else 0
        largest = tuple(_contributors(elf)[:MOST_CONTRIBUTORS])
    if not target.port_files.memory_map:
        stack = target.budget.stack_bytes
        ram += stack
    return ProgramSize(program, flash, ram, stack, tuple(sections), largest)


def largest_objects(directory: Path) -> list[Contributor]:
    """Return what takes most in the object files of a project that did not link."""
    found = []
    for path in sorted(directory.rglob("*.o")):
        with path.open("rb") as file:
            found += _contributors(ELFFile(file))[:MOST_CONTRIBUTORS]
    return sorted(found, key=lambda item: (-item.bytes, item.name))[:MOST_CONTRIBUTORS]


def check_budget(size: ProgramSize, target: Target) -> None:
    """BudgetError: says needed, available, bytes too many, and the largest contributors of that memory."""
    budget = target.budget
    for kind, needed, available in (("flash", size.flash_bytes, budget.flash_bytes),
                                    ("RAM", size.ram_bytes, budget.ram_bytes)):
        if needed <= available:
            continue
        largest = ", ".join(f"{item.name} {item.bytes:,}" for item in size.largest if item.kind == kind)
        stack = f", of which {size.stack_bytes:,} are stack" if kind == "RAM" else ""
        raise BudgetError(
            f"{size.program.name} needs {needed:,} bytes of {kind}, {target.name} has {available:,}",
            where=f"{kind}: {needed - available:,} bytes too many{stack}", why=f"largest: {largest}",
            fix="a smaller model, fewer replay or buffer samples, or a larger target",
        )
