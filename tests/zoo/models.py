# SPDX-License-Identifier: Apache-2.0
"""Models of the zoo through the commands, each in a process of its own: so its time and its memory can be told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bnngen import interp
from bnngen.export import run_onnx
from bnngen.export.synthetic import natural_images
from bnngen.pipeline import BuildOptions, Compiled, compile_model
from bnngen.targets import load_target
from tests.peers import peer_environment

IMAGES = 8  # of the sixteen that the weights were made for
TIMEOUT_S = 900
GIB = 1 << 30


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds of the clock, seconds of all processors, its largest memory in bytes."""

    seconds: float
    cpu: float
    peak: int
    output: str


def _watch_memory(pid: int) -> int:
    """Wait until a process ends, and return its largest resident memory in bytes.

    Linux counts it from the start of the program; ru_maxrss would hold that of the process that started it too.
    """
    status, peak = Path(f"/proc/{pid}/status"), 0
    while True:
        lines = status.read_text(encoding="utf-8").splitlines()
        found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
        if not found:  # a process that has ended, and waits to be asked how
            return peak
        peak = max(peak, *found)
        time.sleep(0.02)


def command(folder: Path, *arguments: str) -> Cost:
    """Run a command of bnngen that must succeed."""
    argv = [sys.executable, "-m", "bnngen.cli", *arguments]
    log = folder / "command.log"
    start = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(argv, cwd=folder, env=peer_environment(), stdout=file, stderr=subprocess.STDOUT)
        peak = _watch_memory(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    output = log.read_text(encoding="utf-8", errors="replace")
    assert process.returncode == 0, output
    return Cost(time.monotonic() - start, usage.ru_utime + usage.ru_stime, peak, output)


class Exported:
    """A model of the zoo with random weights, as folder/NAME.onnx, and what is computed from it, each once."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.path = name, folder, folder / f"{name}.onnx"
        arguments = ("--weights", "none", "--cut", "none", "-o", self.path.name)
        self.cost = command(folder, "export", f"zoo:{name}", *arguments)

    def compiled(self, target: str, **options: object) -> Compiled:
        return compile_model(self.path, load_target(target), BuildOptions(**options))

    @cached_property
    def images(self) -> np.ndarray:
        """The model's synthetic images, uint8 [8, 224, 224, 3]: each has its own class (random_weights.py)."""
        return natural_images(IMAGES, (224, 224, 3), seed=zlib.crc32(self.name.encode()))

    @cached_property
    def onnx(self) -> np.ndarray:
        """onnxruntime's scores for the images."""
        return run_onnx(self.path, self.images)

    @cached_property
    def integers(self) -> np.ndarray:
        """The integer graph's scores, by its definition; an image at a time, since tensors are large."""
        graph = self.compiled("host").graph
        return np.concatenate([interp.run(graph, image[None]) for image in self.images])


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean correlation of two models' scores, [N, classes], over the images."""
    return float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]))


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Return the share of images on which two models choose the same class."""
    return float((a.argmax(axis=1) == b.argmax(axis=1)).mean())
