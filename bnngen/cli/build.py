# SPDX-License-Identifier: Apache-2.0
"""`bnngen build`, `analyze`, `targets`, `doctor`: from the ONNX file to a program for a board."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from bnngen import analysis
from bnngen.cli.console import heading, kib, print_json, say, short, table
from bnngen.cli.memory import fits_of, learning_rows, print_fits, print_learning
from bnngen.cli.model import find_model
from bnngen.device.compile import BuildResult, build_project
from bnngen.device.doctor import examine
from bnngen.device.size import ProgramSize, check_budget, measure_size
from bnngen.errors import UsageError
from bnngen.frontend import load_onnx
from bnngen.learning_memory import learning_items
from bnngen.lower.learning import HEADS, POLICIES, LearnConfig
from bnngen.pipeline import BuildOptions, Compiled, compile_model, project_folder, write_project
from bnngen.targets import Target, load_target, target_names

BUILD_DIR = Path("build")
MADE_FROM = "model.sha256"  # in a finished project: checksum of the ONNX file that it was generated from
LEARN_OPTIONS = {  # field of LearnConfig -> the option that sets it
    "head": "head", "replay": "replay", "buffer": "buffer", "policy": "policy", "components": "components",
    "batch": "learn_batch", "new_per_batch": "new_per_batch", "epochs": "learn_epochs", "lr": "learn_rate",
    "q_f": "q_f", "q_b": "q_b",
    "hold_every": "hold_every", "hold": "hold", "hold_new": "hold_new", "accept_drop": "accept_drop",
    "accept_least": "accept_least", "accept_new": "accept_new",
    "reject": "reject",
    "projections": "projections", "projection_seed": "projection_seed", "shrinkage": "shrinkage",
    "exact_forget": "exact_forget", "undo": "undo",
    "tail": "tail", "tail_lr": "tail_rate", "latent_lr": "latent_rate", "tail_noise": "tail_noise",
    "q_bin": "q_bin",
}  # fmt: skip
ACTIVATIONS = {"int8": 8, "int16": 16, "float32": None}


class OrAuto(click.ParamType):
    """A value of another type, or the word auto, which becomes None."""

    def __init__(self, kind: click.ParamType) -> None:
        self.kind, self.name = kind, kind.name

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        return None if value in (None, "auto") else self.kind.convert(value, param, ctx)


class Policy(click.Choice):
    """A policy of the replay memory; balanced is also known as class-balanced."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        return super().convert("balanced" if value == "class-balanced" else value, param, ctx)


