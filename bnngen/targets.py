# SPDX-License-Identifier: Apache-2.0
"""Load and check `targets/*.toml`: facts about boards, as frozen data.

A file has one table per dataclass below; keys are its field names, a field without a default must be there,
an unknown key is an error. `CHECKS` says what else may not be, one function for each thing that is refused.
"""

from __future__ import annotations

import difflib
import itertools
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from bnngen import resources
from bnngen.errors import TargetError
from bnngen.ports import EMULATED, PORTS, PROTOCOL_SOURCES, Port

SCHEMA = 1
KEYS = "docs/adding-a-board.md explains every key"
FEATURES = ("x64", "neon", "cm4", "dsp")
RUN_METHODS = ("native", "qemu-user", "qemu-system", "ssh", "serial")
FLASH_TOOLS = ("st-flash", "openocd", "pyocd", "gdb", "ssh")


@dataclass(frozen=True)
class Board:
    name: str
    title: str
    source: str


@dataclass(frozen=True)
class Cpu:
    """core: the compiler's name of it; features: what kernel variants may count on."""

    core: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class Clock:
    """The clock tree of an STM32 driven by its internal oscillator: core = hsi / pll_m * pll_n / pll_p."""

    hz: int
    hsi_hz: int
    pll_m: int
    pll_n: int
    pll_p: int
    apb1_div: int
    apb2_div: int
    flash_wait_states: int


@dataclass(frozen=True)
class Memory:
    """One region; kind is "flash" or "ram". base is needed where there is a memory map."""

    name: str
    kind: str
    size: int
    base: int = -1


@dataclass(frozen=True)
class Budget:
    """What a program may use. ram_bytes includes stack_bytes."""

    ram_bytes: int
    stack_bytes: int
    flash_bytes: int


@dataclass(frozen=True)
class Toolchain:
    """Machine and optimisation flags only: the language and the warnings are the Makefile's."""

    cc: str
    cflags: tuple[str, ...]
    ldflags: tuple[str, ...]
    packages: tuple[str, ...]
    libs: tuple[str, ...] = ()
    objcopy: str = ""


@dataclass(frozen=True)
class PortChoice:
    family: str
    uart_baud: int = 0


@dataclass(frozen=True)
class Run:
    method: str


@dataclass(frozen=True)
class Emulator:
    """flash_base, ram_base: of the emulated machine, where it has the board's core but not its addresses; the program
    for it is linked by a script of its own."""

    program: str
    args: tuple[str, ...]
    packages: tuple[str, ...]
    flash_base: int = -1
    ram_base: int = -1


@dataclass(frozen=True)
class Flash:
    default: str
    tools: tuple[str, ...]
    openocd_config: tuple[str, ...] = ()
    pyocd_target: str = ""
    host: str = ""


@dataclass(frozen=True)
class Target:
    """One target. The optional tables are None where the file has none."""

    board: Board
    cpu: Cpu
    memory: tuple[Memory, ...]
    budget: Budget
    toolchain: Toolchain
    port: PortChoice
    run: Run
    clock: Clock | None = None
    emulator: Emulator | None = None
    flash: Flash | None = None

    @property
    def name(self) -> str:
        return self.board.name

    @property
    def features(self) -> tuple[str, ...]:
        return self.cpu.features

    @property
    def port_files(self) -> Port:
        return PORTS[self.port.family]

    def region(self, kind: str) -> Memory:
        """Return the first region of that kind; where the targets have one (checked), it exists."""
        return next(region for region in self.memory if region.kind == kind)

    def make_view(self) -> dict[str, Any]:
        """Return what the generated Makefile prints.

        cc, objcopy (None: there is no raw image), cflags, ldflags, libs (behind the objects);
        port_sources: port and protocol, relative to `bnn/`, linked into every program;
        linker_script: its file name or None; programs: [(suffix, io_source)], a program is called
        <model><suffix> and has exactly one io_source; each *.elf also gets a .bin and a .hex.
        scripts: suffixes of programs that another script links, and its name.
        """
        files = self.port_files
        return {
            "cc": self.toolchain.cc,
            "cflags": [*self.toolchain.cflags, *self._defines()],
            "ldflags": list(self.toolchain.ldflags),
            "libs": list(self.toolchain.libs),
            "objcopy": self.toolchain.objcopy or None,
            "port_sources": [*PROTOCOL_SOURCES, *files.sources],
            "linker_script": "memory.ld" if files.memory_map else None,
            "programs": list(files.programs),
            "scripts": {EMULATED: "memory_emulator.ld"} if self._moved else {},
        }

    @property
    def _moved(self) -> bool:
        """True where the emulator has the memory at other addresses than the board."""
        return self.emulator is not None and self.emulator.flash_base >= 0

    def emulator_view(self) -> dict[str, Any] | None:
        """Return what memory.ld.j2 prints for the emulator; None where it takes the board's own addresses."""
        view = self.memory_view()
        if view is None or not self._moved:
            return None
        return view | {"flash_base": self.emulator.flash_base, "ram_base": self.emulator.ram_base}

    def memory_view(self) -> dict[str, Any] | None:
        """Return what memory.ld.j2 prints (bytes, addresses), or None where no linker script is needed."""
        if not self.port_files.memory_map:
            return None
        flash, ram = self.region("flash"), self.region("ram")
        return {
            "board": self.board.title, "source": self.board.source,
            "flash_base": flash.base, "flash_bytes": flash.size, "ram_base": ram.base, "ram_bytes": ram.size,
            "stack_bytes": self.budget.stack_bytes, "budget_ram_bytes": self.budget.ram_bytes,
            "budget_flash_bytes": self.budget.flash_bytes,
        }  # fmt: skip

    def _defines(self) -> list[str]:
        """Facts that the port's C needs, as macros."""
        if self.clock is None:
            return []
        values = {"BNN_UART_BAUD": self.port.uart_baud}
        names = [field.name for field in fields(Clock) if field.name != "hz"]
        values |= {f"BNN_{name.upper()}": getattr(self.clock, name) for name in names}
        return [f"-D{name}={value}u" for name, value in values.items()]


