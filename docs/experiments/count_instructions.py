# SPDX-License-Identifier: Apache-2.0
"""Bytes and instructions of learning, for docs/continual-results.md: the C of runtime_c/learn in QEMU, counted exactly.

    PYTHONPATH=. python docs/experiments/count_instructions.py [-o TABLE.csv]

A script of calls runs twice in the harness of the tests, once with the call in question and once with one in its place
that is refused at once: the difference is what the call executes. Needs gcc, arm-none-eabi-gcc, qemu-system-arm,
aarch64-linux-gnu-gcc and qemu-aarch64 of QEMU 7.2.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnngen.ir import HeadInput, HeadMap
from bnngen.lower.learning import LearnConfig, learning_constants
from bnngen.lower.tail_constants import TailConfig, tail_buffers
from bnngen.simulate.programs import OPEN, OPEN_PARTS
from tests.learn import script as heads
from tests.tail import script as tails

HERE = Path(__file__).parent
LEARN = heads.HERE
CLASSES, FEATURES, WORDS, ROWS = 10, 128, 4, 640
FLAGS = ["-O2", "-std=c99"]
BARE = ["-mcpu=cortex-m4", "-mthumb", "-ffreestanding", "-nostdlib", "-DHARNESS_WORDS=480000"]
MAP = """MEMORY { code (rx) : ORIGIN = 0, LENGTH = 4M  sram (rw) : ORIGIN = 0x20000000, LENGTH = 4M }
SECTIONS {
  .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) } > code
  .ARM.exidx : { *(.ARM.exidx*) } > code
  .bss (NOLOAD) : { *(.bss*) *(COMMON) } > sram
  .data : { *(.data*) } > sram
  stack_top = ORIGIN(sram) + LENGTH(sram);
}
"""  # of the emulated MPS2 board with a Cortex-M4: room for any learner
REFUSED = ("begin", 0, ())  # while an experience is open


@dataclass(frozen=True)
class Counter:
    """Runs scripts; folder: for what is built."""

    folder: Path

    def plugin(self) -> Path:
        out = self.folder / "count.so"
        if not out.exists():
            source = HERE / "count_instructions.c"
            subprocess.run(["gcc", *FLAGS, "-shared", "-fPIC", str(source), "-o", str(out)], check=True)
        return out

    def cortex_m4(self, sources: Sequence[Path], script: bytes) -> int:
        """Return the instructions of a whole run on a bare Cortex-M4, the script linked in."""
        place, image, layout = (self.folder / name for name in ("script.bin", "m4.elf", "m4.ld"))
        place.write_bytes(script)
        layout.write_text(MAP)
        compiler = ["arm-none-eabi-gcc", *FLAGS, *BARE]
        objects = self._objects("m4", compiler, [*sources, LEARN / "main_cortexm.c"])
        link = [f"-Wl,-T,{layout}", f'-DSCRIPT="{place}"', str(LEARN / "script.S"), "-lgcc", "-o", str(image)]
        subprocess.run([*compiler, *objects, *link], check=True, timeout=120)
        machine = ["qemu-system-arm", "-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none"]
        return self._run([*machine, "-semihosting-config", "enable=on,target=native", "-kernel", str(image)])

    def aarch64(self, sources: Sequence[Path], script: bytes) -> int:
        """Return the instructions of a whole run of a 64-bit Arm program."""
        place, image = self.folder / "script.bin", self.folder / "a64"
        place.write_bytes(script)
        compiler = ["aarch64-linux-gnu-gcc", *FLAGS, "-static"]
        objects = self._objects("a64", compiler, [*sources, LEARN / "main_host.c"])
        subprocess.run([*compiler, *objects, "-o", str(image)], check=True, timeout=120)
        return self._run(["qemu-aarch64", str(image), str(place)])

    def _objects(self, kind: str, compiler: Sequence[str], sources: Sequence[Path]) -> list[str]:
        """Compile what has not been compiled yet."""
        objects = [self.folder / f"{kind}-{source.parent.name}-{source.stem}.o" for source in sources]
        include = [f"-I{heads.RUNTIME / 'include'}", f"-I{LEARN}"]
        for source, out in zip(sources, objects, strict=True):
            if not out.exists():
                subprocess.run([*compiler, *include, "-c", str(source), "-o", str(out)], check=True, timeout=120)
        return [str(path) for path in objects]

    def _run(self, command: Sequence[str]) -> int:
        command = [command[0], "-plugin", str(self.plugin()), *command[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=True)
        lines = [line for line in done.stderr.splitlines() if line.startswith("instructions ")]
        return int(lines[-1].split()[1])


# --- heads and memories ----------------------------------------------------------------------------------------------


def head_case(**options: object) -> heads.Case:
    """A head of ten classes on 128 features of 16 bits, which it reads as centred roots; latents of 16 bytes."""
    random = np.random.default_rng(1)
    table = random.integers(0, 8000, (ROWS, FEATURES)).astype("<i2")
    mean = tuple(np.sqrt(table * 2.0**-10).mean(axis=0).tolist())
    head = HeadInput("features", 0.0, 8.0, CLASSES, HeadMap(True, mean, -1.6, 1.6))
    return heads.Case(head, 2.0**-10, WORDS, LearnConfig(capacity=CLASSES, **options), table)


def shown(case: heads.Case, labels: Sequence[int]) -> list[heads.Call]:
    """begin, and 300 samples of the given classes."""
    rows = np.random.default_rng(2).permutation(ROWS)[:300]
    adds = [("add", labels[i % len(labels)], case.latent(int(row))) for i, row in enumerate(rows)]
    return [("begin", 0, ()), *adds]


STEPS = 6 * 19  # no experience below is longer
STEP: heads.Call = ("step", 0, ())


def gradient_calls(case: heads.Case) -> dict[str, tuple[list, list]]:
    """Return what is counted of a gradient head: (calls before, calls)."""
    first = [*shown(case, (0, 1)), *[STEP] * STEPS, ("end", 0, ())]
    second = [*first, *shown(case, (2, 3)), STEP]
    trained = [*second, *[STEP] * STEPS]
    return {
        "step of 64 samples, half of them replayed": (second, [STEP]),
        "end: takes over, refills": (trained, [("end", 0, ())]),
    }


def analytic_calls(case: heads.Case) -> dict[str, tuple[list, list]]:
    """Return what is counted of an analytic head: one sample, and the whole solution."""
    first = shown(case, tuple(range(CLASSES)))
    solve = 40 + 2 * FEATURES
    return {"one sample": (first[:-1], [first[-1]]), "solution": (first, [STEP] * solve)}


def head_rows(counter: Counter) -> list[dict[str, object]]:
    """Return the table's rows of heads and replay memories."""
    rows = []
    for name, options in GRADIENT.items():
        rows += _head_rows(counter, name, head_case(**options), gradient_calls(head_case(**options)))
    for name, options in ANALYTIC.items():
        rows += _head_rows(counter, name, head_case(**options), analytic_calls(head_case(**options)))
    return rows


