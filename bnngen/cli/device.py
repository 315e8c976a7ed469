# SPDX-License-Identifier: Apache-2.0
"""`bnngen run`, `learn`, `flash`: a built program, on the board or on its emulator."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from bnngen import ir
from bnngen import validate as checks
from bnngen.cli import learning
from bnngen.cli.build import (
    BUILD_DIR,
    MADE_FROM,
    build_options,
    make,
    model_option,
    options_from,
    project_name,
    target_option,
)
from bnngen.cli.console import progress, say, short, table
from bnngen.cli.data import fit_data, load_data, load_images, same_data
from bnngen.cli.model import find_model
from bnngen.device.compile import BuildResult, open_build
from bnngen.device.flash import FlashOptions, chosen_tool, flash_command, image_of
from bnngen.device.flash import flash as flash_program
from bnngen.device.session import METHODS, Where, connect
from bnngen.errors import UsageError
from bnngen.frontend import load_onnx
from bnngen.pipeline import Compiled, project_folder
from bnngen.targets import load_target

ALL_CLASSES, MOST_FREQUENT = 20, 10  # of up to 20 classes all are counted out, of more the ten most frequent
FIRST = learning.FIRST
DATA = "Images: digits, cifar10, cifar100, fashion_mnist, FILE.npz, or a FOLDER of images per class."

WHERE = (
    click.option("--on", "method", type=click.Choice(METHODS), help="Where it runs. Default: the target's own way."),
    click.option("--host", help="For --on ssh: user@machine."),
    click.option("--port", help="For --on serial: the line, for example /dev/ttyACM0."),
)


def where_options(function: Callable) -> Callable:
    """Add the options that say where a program runs."""
    for option in reversed(WHERE):
        function = option(function)
    return function


def where_from(values: dict) -> Where:
    """Pick where a program runs out of all options of the command."""
    return Where(values["method"], values["host"], values["port"])


def class_names(compiled: Compiled) -> list[str]:
    """Return the name behind each score: outputs stand for the trained classes, in their order."""
    meta = compiled.graph.meta
    return [meta.classes[i] for i in meta.trained_classes]


@click.command()
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option("--data", help="Instead of image files: the test images of a data set, named as for validate.")
@click.option("--limit", type=click.IntRange(min=1), help="With --data: this many images, from all over the set.")
@click.option("--load-state", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Classify by the learned head that `bnngen learn --save-state` left; give its learning options too.")
@model_option
@target_option
@build_options
@where_options
def run(images: tuple[Path, ...], data: str | None, limit: int | None, model: str, target: str, **values: Any) -> None:
    """Classify IMAGES (files), or the test images of --data, on the target or its emulator."""
    if bool(images) == (data is not None):
        raise UsageError(
            "run takes image files, or --data DATA, one of the two", where="bnngen run", fix="bnngen run --data digits"
        )
    compiled, built, _ = make(find_model(model, ".onnx", "bnngen export"), load_target(target), options_from(values))
    if values["load_state"] is not None:
        asked = _asked_of_files(compiled, images) if data is None else learning.asked_of(compiled, data, limit)
        learning.classify(compiled, built, where_from(values), values["load_state"], asked)
        return
    labels = None
    if data is None:
        names, pixels = [str(path) for path in images], load_images(images, compiled.program.image)
    else:
        pixels, labels = test_images(compiled.graph, data)
        count = min(limit or len(pixels), len(pixels))
        chosen = np.arange(count) * len(pixels) // count
        names, pixels, labels = [f"{i}" for i in chosen], pixels[chosen], None if labels is None else labels[chosen]
    with connect(built, where_from(values)) as client, progress() as report:
        scores = checks.device_stage(built.target.name, client, pixels, report).scores
    shown = len(names) if data is None else FIRST
    _print_classes(compiled, names[:shown], scores, labels)
    if data is not None:
        _print_totals(compiled, scores, labels)


def _asked_of_files(compiled: Compiled, paths: tuple[Path, ...]) -> learning.Asked:
    names, pixels = [str(path) for path in paths], load_images(paths, compiled.program.image)
    return learning.Asked(dict(zip(names, pixels, strict=True)), compiled.graph.meta.classes)


def _print_classes(compiled: Compiled, images: list[str], scores: np.ndarray, labels: np.ndarray | None) -> None:
    """Print one row an image; its right class too, where `labels` (indices of scores) are known."""
    names = class_names(compiled)
    scale = compiled.score_step
    rows = []
    for place, image in enumerate(images):
        order = np.argsort(-scores[place], kind="stable")[:3]
        best = ", ".join(f"{names[i]} {scores[place][i] * scale:.2f}" for i in order)
        right = () if labels is None else (names[labels[place]],)
        rows.append((image, names[order[0]], *right, best))
    table(["image", "class", *([] if labels is None else ["right"]), "best scores"], rows)


def _print_totals(compiled: Compiled, scores: np.ndarray, labels: np.ndarray | None) -> None:
    chosen = scores.argmax(axis=1)
    names = class_names(compiled)
    counts = np.bincount(chosen, minlength=len(names)).tolist()
    say(f"predicted of {len(chosen)} test images: " + predicted(names, counts))
    if labels is None:
        say("accuracy: unknown, these are not the data that the model's classes come from")
    else:
        say(f"accuracy: {(chosen == labels).mean():.2%}")


def predicted(names: list[str], counts: list[int]) -> str:
    """Say how often each class was predicted; of many classes, the most frequent."""
    pairs = list(zip(names, counts, strict=True))
    if len(pairs) <= ALL_CLASSES:
        return ", ".join(f"{name} {count}" for name, count in pairs)
    first = sorted(pairs, key=lambda pair: -pair[1])[:MOST_FREQUENT]
    shown = [f"{name} {count}" for name, count in first if count]
    several = sum(count > 0 for count in counts)
    return ", ".join(shown) + (f"; {several} of the {len(pairs)} classes in all" if several > len(shown) else "")


def test_images(
    graph: ir.Graph, spec: str, everything: bool = False, count: int | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the images of a data set that a model is tried on, and the index of the right score for each.

    graph: of either stage. everything: the training images too. count: instead, so many of random pixels.
    """
    shape = graph.tensors[graph.input].shape
    if count is not None:
        return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8), None
    data = fit_data(load_data(spec), shape)
    x, y = data.x_test, data.y_test
    if everything:
        x, y = np.concatenate([data.x_train, x]), np.concatenate([data.y_train, y])
    trained = list(graph.meta.trained_classes)
    known = np.isin(y, trained) & same_data(graph.meta, shape, data)
    if not known.any():
        return x, None
    index = {label: place for place, label in enumerate(trained)}
    if everything:  # exactness is the point: keep images of unknown classes, and count them as wrong
        return x, np.array([index.get(int(label), -1) for label in y])
    return x[known], np.array([index[int(label)] for label in y[known]])


