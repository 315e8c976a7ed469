# SPDX-License-Identifier: Apache-2.0
"""The whole story: load -> passes -> lower -> plan -> emit. Read this file first.

model.onnx -> Graph(float) -> Graph(integer) -> Program -> Plan -> build/<model>-<target>/
                  `--- float32, the reference --> Program -> ...
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from bnngen import ir
from bnngen.emit import emit_project
from bnngen.errors import BudgetError
from bnngen.frontend import load_onnx
from bnngen.lower import SCORE_STEP, lower, lower_float32
from bnngen.lower.learning import LearnConfig, LearningProgram, learn_buffers, learning_constants
from bnngen.lower.program import Program
from bnngen.passes import Options, run_float_passes, run_passes
from bnngen.passes.latent import latent_ops
from bnngen.plan import LEARN_PREFIX, LearnBuffer, Plan, make_plan
from bnngen.targets import Target

HEAD_BUFFERS = frozenset(f"{LEARN_PREFIX}{name}" for name in ("dw", "cw", "tw", "wq"))  # capacity x features each


@dataclass(frozen=True)
class BuildOptions:
    """What the user may choose for one build. kernels: "auto", or "ref" for the reference kernels.

    float32: compute the float graph instead, as a reference; then activation_bits and learn say nothing.
    """

    kernels: str = "auto"
    activation_bits: int = 16
    learn: LearnConfig = field(default_factory=LearnConfig)
    float32: bool = False


@dataclass(frozen=True)
class Compiled:
    """Every stage of one build, up to the addresses. learning is None for a model without a cut, and in float32.

    graph: the integer graph; the float graph of a float32 build.
    """

    target: Target
    graph: ir.Graph
    program: Program
    learning: LearningProgram | None
    plan: Plan

    @property
    def is_float(self) -> bool:
        """True for a float32 build."""
        return self.program.is_float

    @property
    def score_step(self) -> float:
        """What an int32 score counts, in the units of the Keras model."""
        return SCORE_STEP if self.is_float else self.graph.tensors[self.graph.output].uniform_scale


def compile_model(model: Path, target: Target, options: BuildOptions) -> Compiled:
    """Read a model and take it through every stage but the last. Nothing is written.

    Raises ModelError for a model that is not supported, UsageError for options that cannot work.
    """
    if options.float32:
        graph = run_float_passes(load_onnx(model))
        program = lower_float32(graph, options.kernels)
        return Compiled(target, graph, program, None, make_plan(program))
    graph = run_passes(load_onnx(model), Options(options.activation_bits))
    latent = latent_ops(graph)
    program = lower(
        graph, frozenset(target.features), options.kernels, latent and (latent.pack, latent.unpack)
    )
    learning = learning_constants(graph, options.learn) if latent else None
    extra = [LearnBuffer(*buffer) for buffer in learn_buffers(learning)] if learning else []
    return Compiled(target, graph, program, learning, make_plan(program, extra))


def write_project(compiled: Compiled, folder: Path, name: str) -> Path:
    """Write the complete C project to folder/<name>-<target>/ and return that directory.

    Raises BudgetError, and writes nothing, for a program that the target cannot hold.
    """
    check_ram(compiled)
    directory = project_folder(folder, name, compiled.target)
    emit_project(compiled.program, compiled.plan, compiled.learning, compiled.target, directory)
    return directory


def project_folder(folder: Path, name: str, target: Target) -> Path:
    """Return where the project of a model file called `name` stands: two files of one model are two projects."""
    return folder / f"{name}-{target.name}"


def ram_needed(compiled: Compiled) -> int:
    """Return the bytes of RAM that the plan asks for: the arena, one image, the reserved stack."""
    image = math.prod(compiled.program.image)
    return compiled.plan.arena_bytes + image + compiled.target.budget.stack_bytes


def check_ram(compiled: Compiled) -> None:
    """Raise BudgetError when the plan asks for more RAM than the target has.

    Checked before any C is written; the linker and the finished program are checked again (device/size.py).
    """
    plan, target, needed = compiled.plan, compiled.target, ram_needed(compiled)
    excess = needed - target.budget.ram_bytes
    if excess <= 0:
        return
    largest = sorted(plan.buffers, key=lambda buffer: -buffer.bytes)[:4]
    step = plan.timeline[plan.peak_step].title
    raise BudgetError(
        f"{compiled.program.name} needs {needed:,} bytes of RAM, {target.name} has {target.budget.ram_bytes:,}",
        where=f"{excess:,} bytes too many; step {plan.peak_step} ({step}) needs the most at once",
        why="largest: " + ", ".join(f"{buffer.name} {buffer.bytes:,}" for buffer in largest),
        fix=_less_ram(compiled, {buffer.name for buffer in largest}),
    )


def _less_ram(compiled: Compiled, largest: set[str]) -> str:
    """Return what to try, what helps most first. largest: names of the buffers that take most."""
    if compiled.is_float:
        return "--activations int8 or int16, a smaller model, or a larger target"
    other = "a smaller model, or a larger target"
    if compiled.learning is None:
        return f"--activations int8, {other}"
    samples = "fewer --replay or --buffer samples"
    if not largest & HEAD_BUFFERS:
        return f"{samples}, --activations int8, {other}"
    holds = f"now {compiled.learning.capacity} classes"
    head = f"a smaller learned head, `bnngen export --capacity N` ({holds}), or none, `--cut none`"
    return f"{head}; {samples}, --activations int8, {other}"