OPTIONS = (
    click.option("--kernels", type=click.Choice(["auto", "ref"]), default="auto", show_default=True,
                 help="ref: the reference kernels, the first tool for any wrong result."),
    click.option("--activations", type=click.Choice(list(ACTIVATIONS)),
                 help="Type of the real-valued stream between the layers. float32: the reference, inference only; it "
                 "tells whether accuracy is lost in the integers.  [default: int16]"),
    click.option("--activation-bits", type=click.Choice(["8", "16"]),
                 help="The same by the bits of an integer: 8 is int8, 16 is int16."),
    click.option("--head", type=click.Choice(list(HEADS)), default=LearnConfig.head, show_default=True,
                 help="Learning: what is learned. cwr: CWR*; cwr+: without its counts of samples; sgd: without "
                 "consolidation; float32: CWR* in floating point, the reference for the others. In one pass, without "
                 "replay: mean: nearest class mean; lda: linear discriminants; ridge: ridge regression."),
    click.option("--replay", type=int, default=LearnConfig.replay, show_default=True,
                 help="Learning: slots of the 1-bit replay memory; 0: none."),
    click.option("--buffer", type=int, default=LearnConfig.buffer, show_default=True,
                 help="Learning: slots for new latents of one experience."),
    click.option("--policy", type=Policy(list(POLICIES)), default=LearnConfig.policy, show_default=True,
                 help="Learning: what the replay memory keeps; balanced, or class-balanced: as many samples of each "
                 "class; random: any; generative: no samples, but a model of each class that stands for --replay "
                 "of them."),
    click.option("--components", type=click.IntRange(1, 16), default=LearnConfig.components, show_default=True,
                 help="Learning: components of a class in a generative memory."),
    click.option("--learn-batch", type=click.IntRange(1, 256), default=LearnConfig.batch, show_default=True,
                 help="Learning: samples of a minibatch."),
    click.option("--new-per-batch", type=click.IntRange(min=0), default=LearnConfig.new_per_batch, show_default=True,
                 help="Learning: how many samples of a minibatch are new ones, the others are replayed; "
                 "0: in proportion to the classes."),
    click.option("--learn-epochs", type=click.IntRange(1, 1000), default=LearnConfig.epochs, show_default=True,
                 help="Learning: how often each new sample is trained on."),
    click.option("--learn-rate", type=click.FloatRange(min=0, min_open=True), default=LearnConfig.lr,
                 show_default=True, help="Learning: step length of gradient descent."),
    click.option("--q-f", type=click.IntRange(4, 8), default=LearnConfig.q_f, show_default=True,
                 help="Learning: bits of features and weights in the forward pass."),
    click.option("--hold-every", type=int, default=LearnConfig.hold_every, show_default=True,
                 help="Learning: hold back every so manyth sample of a class, never to be trained on; 0: none. An "
                 "experience is judged by them."),
    click.option("--hold", type=int, default=LearnConfig.hold, show_default=True,
                 help="Learning: slots for held-back samples of past experiences."),
    click.option("--hold-new", type=int, default=LearnConfig.hold_new, show_default=True,
                 help="Learning: slots for those of the open experience."),
    click.option("--accept-drop", type=int, default=LearnConfig.accept_drop, show_default=True,
                 help="Learning: refuse an experience, and roll it back, when accuracy on held-back samples of known "
                 "classes falls by more percentage points."),
    click.option("--accept-least", type=int, default=LearnConfig.accept_least, show_default=True,
                 help="Learning: refuse it when less than this percentage of all held-back samples is right."),
    click.option("--accept-new", type=int, default=LearnConfig.accept_new, show_default=True,
                 help="Learning: refuse it when accuracy on its own held-back samples is below this percentage of that "
                 "on the kept ones before."),
    click.option("--projections", type=OrAuto(click.IntRange(min=0)), default="auto", show_default=True,
                 help="Learning with mean, lda, ridge: random combinations of the features beside them; auto: 256 "
                 "for ridge, otherwise 0."),
    click.option("--projection-seed", type=click.IntRange(0, 2**32 - 1), default=LearnConfig.projection_seed,
                 show_default=True, help="Learning: seed of these combinations; devices that merge need the same."),
    click.option("--shrinkage", type=OrAuto(click.FloatRange(0, 0.9)), default="auto", show_default=True,
                 help="Learning: lda: share of the identity in the scatter; ridge: penalty; auto: 0.05, ridge 0.03."),
    click.option("--exact-forget/--no-exact-forget", default=LearnConfig.exact_forget, show_default=True,
                 help="Learning with lda, ridge: second moments by class, so that a forgotten class leaves no trace."),
    click.option("--undo/--no-undo", default=LearnConfig.undo, show_default=True,
                 help="Learning with mean, lda, ridge: an open experience can be dropped. --no-undo saves the memory."),
    click.option("--reject", type=int, default=LearnConfig.reject, show_default=True,
                 help="Learning: answer \"unknown\" where the best score stands out less than for this percentage of "
                 "known samples; 0: never."),
    click.option("--q-b", type=click.Choice(["8", "16", "32"]), default=str(LearnConfig.q_b), show_default=True,
                 help="Learning: bits of stored weights and gradients. 32: twice the memory of 16."),
    click.option("--tail", type=click.IntRange(min=0), default=LearnConfig.tail, show_default=True,
                 help="Learning: how many residual blocks in front of the features are trained too; the model must be "
                 "exported with --cut tail:N."),
    click.option("--tail-rate", type=click.FloatRange(min=0, min_open=True), default=LearnConfig.tail_lr,
                 show_default=True, help="Learning: step length of the trained blocks' scales, biases and slopes."),
    click.option("--latent-rate", type=click.FloatRange(min=0, min_open=True), default=LearnConfig.latent_lr,
                 show_default=True, help="Learning: mean step of the trained blocks' latent weights, of 1.0."),
    click.option("--tail-noise", type=click.IntRange(0, 31), default=LearnConfig.tail_noise, show_default=True,
                 help="Learning with --tail: so many 32nds of a drawn latent's bits are flipped in training."),
    click.option("--q-bin", type=click.Choice(["8", "16"]), default=str(LearnConfig.q_bin), show_default=True,
                 help="Learning: bits of a latent weight."),
)  # fmt: skip
model_option = click.option("--model", default="model", show_default=True,
                            help="The ONNX file, or its name without .onnx.")  # fmt: skip
target_option = click.option("--target", default="host", show_default=True,
                             help="One of `bnngen targets`, or a .toml file that describes a board.")  # fmt: skip