@click.command()
@click.option("--data", default="digits", show_default=True, help=DATA)
@model_option
@target_option
@click.option(
    "--first",
    type=click.IntRange(min=1),
    help="Classes in the first experience. Default: those the backbone was trained "
    "on, where the data are the same; otherwise as many as in the later ones.",
)
@click.option(
    "--per-experience",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="New classes in each later experience.",
)
@click.option("--order", help="Classes in the order of their arrival, for example 0-9.")
@click.option("--train-limit", type=click.IntRange(min=1), help="At most this many training images of a class.")
@click.option("--test-limit", type=click.IntRange(min=1), help="At most this many test images of a class.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**64 - 1),
    default=0,
    show_default=True,
    help="Of the learner on the target, and of the choice and order of the images.",
)
@click.option("--compare", is_flag=True, help="Run the reference methods on the host on the same features too.")
@click.option("--check", is_flag=True, help="Run the NumPy twin beside the device and compare all learned state.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Picture of the curve (PNG). Default: build/MODEL-TARGET-DATA-learn.png.",
)
@click.option("--load-state", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Start from what a session with the same model and learning options has saved, on any target.")
@click.option("--merge-state", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Analytic heads: add what another target has learned, first of all.")
@click.option("--save-state", type=click.Path(path_type=Path, dir_okay=False),
              help="Write what was learned to this file at the end.")
@click.option("--forget", help="Classes to forget after the last experience, for example 3 or 3,5-7.")
@build_options
@where_options
def learn(model: str, target: str, **values: Any) -> None:
    """Show the target new classes, let it learn them there, and measure after each experience."""
    learning.check_picture(values["out"])
    if values["save_state"] is not None:
        learning.check_writable(values["save_state"], "--save-state")
    options = options_from(values)
    if options.float32:
        raise UsageError(
            "float32 builds do not learn",
            where="bnngen learn --activations float32",
            why="float32 is the reference for inference; latents and the learned head are integers (docs/adr/0003)",
            fix="leave --activations out, or give int8 or int16",
        )
    path = find_model(model, ".onnx", "bnngen export")
    learning.check_head(load_onnx(path))
    compiled, built, _ = make(path, load_target(target), options)
    learning.run(compiled, built, where_from(values), learning.Request.of(values))


@click.command()
@model_option
@click.option("--target", default="stm32f405", show_default=True, help="As for build.")
@click.option("--tool", help="st-flash, openocd, pyocd, ssh, or gdb (--server, --emulated). Default: the target's.")
@click.option("--host", help="For ssh: user@machine.")
@click.option("--server", help="For gdb: the gdb server in front of the board, for example localhost:4242 of st-util.")
@click.option("--emulated", is_flag=True, help="For gdb: no board; flash an emulated one, start it and say hello.")
@click.option("--dry-run", is_flag=True, help="Print the command and run nothing.")
def flash(model: str, target: str, dry_run: bool, **values: Any) -> None:
    """Write the program that `bnngen build` made to the board."""
    built = open_built(model, target)
    options = FlashOptions(**values)
    image = image_of(built, chosen_tool(built.target, options))
    if dry_run:
        say(shlex.join(flash_command(built.target, image, options)))
        return
    to = f"what is behind the gdb server {options.server}" if options.server else built.target.board.title
    say(f"writing {short(image)} to {'an EMULATED ' if options.emulated else ''}{to}")
    say(flash_program(built.target, image, options))


def open_built(model: str, target: str) -> BuildResult:
    """Return what `bnngen build` left for a model and a target. UsageError: nothing; another model will not do."""
    found = load_target(target)
    folder = project_folder(BUILD_DIR, project_name(model), found)
    if not folder.is_dir():
        others = sorted(path.name for path in BUILD_DIR.glob(f"*-{found.name}/"))
        raise UsageError(
            f"{model} has not been built for {found.name}",
            where=str(folder),
            why=f"built for this target: {', '.join(others)}" if others else "",
            fix=f"bnngen build {shlex.quote(model)} --target {shlex.quote(target)}",
        )
    _check_made_from(model, target, folder)
    return open_build(folder, found)


def _check_made_from(model: str, target: str, folder: Path) -> None:
    """Raise UsageError when the model file that is here is not the one that the project was made from."""
    made_from = folder / MADE_FROM
    again = f"bnngen build {shlex.quote(model)} --target {shlex.quote(target)}"
    if not made_from.is_file():
        raise UsageError("the last build did not end well", where=str(folder), fix=again)
    try:
        path = find_model(model, ".onnx", "bnngen export")
    except UsageError:
        return  # the program alone is here: there is nothing to hold it against
    if hashlib.sha256(path.read_bytes()).hexdigest() != made_from.read_text(encoding="utf-8").strip():
        raise UsageError(
            f"{folder} was built from another file than {path}",
            where=str(folder),
            why="what would be written to the board is not this model",
            fix=again,
        )


COMMANDS = (run, learn, flash)
