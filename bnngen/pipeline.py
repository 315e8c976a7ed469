# SPDX-License-Identifier: Apache-2.0
"""The whole story: load -> passes -> lower -> plan -> emit. Read this file first.

model.onnx -> Graph(float) -> Graph(integer) -> Program -> Plan -> build/<model>-<target>/
                  `--- float32, the reference --> Program -> ...
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from bnngen import ir
from bnngen.emit import emit_project
from bnngen.errors import BudgetError
from bnngen.frontend import load_onnx
from bnngen.lower import SCORE_STEP, lower, lower_float32
from bnngen.lower.learning import LearnConfig, LearningProgram, learn_buffers, learning_constants
from bnngen.lower.program import Program, tail_hash
from bnngen.lower.tail import TailSpec
from bnngen.lower.tail_constants import TailConfig, TailProgram, tail_constants
from bnngen.lower.tail_spec import tail_spec
from bnngen.lower.tail_view import PREFIX, tail_config, tail_const_bytes
from bnngen.passes import Options, run_float_passes, run_passes
from bnngen.passes.latent import latent_ops
from bnngen.plan import LEARN_PREFIX, LearnBuffer, Plan, make_plan
from bnngen.targets import Target

HEAD_BUFFERS = frozenset(f"{LEARN_PREFIX}{name}" for name in ("dw", "cw", "tw", "wq"))  # capacity x features each
MOMENTS = frozenset(f"{LEARN_PREFIX}{name}" for name in ("moments", "new_moments"))  # features x features each


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
    def tail_options(self) -> tuple[TailSpec, TailConfig] | None:
        """What the trained blocks are, and how they learn; None where the network is frozen."""
        tail = self.learning.tail if self.learning else None
        return (tail.spec, tail.config) if tail else None

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
    return compile_graph(load_onnx(model), target, options)


def compile_graph(real: ir.Graph, target: Target, options: BuildOptions) -> Compiled:
    """Take an imported graph through the stages of an integer build, as compile_model does."""
    graph = run_passes(real, Options(options.activation_bits))
    latent = latent_ops(graph)
    tail = trained_tail(real, graph, options.learn)
    program = lower(
        graph, frozenset(target.features), options.kernels, latent and (latent.pack, latent.unpack)
    )
    learning = learning_constants(graph, options.learn, tail) if latent else None
    if tail is not None:
        program = replace(program, model_hash=tail_hash(program.model_hash, tail.spec))
    extra = [LearnBuffer(*buffer) for buffer in learn_buffers(learning)] if learning else []
    return Compiled(target, graph, program, learning, make_plan(program, extra, trained_tail=tail is not None))


def trained_tail(real: ir.Graph, integer: ir.Graph, config: LearnConfig) -> TailProgram | None:
    """Return the blocks that are trained on the device; None where the network is frozen."""
    if config.tail == 0:
        return None
    return tail_constants(tail_spec(real, integer, config.tail), tail_config(config))


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


def const_needed(compiled: Compiled) -> int:
    """Return the bytes of constants in flash: the network's, and what trained blocks start from."""
    tail = compiled.learning.tail if compiled.learning else None
    return compiled.program.const_bytes + (tail_const_bytes(tail) if tail else 0)


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
    if any(name.startswith(f"{LEARN_PREFIX}{PREFIX}") for name in largest):
        return _smaller_tail(compiled.learning) + f"; {samples}, or a larger target"
    if largest & MOMENTS:
        undo = "--no-undo (then no experience can be dropped), " if compiled.learning.config.undo else ""
        return f"{undo}--head mean, --activations int8, {other}"
    if not largest & HEAD_BUFFERS:
        return f"{samples}, --activations int8, {other}"
    holds = f"now {compiled.learning.capacity} classes"
    head = f"a smaller learned head, `bnngen export --capacity N` ({holds}), or none, `--cut none`"
    return f"{head}; {samples}, --activations int8, {other}"


def _smaller_tail(learning: LearningProgram) -> str:
    """Return what makes the memory of trained blocks smaller."""
    config, spec = learning.config, learning.tail.spec
    each = sum(b.bytes for b in learning.buffers if b.name.startswith(PREFIX)) // config.tail
    channels = f"fewer channels, now {spec.channels} (half of them take a quarter): `bnngen train --width`"
    fewer = f"--tail {config.tail - 1}" if config.tail > 1 else "--tail 0, the head alone"
    narrow = ", --q-bin 8" if config.q_bin > 8 else ""
    return f"fewer trained blocks, {fewer} ({each:,} bytes each){narrow}; {channels}"