def _value(kind: Any, value: Any, where: str) -> Any:
    """Check one TOML value against a field's type; lists of strings become tuples."""
    if kind == tuple[str, ...]:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise TargetError(f"{where} must be a list of strings", where=where, fix=KEYS)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TargetError(f"{where} must be of type {kind.__name__}, not {type(value).__name__}", where=where, fix=KEYS)
    return value


def _record(cls: type, raw: Any, where: str) -> Any:
    """Build a dataclass from a TOML table: known keys, right types, nothing missing."""
    if not isinstance(raw, dict):
        raise TargetError(f"{where} must be a table", where=where, fix=KEYS)
    names = {field.name: field for field in fields(cls)}
    for key in raw:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            raise TargetError(f"unknown key {key!r} in {where}", where=where,
                              fix=f"did you mean {near[0]!r}?" if near else f"keys: {', '.join(names)}")
    missing = [name for name, field in names.items() if name not in raw and field.default is MISSING]
    if missing:
        raise TargetError(f"{where} lacks {', '.join(missing)}", where=where, fix=KEYS)
    kinds = get_type_hints(cls)
    return cls(**{key: _value(kinds[key], value, f"{where} {key}") for key, value in raw.items()})


TABLES: dict[str, type] = {
    "board": Board, "cpu": Cpu, "budget": Budget, "toolchain": Toolchain, "port": PortChoice, "run": Run,
    "clock": Clock, "emulator": Emulator, "flash": Flash,
}
OPTIONAL = ("clock", "emulator", "flash")


