# SPDX-License-Identifier: Apache-2.0
"""`bnngen demo`: the whole path once, on real images, told as a short story.

The backbone is trained on the digits 0 to 4 alone. The emulated board has never seen a 5 to 9 until it is
shown them, one at a time, and learns each from pixels.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np

from bnngen import validate as checks
from bnngen.cli import learning
from bnngen.cli.build import make
from bnngen.cli.console import heading, kib, progress, say, short
from bnngen.cli.data import load_data
from bnngen.cli.model import SEED, require_training
from bnngen.data import Dataset
from bnngen.device.compile import BuildResult
from bnngen.device.session import Where, connect
from bnngen.device.size import ProgramSize
from bnngen.errors import BnngenError
from bnngen.pipeline import BuildOptions, Compiled
from bnngen.session import Outcome
from bnngen.targets import load_target

TARGETS = ("host", "rpi4", "stm32f405")
Made = tuple[Compiled, BuildResult, ProgramSize]


@contextmanager
def chapter(number: int, title: str) -> Iterator[None]:
    """Print a heading, and the seconds that the chapter took."""
    heading(f"{number}. {title}")
    start = time.monotonic()
    yield
    say(f"   ({time.monotonic() - start:.0f} s)")


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("build/demo"),
    show_default=True,
    help="Where the trained and the exported model go.",
)
@click.option("--seed", type=SEED, default=1, show_default=True, help="Of training and of the learner.")
@click.option("--epochs", type=click.IntRange(min=1), help="Of training. Default: as `bnngen train` chooses.")
def demo(folder: Path, seed: int, epochs: int | None) -> None:
    """The whole path once: train on five digits, build for three targets, learn the other five on the device."""
    require_training()
    folder.mkdir(parents=True, exist_ok=True)
    keras = folder / "digits.keras"
    with chapter(1, "Train a binary network in Larq, on the handwritten digits 0 to 4 alone"):
        _train(keras, seed, epochs)
    with chapter(2, "Export it to one ordinary ONNX file"):
        _export(keras)
    with chapter(3, "Generate C99 and compile it for three targets"):
        made = [_build(keras.with_suffix(".onnx"), name) for name in TARGETS]
    with chapter(4, "Is it the same network everywhere?"):
        _compare(made, load_data("digits"))
    with chapter(5, "Learn 5, 6, 7, 8, 9 on this computer, one new digit at a time, from pixels"):
        here = _learn(made[0], seed)
    with chapter(6, "Learn them on the emulated STM32F405: the objects a board is flashed with"):
        board = _learn(made[2], seed)
        _same_state(here, board)
    say("\nNext: docs/results.md has CIFAR-10; `bnngen flash --model digits --dry-run` is how a board is written.")


def _train(keras: Path, seed: int, epochs: int | None) -> None:
    from bnngen.train.config import TrainConfig
    from bnngen.train.trainer import train

    config = TrainConfig(
        backbone="quicknet-nano",
        data="digits",
        out=keras,
        classes=(0, 1, 2, 3, 4),
        seed=seed,
        restart=True,
        epochs=epochs,
    )
    with progress() as report:
        result = train(config, report)
    say(f"   {short(keras)}: {result.test_accuracy:.1%} of the test images of 0 to 4 are right")


def _export(keras: Path) -> None:
    from bnngen.export.config import ExportConfig
    from bnngen.export.exporter import export_model

    with progress() as report:
        result = export_model(ExportConfig(keras, keras.with_suffix(".onnx")), report)
    say(
        f"   {short(result.path)}: {kib(result.file_bytes)}; onnxruntime and Keras differ by at most "
        f"{result.check.max_difference:.1g} in a score"
    )


def _build(model: Path, name: str) -> Made:
    compiled, built, size = make(model, load_target(name), BuildOptions())
    say(
        f"   {name:<10} flash {kib(size.flash_bytes):>10}   RAM {kib(size.ram_bytes):>10}   of which learning and "
        f"activations {kib(compiled.plan.arena_bytes)}"
    )
    return compiled, built, size


def _compare(made: list[Made], data: Dataset) -> None:
    """Scores of every image, equal bit for bit from the interpreter on; layers for one image."""
    images = np.concatenate([data.x_test, data.x_train])
    with progress() as report:
        stages = [checks.interpreter_stage(made[0][0].graph, images, report)]
        for compiled, built, _ in made:
            with connect(built, Where()) as client:
                name = built.target.name
                stages.append(checks.device_stage(name, client, images, report))
                difference = checks.first_difference(compiled.graph, client, images[0])
            if difference:
                raise BnngenError(f"{name}: {difference}", fix="try bnngen validate --kernels ref")
    result = checks.compare(stages, None)
    for row in result.rows[1:]:
        verdict = "every score equal, bit for bit" if row.exact else "NOT equal"
        say(f"   {row.name:<10} {row.images:>5} images: {verdict}")
    if not result.passed:
        raise BnngenError("the targets do not agree", fix="try bnngen validate --kernels ref")
    say(f"   predicted as 0 to 4: {result.histogram} (it knows no other digit yet)")


def _learn(made: Made, seed: int) -> list[Outcome]:
    compiled, built, _ = made
    request = learning.Request(
        data="digits", first=None, per_experience=1, order=None, train_limit=None, test_limit=None, seed=seed,
        compare=False, check=False, as_json=False, out=None,
    )  # fmt: skip
    outcomes = learning.run(compiled, built, Where(), request)
    before = outcomes[0].accuracy_all
    say(
        f"   of all ten digits {before:.1%} were right before, {outcomes[-1].accuracy_all:.1%} after; "
        f"{len(outcomes) - 1} new classes, none of them known to the backbone"
    )
    return outcomes


def _same_state(here: list[Outcome], board: list[Outcome]) -> None:
    """Weights, counters, replay memory and generator: equal on both machines after every experience."""
    if [outcome.state for outcome in here] != [outcome.state for outcome in board]:
        raise BnngenError("the board learned something else than this computer", fix="try bnngen learn --check")
    say("   what the board has learned is what this computer has learned: every byte of it, after every experience")
