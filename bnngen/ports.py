# SPDX-License-Identifier: Apache-2.0
"""What of `runtime_c/port` each family of targets is built from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Port:
    """What of `runtime_c/port` a family of targets is built from. Paths are relative to `runtime_c`.

    sources:  belong to every program of the target
    programs: (suffix of the file name, the object that moves bytes); programs differ in nothing else
    memory_map: True where bnngen, not the operating system, decides on addresses: needs memory.ld
    """

    sources: tuple[str, ...]
    programs: tuple[tuple[str, str], ...]
    memory_map: bool


EMULATED = "_semihosting.elf"  # the program of a microcontroller that an emulator runs


def _stm32(family: str, emulated: bool = True) -> Port:
    """Return the port of an STM32 family: the core's start-up code, and the family's clock and UART."""
    programs = [("_uart.elf", f"port/{family}/port_uart.c")]
    if emulated:
        programs.append((EMULATED, "port/cortexm/port_semihosting.c"))
    sources = ("port/freestanding.c", "port/cortexm/startup.c", f"port/{family}/clock.c")
    return Port(sources, tuple(programs), memory_map=True)


PORTS = {
    "linux": Port((), (("", "port/linux/port_stdio.c"),), memory_map=False),
    "stm32f4": _stm32("stm32f4"),
    "stm32f7": _stm32("stm32f7"),
    "stm32h7": _stm32("stm32h7", emulated=False),
    "stm32g0": _stm32("stm32g0"),
}
PROTOCOL_SOURCES = ("protocol/frame.c", "protocol/server.c")
