# SPDX-License-Identifier: Apache-2.0
"""What a training run is asked to do and what it returns. No TensorFlow here: reading help must be quick."""

from __future__ import annotations

import difflib
import hashlib
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bnngen.errors import UsageError

if TYPE_CHECKING:  # layers.py needs two numbers from here, not the readers of images
    from bnngen.data import Dataset

BACKBONE_NAMES = ("quicknet-nano", "quicknet-nano-s", "quicknet-nano-l", "reactnet-nano", "reactnet-18", "birealnet-18",
                  "binary-chain")
INPUT_ENCODINGS = ("none", "thermometer", "bitplanes")
STRATEGIES = ("none", "mirrored", "multiworker")
PRECISIONS = ("float32", "mixed", "mixed_bfloat16", "mixed_float16")
DISTILL_WEIGHT, TEMPERATURE = 0.5, 4.0

# x = pixel * INPUT_SCALE + INPUT_OFFSET is exact in float32, and is (pixel - 128) / 128 on a device.
INPUT_SCALE = 1 / 128
INPUT_OFFSET = -1.0

SMALL_SET = 5000  # training images; a smaller set takes smaller batches, to have as many steps
SMALL_EPOCHS, SMALL_BATCH = 30, 32
EPOCHS, BATCH = 50, 128
MOST_WIDTH = 8

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True)
class Form:
    """What a backbone is built as.

    width: factor of all channel counts. input_encoding: one of INPUT_ENCODINGS, how pixels become the bits of a
    binary first layer; "none" leaves that layer real-valued. float_weights: without quantizers.
    """

    width: float = 1.0
    input_encoding: str = "none"
    float_weights: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    backbone: one of BACKBONE_NAMES. data: what bnngen.data.load takes. out: the .keras file to write.
    epochs, batch: None chooses by the number of training images. lr: Adam's peak learning rate.
    classes: ids to train on, in the order of the head's outputs; None for all.
    augment: shift the images, and mirror those in colour. note: a word on the images, kept in the meta file.
    init: a .keras file of the same backbone to take the weights from; a head of another size starts anew.
    resume: continue from OUT.ckpt. restart: start anew where OUT.ckpt holds the state of an earlier run,
    which is refused without either. keep_state: leave OUT.ckpt in place after the last epoch.
    cache: folder of downloaded data sets. form: width and input encoding of the backbone, and whether it is binary.
    strategy: one of STRATEGIES, over which devices a batch is spread; what is computed is the same.
    precision: one of PRECISIONS, in what the training steps compute. The model that is kept is float32.
    teacher: a .keras file whose scores are learned too: (1 - w) cross-entropy + w T^2 KL at temperature T, with
    w = distill_weight; None for both takes DISTILL_WEIGHT and TEMPERATURE.
    """

    backbone: str
    data: str
    out: Path
    epochs: int | None = None
    batch: int | None = None
    lr: float = 2.5e-3
    seed: int = 1
    classes: tuple[int, ...] | None = None
    augment: bool = True
    note: str = ""
    init: Path | None = None
    resume: bool = False
    restart: bool = False
    keep_state: bool = False
    cache: Path | None = None
    form: Form = Form()
    strategy: str = "none"
    precision: str = "float32"
    teacher: Path | None = None
    distill_weight: float | None = None
    temperature: float | None = None


@dataclass(frozen=True)
class TrainResult:
    """The files that were written, and how good the model is. On workers other than the chief nothing was written.

    Accuracies are shares; they are those of `best_epoch`, counted from 1. seconds is the time of all epochs.
    never_trained: test images of classes that no training image has.
    """

    model: Path
    meta: Path
    calibration: Path
    log: Path
    best_epoch: int
    val_accuracy: float
    test_accuracy: float
    seconds: float
    chief: bool = True
    never_trained: int = 0


def check(config: TrainConfig) -> None:
    """Raise UsageError for a request that no data could meet."""
    _check_run(config)
    _check_form(config.form)
    _check_distillation(config)
    for name, value, known in (("strategy", config.strategy, STRATEGIES), ("precision", config.precision, PRECISIONS)):
        if value not in known:
            raise UsageError(f"--{name} {value} is not known", fix=f"use {', '.join(known)}")


def _check_run(config: TrainConfig) -> None:
    if config.backbone not in BACKBONE_NAMES:
        near = difflib.get_close_matches(config.backbone, BACKBONE_NAMES, 1, 0.4)
        raise UsageError(f"there is no backbone {config.backbone!r}", where="bnngen train NAME",
                         why=f"bnngen trains {', '.join(BACKBONE_NAMES)}",
                         fix=f"did you mean {near[0]!r}?" if near else "give one of these; a model of your own is "
                         "trained in Larq, and exported with bnngen export MODEL.keras --calibrate DATA")
    if config.out.suffix != ".keras":
        raise UsageError("the output must be a .keras file", where=str(config.out), why="Keras tells formats by it",
                         fix=f"use -o {config.out.with_suffix('.keras').name}")
    if config.resume and config.restart:
        raise UsageError("--resume and --restart exclude each other",
                         why="the one continues an interrupted run, the other forgets it",
                         fix="give one of them")
    ids = config.classes
    if ids is not None and (len(set(ids)) != len(ids) or len(ids) < 2):
        raise UsageError(f"{list(ids)} is no choice of two or more different classes", where="--classes",
                         why="each class is one score, and one class alone leaves nothing to tell apart",
                         fix="give at least two ids, each once, for example --classes 0-4")
    for name, value, why, fix in (
            ("epochs", config.epochs, "it counts passes over the training images",
             f"give 1 or more, or leave it out for {SMALL_EPOCHS} or {EPOCHS}, by the number of images"),
            ("batch", config.batch, "it counts the images of one step",
             f"give 1 or more, or leave it out for {SMALL_BATCH} or {BATCH}, by the number of images"),
            ("lr", config.lr, "it is the length of the longest step against the gradient",
             f"give more than 0, for example {TrainConfig.lr:g}")):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name} {value} is not positive and finite", where=f"--{name}", why=why, fix=fix)
    if config.init is not None and not config.init.is_file():
        raise UsageError("there is no model to start from", where=str(config.init),
                         why="--init names the file whose weights the training starts from",
                         fix="give a .keras file that `bnngen train` wrote, or leave --init out")


def _check_form(form: Form) -> None:
    if not 0 < form.width <= MOST_WIDTH:
        raise UsageError(f"--width {form.width:g} is not possible", where="--width",
                         why=f"it multiplies all channel counts: above 0, at most {MOST_WIDTH}",
                         fix="give a factor of the channel counts, for example --width 0.5")
    if form.input_encoding not in INPUT_ENCODINGS:
        raise UsageError(f"--input-encoding {form.input_encoding} is not known",
                         fix=f"use {', '.join(INPUT_ENCODINGS)}")


def _check_distillation(config: TrainConfig) -> None:
    chosen = {"--distill-weight": config.distill_weight, "--temperature": config.temperature}
    given = [option for option, value in chosen.items() if value is not None]
    if config.teacher is None:
        if given:
            raise UsageError(f"{given[0]} without a teacher", why="there is nothing to distill from",
                             fix="give --teacher FILE.keras, or leave it out")
        return
    if not config.teacher.is_file():
        raise UsageError("there is no teacher", where=str(config.teacher),
                         why="--teacher names the file of a trained model, whose scores are learned too",
                         fix="give a .keras file, for example one that `bnngen train --float` wrote")
    weight, temperature = config.distill_weight, config.temperature
    if weight is not None and not 0 < weight <= 1:
        raise UsageError(f"--distill-weight {weight} is not a share", why="it is the teacher's part of the loss",
                         fix="give more than 0, and at most 1")
    if temperature is not None and not 0 < temperature < math.inf:
        raise UsageError(f"--temperature {temperature} is not positive and finite", fix="give for example 4")


def check_out(out: Path) -> None:
    """Raise UsageError for a file that could not be written when the training is done."""
    folder = out.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"there is no folder {out.parent}", where=str(out),
                         why="the model is written there when the training is done",
                         fix="create it, or choose another -o")
    if out.is_dir():
        raise UsageError(f"{out} is a folder", where="-o", why="the model is one file", fix="name it: -o model.keras")
    try:
        with tempfile.TemporaryFile(dir=folder):  # of what the system would refuse, permissions are but a part
            pass
    except OSError as error:
        raise UsageError(f"nothing can be written to {folder}", where=f"-o {out}", why=error.strerror or str(error),
                         fix="choose a folder of your own") from error


def resolved(config: TrainConfig, data: Dataset) -> TrainConfig:
    """Fill in what was left to choose: epochs and batch size, weight and temperature of a teacher."""
    small = len(data.x_train) < SMALL_SET
    config = replace(config, epochs=config.epochs or (SMALL_EPOCHS if small else EPOCHS),
                     batch=config.batch or (SMALL_BATCH if small else BATCH))
    if config.teacher is None:
        return config
    return replace(config, distill_weight=config.distill_weight or DISTILL_WEIGHT,
                   temperature=config.temperature or TEMPERATURE)


def trained_classes(config: TrainConfig, data: Dataset) -> tuple[int, ...]:
    """Class ids in the order of the head's outputs."""
    return config.classes if config.classes is not None else tuple(range(len(data.classes)))