def build_options(function: Callable) -> Callable:
    """Add the options that decide what is generated."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def options_from(values: dict) -> BuildOptions:
    """Turn the options of the command line into a request."""
    settings = {field: values[option] for field, option in LEARN_OPTIONS.items()}
    learn = LearnConfig(**settings | {key: int(values[key]) for key in ("q_b", "q_bin")})
    activations = chosen_activations(values["activations"], values["activation_bits"])
    if activations == "float32":
        _require_no_learning(learn)
        return BuildOptions(values["kernels"], float32=True)
    return BuildOptions(values["kernels"], ACTIVATIONS[activations], learn)


def chosen_activations(activations: str | None, bits: str | None) -> str:
    """Return the type of the stream. Raises UsageError where the two options that say it contradict each other."""
    if activations is None:
        return f"int{bits or 16}"
    if bits is not None and activations != f"int{bits}":
        raise UsageError(
            f"--activations {activations} and --activation-bits {bits} contradict each other",
            why=f"--activation-bits {bits} means --activations int{bits}",
            fix="leave one of the two out",
        )
    return activations


def _require_no_learning(learn: LearnConfig) -> None:
    """Raise UsageError where a float32 build is asked for learning options."""
    usual = LearnConfig()
    asked = [option for field, option in LEARN_OPTIONS.items() if getattr(learn, field) != getattr(usual, field)]
    if asked:
        names = ", ".join(f"--{option.replace('_', '-')}" for option in asked)
        raise UsageError(
            f"--activations float32 has no learned head for {names}",
            why="float32 is the reference for inference; learning is integer arithmetic (docs/adr/0003)",
            fix="leave them out, or build with --activations int8 or int16",
        )


def project_name(model: str | Path) -> str:
    """Return what a model's projects are called: the name of its file, without .onnx."""
    return Path(model).name.removesuffix(".onnx")


def make(model: Path, target: Target, options: BuildOptions) -> tuple[Compiled, BuildResult, ProgramSize]:
    """Generate, compile, and check the finished program against the target's memory."""
    compiled = compile_model(model, target, options)
    name = project_name(model)
    with alone(BUILD_DIR / f".{name}-{target.name}.lock"):
        made_from = project_folder(BUILD_DIR, name, target) / MADE_FROM
        if not made_from.is_file():
            _remove_objects(made_from.parent)
        made_from.unlink(missing_ok=True)  # until this build has ended well, nothing here may be flashed
        built = build_project(write_project(compiled, BUILD_DIR, name), target)
        size = measure_size(built.program(), target)
        check_budget(size, target)
        made_from.write_text(compiled.graph.meta.source["onnx_sha256"] + "\n", encoding="utf-8")
    return compiled, built, size


def _remove_objects(project: Path) -> None:
    """Forget what a build has compiled that was stopped: an object that is cut off is newer than its source."""
    for pattern in ("*.o", "*.a", "*.d"):
        for path in project.rglob(pattern):
            path.unlink()


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other command works on the same project, and keep others waiting until the end."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@click.command()
@click.argument("model", default="model")
@target_option
@build_options
def build(model: str, target: str, **values: object) -> None:
    """Write build/MODEL-TARGET/, a complete C project for a board, and compile it.

    MODEL is an ONNX file, or its name without .onnx (default: model).
    """
    compiled, built, size = make(find_model(model, ".onnx", "bnngen export"), load_target(target), options_from(values))
    report_build(compiled, built, size)


def report_build(compiled: Compiled, built: BuildResult, size: ProgramSize) -> None:
    """Say what was made and what it takes."""
    plan, budget = compiled.plan, compiled.target.budget
    say(f"{short(built.directory)}/  for {compiled.target.board.title}, compiled in {built.seconds:.1f} s")
    table(
        ["", "bytes", "of", "share"],
        [
            _share("flash", size.flash_bytes, budget.flash_bytes),
            _share("RAM, stack included", size.ram_bytes, budget.ram_bytes),
            ("  arena", f"{plan.arena_bytes:,}", "", ""),
            ("  of which inference, peak", f"{plan.inference_peak_bytes:,}", "", ""),
            *((name, count, "", "") for name, count in learning_rows(compiled)),
            ("  reserved stack", f"{size.stack_bytes:,}", "", ""),
        ],
        right=(1, 2, 3),
    )  # fmt: skip
    for path in built.programs.values():
        say(f"  {short(path)}")
    if compiled.is_float:
        say("float32, the reference: inference only, without a learned head")


