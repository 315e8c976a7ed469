# SPDX-License-Identifier: Apache-2.0
"""`bnngen train` and `bnngen export`: from images to one ONNX file. They need the extra bnngen[train]."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from bnngen.cli.console import kib, progress, say, short
from bnngen.errors import ToolError, UsageError
from bnngen.resources import checkpoints
from bnngen.train.config import (
    DISTILL_WEIGHT,
    INPUT_ENCODINGS,
    MOST_WIDTH,
    PRECISIONS,
    STRATEGIES,
    TEMPERATURE,
    Form,
    TrainConfig,
)

MODEL_SUFFIXES = (".keras", ".onnx", ".h5", ".hdf5")
SEED = click.IntRange(0, 2**32 - 1)  # what NumPy and TensorFlow take


def require_training() -> None:
    """Raise ToolError where TensorFlow and Larq are not installed."""
    missing = [name for name in ("tensorflow", "larq") if importlib.util.find_spec(name) is None]
    if missing:
        raise ToolError(
            f"{' and '.join(missing)} not installed",
            why="training and export run in Larq; every other command works without",
            fix="pip install 'bnngen[train]'",
        )


def class_ids(text: str | None) -> tuple[int, ...] | None:
    """Parse "0-4", "0,3,7" or a mixture into ids."""
    if text is None:
        return None
    ids: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise UsageError(f"{text!r} is not a list of classes", fix="write for example 0-4 or 0,2,5")
        ids.extend(range(int(first), int(last if dash else first) + 1))
    return tuple(ids)


def find_model(given: str, suffix: str, made_by: str) -> Path:
    """Return the model file: as given, with the suffix that was left out, or a checkpoint that bnngen ships."""
    name = given if Path(given).suffix in MODEL_SUFFIXES else given + suffix
    for candidate in (Path(given), Path(name), checkpoints() / name):
        if candidate.is_file():
            return candidate
    if suffix == ".keras" and Path(given).is_dir():
        return Path(given)  # a SavedModel: who reads it says so
    if suffix == ".keras" and given.endswith(".onnx"):
        fix = "check the path of the ONNX file"
    elif suffix == ".onnx" and (checkpoints() / f"{given}.keras").is_file():
        fix = f"bnngen export {given}"
    else:
        shipped = ", ".join(sorted(path.stem for path in checkpoints().glob(f"*{suffix}")))
        fix = f"make one with `{made_by}`, or name another" + (f"; bnngen brings {shipped}" if shipped else "")
    raise UsageError(f"there is no {name}", where=str(Path(name).absolute().parent), fix=fix)


@click.command()
@click.argument("name", default="quicknet-nano")
@click.option(
    "--data",
    default="digits",
    show_default=True,
    help="digits, cifar10, cifar100, fashion_mnist, FILE.npz, or a FOLDER of images per class.",
)
@click.option(
    "-o", "--out", default="model.keras", show_default=True, type=click.Path(path_type=Path), help="The file to write."
)
@click.option("--classes", help="Train on these class ids alone, for example 0-4.")
@click.option("--epochs", type=int, help="Default: chosen by the number of training images.")
@click.option("--batch", type=int, help="Images per step. Default: chosen as above.")
@click.option("--lr", type=float, default=2.5e-3, show_default=True, help="Adam's peak learning rate.")
@click.option("--seed", type=SEED, default=1, show_default=True, help="Decides weights, order and shifts.")
@click.option("--init", type=click.Path(path_type=Path), help="Start from the weights of this .keras file.")
@click.option("--augment/--no-augment", default=True, help="Shift the images, and mirror those in colour.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run of the same command stopped.")
@click.option("--restart", is_flag=True, help="Start anew, and throw away what an interrupted run has kept.")
@click.option("--keep-state", is_flag=True, help="Keep the optimizer's state beside the model at the end.")
@click.option("--note", default="", help="A word on the images, kept with the model.")
@click.option(
    "--width", type=float, default=1.0, show_default=True, help=f"Factor of the channel counts, at most {MOST_WIDTH}."
)
@click.option(
    "--input-encoding",
    type=click.Choice(INPUT_ENCODINGS),
    default="none",
    show_default=True,
    help="Make the first layer binary: the pixels become bits.",
)
@click.option("--float", "float_weights", is_flag=True, help="Build it without quantizers: a teacher.")
@click.option("--teacher", type=click.Path(path_type=Path), help="Learn the scores of this .keras file too.")
@click.option("--distill-weight", type=float, help=f"The teacher's share of the loss. Default: {DISTILL_WEIGHT}.")
@click.option("--temperature", type=float, help=f"Softens the scores of both. Default: {TEMPERATURE:g}.")
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="none",
    show_default=True,
    help="Spread each batch over the GPUs of this host, or over the hosts in TF_CONFIG.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    show_default=True,
    help="mixed: 16 bits where the hardware gains by it.",
)
def train(name: str, data: str, out: Path, classes: str | None, **options: object) -> None:
    """Train the Larq backbone NAME, from random weights or those of --init.

    NAME: quicknet-nano (default), quicknet-nano-s or -l for smaller and larger parts, reactnet-nano, reactnet-18,
    birealnet-18, binary-chain. Writes the model, a calibration sample, a log and the training curve beside it.
    """
    require_training()
    from bnngen.report.training_curve import draw_training_curve
    from bnngen.train.trainer import train as run

    form = Form(*(options.pop(key) for key in ("width", "input_encoding", "float_weights")))
    config = TrainConfig(backbone=name, data=data, out=out, classes=class_ids(classes), form=form, **options)
    with progress() as report:
        result = run(config, report)
    if not result.chief:
        say(f"done; {short(result.model)} is written by the chief")
        return
    curve = out.with_suffix(".png")
    draw_training_curve(result.log, curve, f"{name} on {data}")
    say(f"{short(result.model)}  {kib(result.model.stat().st_size)}, best epoch {result.best_epoch}")
    say(
        f"  held-out accuracy {result.val_accuracy:.2%}, test accuracy {result.test_accuracy:.2%} "
        f"({result.seconds:.0f} s of training)"
    )
    if result.never_trained:
        say(f"  of the test images {result.never_trained} are of classes that no training image has: they are wrong")
    say(f"  beside it: {', '.join(p.name for p in (result.meta, result.calibration, result.log, curve))}")


@click.command()
@click.argument("model", default="model")
@click.option(
    "--calibrate",
    help="Images that set the integer ranges: like --data of train, or FILE.npz "
    "with x. Default: the sample that train kept beside the model. A zoo model needs it, except with --weights none.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Default: the model's name, .onnx.")
@click.option(
    "--cut",
    help="Where replayed latents are taken: `features` (default where the model ends in Dense), a layer's name, or "
    "`tail:N`, in front of the last N residual blocks, which can then be trained too. `none`: a model that does not "
    "learn.",
)
@click.option("--classes", help="Names of the outputs, as cat,dog; for models not made by train.")
@click.option("--capacity", type=int, help="Most classes of the learned head. Default: those of the data, at least 10.")
@click.option("--input-scale", type=float, help="Real input = scale * pixel + offset; for models not made by train.")
@click.option("--input-offset", type=float, help="See --input-scale.")
@click.option(
    "--import",
    "imports",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A Python file that defines the model's own layers or quantizers; it is run. May be repeated.",
)
@click.option("--trust-lambdas", is_flag=True, help="Read Lambda layers, which run code that the model file holds.")
@click.option("--weights", help="Of a zoo model: `imagenet` (default), `none` for random ones, or a FILE.")
@click.option(
    "--calibration-method",
    default="mse",
    show_default=True,
    type=click.Choice(["mse", "percentile", "minmax"]),
    help="Where 8-bit tensors may saturate: least squared error, 99.99 % of the values, or never.",
)
def export(model: str, calibrate: str | None, out: Path | None, **options: object) -> None:
    """Export a Larq MODEL to one ordinary ONNX file and compare both on the calibration images.

    MODEL is a .keras file, or its name without .keras (default: model), or a model that bnngen brings; zoo:NAME, a
    model of larq_zoo; or an .onnx file that another tool wrote from a binary network.
    """
    if Path(model).suffix != ".onnx":
        require_training()
    from bnngen.cli import exporting

    given = model if model.startswith("zoo:") else find_model(model, ".keras", "bnngen train")
    exporting.run(given, calibrate, out, options)


COMMANDS = (train, export)