def identity(config: TrainConfig, data: Dataset) -> dict[str, object]:
    """What must be equal for two runs to be the same run, as JSON values.

    The strategy is not in it: the recipe is the same on any number of devices, so that a run may go on where there
    are more or fewer of them.
    """
    init, teacher = (hashlib.sha256(path.read_bytes()).hexdigest() if path is not None else None
                     for path in (config.init, config.teacher))
    return {"backbone": config.backbone, "data_sha256": data.sha256, "epochs": config.epochs,
            "batch": config.batch, "lr": config.lr, "seed": config.seed, "augment": config.augment,
            "classes": list(config.classes) if config.classes is not None else None, "init": init,
            **vars(config.form), "precision": config.precision, "teacher": teacher,
            "distill_weight": config.distill_weight, "temperature": config.temperature}


def command(config: TrainConfig) -> str:
    """The command line that repeats the run; files by name alone, since folders differ between machines."""
    parts = [f"bnngen train {config.backbone} --data {Path(config.data).name}"]
    if config.classes is not None:
        parts.append("--classes " + ",".join(str(c) for c in config.classes))
    parts.append(f"--epochs {config.epochs} --batch {config.batch} --lr {config.lr:g} --seed {config.seed}")
    if not config.augment:
        parts.append("--no-augment")
    if config.init is not None:
        parts.append(f"--init {config.init.name}")
    return " ".join([*parts, *_form_and_teacher(config), f"-o {config.out.name}"])


def _form_and_teacher(config: TrainConfig) -> list[str]:
    """Options that differ from the defaults. The strategy is none of them: it changes no result."""
    form, parts = config.form, []
    if form.width != 1:
        parts.append(f"--width {form.width:g}")
    if form.input_encoding != "none":
        parts.append(f"--input-encoding {form.input_encoding}")
    if form.float_weights:
        parts.append("--float")
    if config.precision != "float32":
        parts.append(f"--precision {config.precision}")
    if config.teacher is not None:
        parts.append(f"--teacher {config.teacher.name} --distill-weight {config.distill_weight:g} "
                     f"--temperature {config.temperature:g}")
    return parts
