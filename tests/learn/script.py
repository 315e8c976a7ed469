# SPDX-License-Identifier: Apache-2.0
"""Scripts of learner calls, for the C harness and for the twin; both give one line of checksums a call."""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnngen.continual.twin import Twin
from bnngen.ir import S8, S16, Graph, HeadInput, Latent, ModelMeta, Tensor
from bnngen.lower.learning import LearnConfig, learning_constants
from bnngen.lower.learning.view import MEMORY_FIELDS, learn_view

HERE = Path(__file__).parent
RUNTIME = HERE.parents[1] / "runtime_c"
SOURCES = [*sorted((RUNTIME / "learn").glob("*.c")), HERE / "harness.c"]
WARNINGS = [
    "-std=c99",
    "-Wall",
    "-Wextra",
    "-pedantic",
    "-Wconversion",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Werror",
]
OPS = {"begin": 1, "add": 2, "step": 3, "end": 4, "abandon": 5, "scores": 6, "forget": 7, "decide": 8, "restore": 9}
OPS["merge"] = 10
HEAD_SYMBOLS = ("bnn_head_cwr16", "bnn_head_cwr32", "bnn_head_float", "bnn_head_mean", "bnn_head_lda")
REPLAY_SYMBOLS = ("", "bnn_replay_stored", "bnn_replay_generative")
VALUED = ("add", "scores", "forget", "decide", "restore", "merge")
Call = tuple[str, int, tuple[int, ...]]  # name; label, or row to score; latent


@dataclass(frozen=True)
class Case:
    """A head, its options, a table of stream features [rows, D], and the calls to make."""

    head: HeadInput
    scale: float
    words: int
    config: LearnConfig
    table: np.ndarray
    seed: int = 1

    @property
    def graph(self) -> Graph:
        """The smallest integer graph that carries the metadata."""
        dtype = {1: S8, 2: S16}[self.table.itemsize]
        cut = Latent("cut", (0.0,) * 32, (0.0,) * 32, (1.0,) * 32)
        tensors = {
            "cut": Tensor("cut", (self.words, 1, 32), dtype, self.scale),
            "features": Tensor("features", self.table.shape[1:], dtype, self.scale),
        }
        meta = ModelMeta("toy", ("a", "b"), (), 1.0, 0.0, latent=cut, head=self.head)
        return Graph((), tensors, "cut", "features", meta)

    def latent(self, row: int) -> tuple[int, ...]:
        """A latent that names a row of the table; its other words are filler."""
        return (row, *((row * 2654435761 + i) % 2**32 for i in range(1, self.words)))

    def twin(self) -> Twin:
        return Twin(
            self.head,
            self.scale,
            (self.table.shape[1], self.words),
            self.config,
            lambda latents: self.table[latents[:, 0] % len(self.table)],
            self.seed,
        )

    def encode(self, calls: Sequence[Call]) -> bytes:
        """Return the script: config, seed, parts, sizes of the memory, table, calls."""
        program = learning_constants(self.graph, self.config)
        view = learn_view("toy", program, _Zeros())
        sizes = {buffer.name: buffer.bytes for buffer in program.buffers}
        codes = {"BNN_S8": 1, "BNN_S16": 2}
        config = [codes.get(value) or int(value.rstrip("u")) for _, value in view.settings]
        parts = [struct.pack(f"<{len(config)}I", *(value % 2**32 for value in config))]
        parts.append(struct.pack("<Q", self.seed))
        words = [HEAD_SYMBOLS.index(view.head), REPLAY_SYMBOLS.index(view.replay), int(bool(view.centre))]
        words += [value % 2**32 for value in view.centre]
        words += [*(sizes.get(name, 0) for name in MEMORY_FIELDS), len(self.table)]
        parts.append(struct.pack(f"<{len(words)}I", *words))
        table = self.table.tobytes()
        parts.append(table + bytes(-len(table) % 4))
        for name, value, latent in calls:
            words = (OPS[name], *((value,) if name in VALUED else ()), *latent)
            parts.append(struct.pack(f"<{len(words)}I", *words))
        return b"".join(parts)


class _Zeros(dict):
    def __missing__(self, key: str) -> int:
        return 0


def twin_lines(case: Case, calls: Sequence[Call]) -> list[str]:
    """Run the calls on the twin; return the harness's lines."""
    twin, lines = case.twin(), []
    for name, value, latent in calls:
        extra = []
        if name == "add":
            status = twin.add(np.array(latent, np.uint32), value)
        elif name == "forget":
            status = twin.forget(value)
        elif name == "merge":
            status = twin.merge(value, latent[0], np.array(latent[2:], np.uint32).view(np.int32).astype(np.int64))
        elif name == "decide":
            status = twin.decide(twin.scores(case.table[value : value + 1])[0])
        elif name == "scores":
            status, extra = 0, [zlib.crc32(twin.scores(case.table[value : value + 1]).tobytes())]
        else:
            status = getattr(twin, name)()
        numbers = [OPS[name], status % 2**32, *(zlib.crc32(item) for item in twin.items()), *extra]
        lines.append(" ".join(f"{number:08x}" for number in numbers))
    return lines


def build(out: Path, compiler: Sequence[str], main: Sequence[str | Path]) -> Path:
    """Compile the learner and the harness with a platform's main; return the program."""
    paths = [f"-I{RUNTIME / 'include'}", f"-I{HERE}", *map(str, SOURCES), *map(str, main)]
    subprocess.run([*compiler, *WARNINGS, *paths, "-o", str(out)], check=True, timeout=120)
    return out


def program_lines(command: Sequence[str], timeout: int = 60) -> list[str]:
    """Run a harness; return its lines. A sanitizer's report fails the run."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{command} returned {done.returncode}\n{done.stderr}"
    return done.stdout.splitlines()


def experience(case: Case, rows: Sequence[int], labels: Sequence[int], fresh: int) -> list[Call]:
    """begin, one add per row, steps until the learner is done and one more, end, one scoring."""
    calls: list[Call] = [("begin", 0, ())]
    calls += [("add", int(label), case.latent(int(row))) for row, label in zip(rows, labels, strict=True)]
    calls += [("step", 0, ())] * (case.config.epochs * -(-min(len(rows), case.config.buffer) // fresh) + 1)
    return [*calls, ("end", 0, ()), ("scores", int(rows[0]) if len(rows) else 0, ())]


def play(case: Case, shows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Call]:
    """Return the calls of several experiences, each given as (rows, labels), with the steps they need."""
    calls: list[Call] = []
    known: set[int] = set()
    for rows, labels in shows:
        new = {int(label) for label in labels}
        calls += experience(case, rows, labels, fresh_samples(case.config, len(new), len(known)))
        known |= new
    return calls


def fresh_samples(config: LearnConfig, new: int, old: int) -> int:
    """Return the new samples of a minibatch; exact where every class fits the buffer and the memory."""
    if not old or not new:
        return config.batch
    return config.new_per_batch or max(1, int(config.batch * new / (new + old) + 0.5))