GRADIENT = {
    "CWR* 8/16": {},
    "CWR* 8/16, generative memory": {"policy": "generative"},
    "CWR* 8/8": {"q_b": 8},
    "CWR* 8/32": {"q_b": 32},
    "CWR* float32": {"head": "float32"},
}
ANALYTIC = {"nearest mean": {"head": "mean"}, "discriminants (lda)": {"head": "lda"}}


def _head_rows(counter: Counter, name: str, case: heads.Case, counted: dict[str, tuple]) -> list[dict[str, object]]:
    program = learning_constants(case.graph, case.config)
    sizes = {buffer.name: (buffer.bytes, buffer.kind) for buffer in program.buffers}
    rows = []
    for what, (before, calls) in counted.items():
        idle = [REFUSED] * len(calls)
        found = [
            run(heads.SOURCES, case.encode([*before, *calls])) - run(heads.SOURCES, case.encode([*before, *idle]))
            for run in (counter.cortex_m4, counter.aarch64)
        ]
        rows.append(_row(name, what, sizes, found))
    return rows


# --- the trainable tail ----------------------------------------------------------------------------------------------


def tail_rows(counter: Counter) -> list[dict[str, object]]:
    """Return the table's rows of one trained block of 64 channels, with ReLUs."""
    rows = []
    for side in (4, 8):
        shape = tails.Shape(64, side, side, 1, relu=True, last_relu=True)
        spec, config = tails.random_tail(shape, 1), TailConfig()
        sizes = {name: (size, kind) for name, size, _, kind in tail_buffers(spec, config)}
        random = np.random.default_rng(0)
        latent = random.integers(0, 2**32, (side, side, 2), dtype=np.uint32)
        dx = random.integers(-(2**16), 2**16, 64).astype(np.int32)
        sample = [("replay", 1, latent), ("backward", 16, dx)]
        start = [("prepare", 0, None), ("clear", 0, None), *sample]
        counted = {"forward and backward of one sample": sample, "step of the parameters": [("update", 0, None)]}
        for what, calls in counted.items():
            found = [
                run(tails.SOURCES, tails.encode(spec, config, [*start, *calls], 1, quiet=True))
                - run(tails.SOURCES, tails.encode(spec, config, start, 1, quiet=True))
                for run in (counter.cortex_m4, counter.aarch64)
            ]
            rows.append(_row(f"tail, 1 block of 64 channels, {side}x{side}", what, sizes, found))
    return rows


def _row(name: str, what: str, sizes: dict[str, tuple[int, str]], found: Sequence[int]) -> dict[str, object]:
    """state: bytes that must survive between experiences; learning: every buffer, alone, without the network's."""
    state = sum(
        size
        for key, (size, kind) in sizes.items()
        if kind == "persistent" and key not in OPEN and not key.startswith((*OPEN_PARTS, "training_"))
    )
    total = sum(size for size, _ in sizes.values())
    keys = ("configuration", "what", "state bytes", "all bytes", "Cortex-M4", "aarch64")
    return dict(zip(keys, (name, what, state, total, *found), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, help="a CSV file; otherwise standard output")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        counter = Counter(Path(folder))
        rows = [*head_rows(counter), *tail_rows(counter)]
    with out.open("w", newline="") if out else sys.stdout as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