def _share(name: str, used: int, budget: int) -> tuple[str, str, str, str]:
    return name, f"{used:,}", f"{budget:,}", f"{used / budget:.1%}"


@click.command()
@click.argument("model", default="model")
@target_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--fits", is_flag=True, help="What fits on which board, with more and more trained blocks; goes with "
              "--tail by itself.")  # fmt: skip
@build_options
def analyze(model: str, target: str, as_json: bool, fits: bool, **values: object) -> None:
    """Per layer: shape, precision, multiplications, bytes; the arena; learning memory; and whether it fits. Compiles
    nothing.

    MODEL is an ONNX file, or its name without .onnx (default: model).
    """
    path, chosen, options = find_model(model, ".onnx", "bnngen export"), load_target(target), options_from(values)
    compiled = compile_model(path, chosen, options)
    real = load_onnx(path) if not options.float32 and (fits or options.learn.tail) else None
    table_of = fits_of(real, chosen, options) if real else []
    memory = analysis.memory_use(compiled)
    costs = analysis.layer_costs(compiled.graph)
    if as_json:
        arithmetic = "float32" if compiled.is_float else "integer"
        document = {"model": compiled.program.name, "target": compiled.target.name, "arithmetic": arithmetic}
        document |= asdict(memory)
        document["learning"] = [asdict(item) for item in learning_items(compiled)]
        document["boards"] = [asdict(fit) | {"fits": fit.memory.fits} for fit in table_of]
        print_json({**document, "fits": memory.fits, "layers": [asdict(cost) for cost in costs]})
        return
    _print_layers(costs, compiled.is_float)
    heading(f"memory on {compiled.target.name}")
    say("one arena; below, a line is a step and a column an address: who lies there while the step runs")
    say(compiled.plan.to_text().rstrip())
    print_learning(compiled)
    if real:
        print_fits(real, table_of)
    _print_fit(memory)


def _print_layers(costs: list[analysis.LayerCost], is_float: bool) -> None:
    kind = "float" if is_float else "integer"

    def row(name: str, middle: tuple[str, ...], part: list[analysis.LayerCost]) -> tuple[str, ...]:
        sums = (sum(getattr(c, key) for c in part) for key in ("binary_macs", f"{kind}_macs", "weight_bytes"))
        return (name, *middle, *(f"{value:,}" for value in sums))

    rows = [row(c.name, (c.op, "x".join(map(str, c.shape)), c.precision), [c]) for c in costs]
    columns = ["layer", "op", "output", "precision", "binary MAC", f"{kind} MAC", "weight bytes"]
    table(columns, [*rows, row("total", ("", "", ""), costs)], (4, 5, 6))


def _print_fit(memory: analysis.MemoryUse) -> None:
    rows = [
        ("RAM", f"{memory.ram_bytes:,}", f"{memory.ram_budget_bytes:,}", "arena, one image, reserved stack"),
        ("flash", f"{memory.const_bytes:,}", f"{memory.flash_budget_bytes:,}", "constants; the code comes on top"),
    ]
    say()
    table(["", "bytes", "of", "what is counted"], rows, (1, 2))
    excess = ", ".join(f"{count:,} bytes of {kind} too many" for kind, count in memory.excess.items())
    say(f"it does NOT fit: {excess}" if excess else "it fits")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def targets(as_json: bool) -> None:
    """List the boards that bnngen builds for."""
    found = [load_target(name) for name in target_names()]
    if as_json:
        keys = ("name", "title", "core", "features", "ram_bytes", "flash_bytes")
        print_json(
            [
                dict(
                    zip(
                        keys,
                        (
                            t.name,
                            t.board.title,
                            t.cpu.core,
                            list(t.features),
                            t.budget.ram_bytes,
                            t.budget.flash_bytes,
                        ),
                        strict=True,
                    )
                )
                for t in found
            ]
        )
        return
    rows = [
        (t.name, t.board.title, t.cpu.core, kib(t.budget.ram_bytes), kib(t.budget.flash_bytes), t.run.method)
        for t in found
    ]
    table(["name", "board", "core", "RAM", "flash", "runs by"], rows, right=(3, 4))


@click.command()
def doctor() -> None:
    """Which tools are missing, and the command that installs each."""
    findings = examine()
    table(["tool", "needed for", "found"], [(f.name, f.purpose, f.version or "missing") for f in findings])
    missing = [f for f in findings if not f.version]
    for command in dict.fromkeys(f.install for f in missing):
        say(f"install: {command}")
    if not missing:
        say("nothing is missing")


COMMANDS = (build, analyze, targets, doctor)
