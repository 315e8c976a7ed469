# SPDX-License-Identifier: Apache-2.0
"""The compiled programs of an experiment, one per model and set of options, and the memory that each plans."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from bnngen.device.compile import build_project
from bnngen.errors import UsageError
from bnngen.pipeline import BuildOptions, Compiled, compile_model, write_project
from bnngen.plan import PERSISTENT, Plan
from bnngen.simulate.cache import alone
from bnngen.simulate.config import Memory
from bnngen.targets import load_target

SOURCES = {".c", ".h"}
# Persistent in the plan, because several calls use it, but of the open experience alone: rows and sums in training, new
# samples, their order, the factor of a covariance.
OPEN = ("cur", "tw", "order", "factor", "penalty")
OPEN_PARTS = ("buffer_", "new_", "hold_new_", "tail_training_")


@dataclass(frozen=True)
class BuiltProgram:
    """A compiled project for this machine. sources: checksum of its C files."""

    compiled: Compiled
    folder: Path
    sources: str
    memory: Memory


def build_program(model: Path, options: BuildOptions, folder: Path) -> BuiltProgram:
    """Generate and compile a model in folder/NAME-host. Raises what `bnngen build` raises, and UsageError for a model
    without a learned head."""
    target = load_target("host")
    compiled = compile_model(model, target, options)
    if compiled.learning is None:
        raise UsageError(
            f"{model} has no learned head",
            where="--model",
            why="it was exported without a cut, or ends in something else than a Dense layer",
            fix="export it again with a cut: bnngen export MODEL --cut features",
        )
    with alone(folder / "lock"):
        project = write_project(compiled, folder, model.stem)
        build_project(project, target)
    return BuiltProgram(compiled, project, sources_sum(project), learning_memory(compiled.plan))


def sources_sum(project: Path) -> str:
    """Return a checksum over the names and bytes of a project's C files."""
    digest = hashlib.sha256()
    for path in sorted(p for p in project.rglob("*") if p.suffix in SOURCES):
        digest.update(f"{path.relative_to(project)} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def learning_memory(plan: Plan) -> Memory:
    """Return the bytes that learning takes in a plan.

    peak: alive at once in a learning step: state, samples, gradients, and the tensors of unpack and tail. What only
    `front` needs is inference's. state: the persistent buffers that must survive between experiences.
    """
    items = {name: plan.buffer(f"learn/{name}").bytes for name in plan.learn_offsets()}
    persistent = {b.name.removeprefix("learn/"): b.bytes for b in plan.buffers if b.kind == PERSISTENT}
    state = sum(size for name, size in persistent.items() if name not in OPEN and not name.startswith(OPEN_PARTS))
    steps = [index for index, step in enumerate(plan.timeline) if step.segment == "learn"]
    peak = max(sum(b.bytes for b in plan.alive(step)) for step in steps)
    return Memory(state, peak, items)
