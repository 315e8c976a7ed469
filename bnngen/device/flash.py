# SPDX-License-Identifier: Apache-2.0
"""Put a program onto a board: the exact command of the board's tool, run, and judged by what it says.

gdb writes into anything that has a gdb server: a debug probe's, or the emulated board's, which is how loading
and verifying is tested without hardware.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bnngen.device import emulate
from bnngen.device.client import DeviceClient
from bnngen.device.compile import BuildResult
from bnngen.device.session import Folder
from bnngen.device.toolchain import FLASH_PROGRAMS, NO_HOST, find_tool, last_lines, run_tool, ssh_advice
from bnngen.device.transport import Process, Transport, open_socket
from bnngen.errors import TargetError, ToolError
from bnngen.targets import Target

FLASH_TIMEOUT_S = 180
NO_PROBE = ("Couldn't find any ST-Link", "open failed", "No target device available",
            "No connected debug probes", "No available debug probes", "unable to find a matching CMSIS-DAP")
NO_SERVER = ("could not connect", "Connection refused", "Connection timed out", "No such file or directory.")
MATCHED = re.compile(r'^Section (\S+), range .*: matched\.$', re.MULTILINE)


@dataclass(frozen=True)
class FlashOptions:
    """tool: None for the target's own, or gdb where one of the last two is given. host: for ssh. For gdb one of
    server: address of the gdb server in front of a board; emulated: power on an emulated board instead."""

    tool: str | None = None
    host: str | None = None
    server: str | None = None
    emulated: bool = False


def chosen_tool(target: Target, options: FlashOptions) -> str:
    """Return the tool to use. TargetError: this target has none, not this one, or it is not told what to write to."""
    if target.flash is None:
        raise TargetError(f"{target.name} is not flashed", where=f"--target {target.name}",
                          why="its programs run where they are built", fix="bnngen run")
    for_gdb = options.server is not None or options.emulated
    tool = options.tool or ("gdb" if for_gdb else target.flash.default)
    if tool not in target.flash.tools:
        raise TargetError(f"{target.name} is not flashed with {tool!r}", where=f"--tool {tool}",
                          fix=f"choose one of {', '.join(target.flash.tools)}")
    if (tool == "gdb") != for_gdb or (options.server is not None and options.emulated):
        raise TargetError("gdb needs one of --server ADDRESS and --emulated, and only gdb has them",
                          where=f"--tool {tool}",
                          why="it writes to whatever has a gdb server: a debug probe's, or an emulated board's",
                          fix="start st-util or openocd and give --server localhost:4242 or :3333; without a board "
                          "give --emulated")
    return tool


def image_of(built: BuildResult, tool: str) -> Path:
    """Return the file that a tool writes: st-flash takes a raw image, the others read the ELF file."""
    program = built.program("uart")
    return program.with_suffix(".bin") if tool == "st-flash" else program


def _gdb_command(server: str, image: Path) -> list[str]:
    """Load, read back and compare, and start from the vector table as a reset would."""
    vectors = "(unsigned *) &vectors"
    steps = ["set tcp connect-timeout 5", f"target extended-remote {server}", "load", "compare-sections",
             f"set $sp = *({vectors})", f"set $pc = *({vectors} + 1) & ~1", "detach"]
    program = FLASH_PROGRAMS["gdb"].name
    return [program, "-batch", "-nx", *(part for step in steps for part in ("-ex", step)), str(image)]


def _machine_behind_gdb(target: Target) -> str:
    """What gdb starts by itself and talks to over a pipe: the emulated board, halted."""
    machine = [target.emulator.program, *target.emulator.args, "-display", "none", "-S", "-gdb", "stdio"]
    return "| exec " + " ".join(machine)


def flash_command(target: Target, image: Path, options: FlashOptions = FlashOptions()) -> list[str]:
    """Return the exact argument vector that writes `image`. The tool need not be installed."""
    tool, flash = chosen_tool(target, options), target.flash
    if tool == "st-flash":
        return ["st-flash", "--reset", "write", str(image), f"{target.region('flash').base:#010x}"]
    if tool == "openocd":
        files = [part for name in flash.openocd_config for part in ("-f", name)]
        return ["openocd", *files, "-c", f"program {{{image}}} verify reset exit"]
    if tool == "pyocd":
        return ["pyocd", "load", "--no-wait", "--target", flash.pyocd_target, "--format", "elf", str(image)]
    if tool == "ssh":
        return ["scp", "-p", *emulate.SSH_OPTIONS, str(image), f"{options.host or flash.host}:{image.name}"]
    return _gdb_command(options.server or _machine_behind_gdb(target), image)  # chosen_tool: one of the two


def flash(target: Target, image: Path, options: FlashOptions = FlashOptions()) -> str:
    """Write `image` to the board and return what the tool said. ToolError: no tool, no probe, a failure."""
    tool = chosen_tool(target, options)
    argv = flash_command(target, image, options)
    find_tool(FLASH_PROGRAMS["scp" if tool == "ssh" else tool])
    if not image.is_file():
        raise ToolError(f"{image.name} has not been built", where=str(image),
                        fix=f"bnngen build --target {target.name}")
    if options.emulated:
        return _flash_and_greet(target, image)
    status, output = run_tool(argv, timeout_s=FLASH_TIMEOUT_S)
    _judge(tool, argv, status, output)
    return output


def _flash_and_greet(target: Target, image: Path) -> str:
    """Flash an emulated board, let it run, and ask the program on it who it is."""
    with EmulatedBoard(target) as board:
        said = board.flash(image)
        facts = DeviceClient(board.transport).facts
    return f"{said.rstrip()}\nthe emulated board runs model {facts.model_hash}: {facts.classes} classes\n"


def _line_with(output: str, texts: tuple[str, ...]) -> str:
    """Return the first line that holds one of `texts`, or an empty string."""
    return next((line.strip() for line in output.splitlines() if any(text in line for text in texts)), "")


def _judge(tool: str, argv: list[str], status: int, output: str) -> None:
    """Raise ToolError unless the tool did what was asked; gdb's exit status alone does not tell."""
    said, command = last_lines(output, 12), " ".join(argv)
    absent = _line_with(output, NO_PROBE)
    if status != 0 and absent:
        raise ToolError("no debug probe was found", where=command, why=f"{argv[0]} says: {absent}",
                        fix="connect and power the board: `lsusb` must list its ST-Link or CMSIS-DAP probe")
    if tool == "ssh" and status != 0:
        fix = ssh_advice(output) or "name another machine with --host"
        reached = "cannot be reached" if any(text in output for text in NO_HOST) else "refuses the copy"
        raise ToolError(f"{argv[-1].split(':')[0]} {reached}", where=command, why=said, fix=fix)
    if tool == "gdb":
        refused = _line_with(output, NO_SERVER)
        if refused:
            raise ToolError("there is no gdb server", where=command, why=refused,
                            fix="start one, for example `st-util` or `openocd`, and name it with --server")
        matched = MATCHED.findall(output)
        if "MIS-MATCHED" in output or ".isr_vector" not in matched or ".text" not in matched:
            raise ToolError("what was read back differs from what was written", where=command, why=said)
    if status != 0:
        raise ToolError(f"{argv[0]} failed with status {status}", where=command, why=said)


class EmulatedBoard:
    """The emulated board, powered on with empty flash and halted, until `flash` has loaded a program.

    Use it in a `with` statement. TargetError: the target has no machine of that kind.
    """

    def __init__(self, target: Target) -> None:
        if not target.port_files.memory_map:
            raise TargetError(f"{target.name} has no emulated board to flash",
                              fix="bnngen run needs no flashing")
        self.target = target
        self._folder = Folder()
        self._line, self.server = self._folder.path / "uart", str(self._folder.path / "gdb")
        argv = emulate.machine_command(target, *emulate.gdb_options(self.server),
                                       *emulate.uart_options(self._line))
        self._process = Process(argv, pipes=False)
        self._transport = open_socket(self._line, f"{target.emulator.program}, flashed by gdb", self._process)

    def __enter__(self) -> EmulatedBoard:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()
        self._folder.close()

    def flash(self, image: Path) -> str:
        """Load an ELF file, compare every section, and let it run. Returns what gdb said."""
        return flash(self.target, image, FlashOptions(tool="gdb", server=self.server))

    @property
    def transport(self) -> Transport:
        """The board's UART."""
        return self._transport