def parse_target(text: str, where: str) -> Target:
    """Parse and check one target description. `where` (the file's name) opens every message."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f"{where} is not valid TOML: {error}", where=where, fix=KEYS) from error
    schema = raw.pop("schema", None)
    if schema != SCHEMA:
        raise TargetError(f"{where} has schema {schema}, this bnngen reads schema {SCHEMA}", where=where, fix=KEYS)
    regions = raw.pop("memory", None)
    if not isinstance(regions, list) or not regions:
        raise TargetError(f"{where} needs at least one [[memory]]", where=where, fix=KEYS)
    unknown = sorted(set(raw) - set(TABLES))
    if unknown:
        raise TargetError(f"unknown table [{unknown[0]}] in {where}", where=where,
                          fix=f"tables: {', '.join(TABLES)}, memory")
    missing = [name for name in TABLES if name not in raw and name not in OPTIONAL]
    if missing:
        raise TargetError(f"{where} lacks the table [{missing[0]}]", where=where, fix=KEYS)
    tables = {name: _record(TABLES[name], table, f"{where} [{name}]") for name, table in raw.items()}
    memory = tuple(_record(Memory, region, f"{where} [[memory]]") for region in regions)
    target = Target(memory=memory, **tables)
    for check in CHECKS:
        problem = check(target)
        if problem:
            raise TargetError(problem, where=where, fix=KEYS)
    return target


def unknown_name(target: Target) -> str | None:
    """Words that stand for code must be known: features, port, method, tools, kinds of memory."""
    known = [
        ("feature", target.cpu.features, FEATURES),
        ("port family", (target.port.family,), tuple(PORTS)),
        ("run method", (target.run.method,), RUN_METHODS),
        ("flash tool", target.flash.tools if target.flash else (), FLASH_TOOLS),
        ("kind of memory", tuple(region.kind for region in target.memory), ("flash", "ram")),
    ]
    for what, values, allowed in known:
        for value in values:
            if value not in allowed:
                return f"unknown {what} {value!r}; there are {', '.join(allowed)}"
    return None


def region_missing(target: Target) -> str | None:
    """Every target has RAM; one with a memory map has flash too, and addresses."""
    kinds = [region.kind for region in target.memory]
    if "ram" not in kinds or (target.port_files.memory_map and "flash" not in kinds):
        return "there must be a region of kind ram, and one of kind flash where the port has a memory map"
    unplaced = [region.name for region in target.memory if target.port_files.memory_map and region.base < 0]
    return f"region {unplaced[0]!r} needs a base address" if unplaced else None


def regions_overlap(target: Target) -> str | None:
    """No address may belong to two regions, and no region may be empty."""
    for region in target.memory:
        if region.size <= 0:
            return f"region {region.name!r} has no bytes"
    placed = sorted((region for region in target.memory if region.base >= 0), key=lambda region: region.base)
    for low, high in itertools.pairwise(placed):
        if low.base + low.size > high.base:
            return f"regions {low.name!r} and {high.name!r} overlap"
    return None


def budget_exceeds_memory(target: Target) -> str | None:
    """A budget cannot be larger than the memory, nor the stack larger than the budget."""
    budget, has_map = target.budget, target.port_files.memory_map
    sizes = {region.kind: region.size for region in reversed(target.memory)}
    if min(budget.ram_bytes, budget.flash_bytes, budget.stack_bytes) <= 0:
        return "budgets must be positive"
    if budget.ram_bytes > sizes["ram"]:
        return f"budget.ram_bytes {budget.ram_bytes} exceeds the {sizes['ram']} bytes of RAM"
    if has_map and budget.flash_bytes > sizes["flash"]:
        return f"budget.flash_bytes {budget.flash_bytes} exceeds the {sizes['flash']} bytes of flash"
    if budget.stack_bytes >= budget.ram_bytes or budget.stack_bytes % 8:
        return "budget.stack_bytes must be a multiple of 8 and below budget.ram_bytes"
    return None


def clock_inconsistent(target: Target) -> str | None:
    """A port with a memory map sets its own clock, and hz must be what the dividers give."""
    clock = target.clock
    if not target.port_files.memory_map:
        return None
    if clock is None or target.port.uart_baud <= 0:
        return "this port needs a [clock] table and port.uart_baud"
    if min(clock.pll_m, clock.pll_n, clock.pll_p, clock.apb1_div, clock.apb2_div) <= 0:
        return "clock dividers must be positive"
    made = clock.hsi_hz * clock.pll_n // (clock.pll_m * clock.pll_p)
    if clock.hz != made:
        return f"clock.hz is {clock.hz}, but the dividers give {made}"
    if not {clock.apb1_div, clock.apb2_div} <= {1, 2, 4, 8, 16} or clock.pll_p not in (2, 4, 6, 8):
        return "apb dividers are 1, 2, 4, 8 or 16, and pll_p is 2, 4, 6 or 8"
    return None


def run_without_means(target: Target) -> str | None:
    """The default way to run must be possible: an emulator for qemu, a flash host for ssh."""
    if target.run.method.startswith("qemu") and target.emulator is None:
        return f"run.method {target.run.method!r} needs an [emulator] table"
    if target.run.method.startswith("qemu-system") and EMULATED not in dict(target.port_files.programs):
        return f"port family {target.port.family!r} has no program for an emulator"
    if target.emulator and (target.emulator.flash_base < 0) != (target.emulator.ram_base < 0):
        return "emulator.flash_base and emulator.ram_base go together"
    if target.run.method == "ssh" and not (target.flash and target.flash.host):
        return "run.method 'ssh' needs flash.host"
    return None


def flash_without_facts(target: Target) -> str | None:
    """Each flash tool needs the fact that it is called with."""
    flash = target.flash
    if flash is None:
        return None
    if flash.default not in flash.tools:
        return f"flash.default {flash.default!r} is not among flash.tools"
    needs = {"openocd": "openocd_config", "pyocd": "pyocd_target", "ssh": "host"}
    for tool in flash.tools:
        if tool in needs and not getattr(flash, needs[tool]):
            return f"flash tool {tool!r} needs flash.{needs[tool]}"
    return None


CHECKS: list[Callable[[Target], str | None]] = [
    unknown_name, region_missing, regions_overlap, budget_exceeds_memory, clock_inconsistent,
    run_without_means, flash_without_facts,
]


def target_names() -> list[str]:
    """Return the names of all targets, sorted."""
    return sorted(path.stem for path in resources.targets().glob("*.toml"))


def load_target_file(path: Path) -> Target:
    """Load one file. Its name is the target's name. TargetError says what is wrong in it."""
    target = parse_target(path.read_text(encoding="utf-8"), path.name)
    if target.name != path.stem:
        raise TargetError(f"{path.name} describes a board called {target.name!r}", where=path.name,
                          why="a target is found by its file name", fix="rename one of the two")
    return target


def load_target(name: str) -> Target:
    """Return the target of that name, or the description in that .toml file. TargetError: neither exists."""
    if name.endswith(".toml") and Path(name).is_file():
        return load_target_file(Path(name))
    names = target_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, 1, 0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise TargetError(f"there is no target {name!r}", where=f"--target {name}",
                          why=f"targets: {', '.join(names)}",
                          fix=f"{hint}A new board is one file: docs/adding-a-board.md")
    return load_target_file(resources.targets() / f"{name}.toml")
