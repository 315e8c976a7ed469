# SPDX-License-Identifier: Apache-2.0
"""What a training run is asked to do and what it returns. No TensorFlow here: reading help must be quick."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bnngen.data import Dataset
from bnngen.errors import UsageError

BACKBONE_NAMES = ("quicknet-nano", "binary-chain")

# x = pixel * INPUT_SCALE + INPUT_OFFSET is exact in float32, and is (pixel - 128) / 128 on a device.
INPUT_SCALE = 1 / 128
INPUT_OFFSET = -1.0

SMALL_SET = 5000  # training images; a smaller set takes smaller batches, to have as many steps
SMALL_EPOCHS, SMALL_BATCH = 30, 32
EPOCHS, BATCH = 50, 128

Progress = Callable[[str, int, int], None]  # what, done, total


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
    cache: folder of downloaded data sets.
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


@dataclass(frozen=True)
class TrainResult:
    """The files that were written, and how good the model is.

    Accuracies are shares; they are those of `best_epoch`, counted from 1. seconds is the time of all epochs.
    """

    model: Path
    meta: Path
    calibration: Path
    log: Path
    best_epoch: int
    val_accuracy: float
    test_accuracy: float
    seconds: float


def check(config: TrainConfig) -> None:
    """Raise UsageError for a request that no data could meet."""
    if config.backbone not in BACKBONE_NAMES:
        raise UsageError(f"there is no backbone {config.backbone!r}", fix=f"use {', '.join(BACKBONE_NAMES)}")
    if config.out.suffix != ".keras":
        raise UsageError("the output must be a .keras file", where=str(config.out),
                         fix=f"use -o {config.out.with_suffix('.keras').name}")
    if config.resume and config.restart:
        raise UsageError("--resume and --restart exclude each other",
                         why="the one continues an interrupted run, the other forgets it",
                         fix="give one of them")
    ids = config.classes
    if ids is not None and (len(set(ids)) != len(ids) or len(ids) < 2):
        raise UsageError(f"{list(ids)} is no choice of two or more different classes", where="--classes",
                         fix="give at least two ids, each once, for example --classes 0-4")
    for name, value in (("epochs", config.epochs), ("batch", config.batch), ("lr", config.lr)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name} {value} is not positive and finite", fix=f"give a positive --{name}")
    if config.init is not None and not config.init.exists():
        raise UsageError("there is no model to start from", where=str(config.init),
                         fix="check the path of --init")


def resolved(config: TrainConfig, data: Dataset) -> TrainConfig:
    """Fill in what was left to choose: epochs and batch size."""
    small = len(data.x_train) < SMALL_SET
    return replace(config, epochs=config.epochs or (SMALL_EPOCHS if small else EPOCHS),
                   batch=config.batch or (SMALL_BATCH if small else BATCH))


def trained_classes(config: TrainConfig, data: Dataset) -> tuple[int, ...]:
    """Class ids in the order of the head's outputs."""
    return config.classes if config.classes is not None else tuple(range(len(data.classes)))


def identity(config: TrainConfig, data: Dataset) -> dict[str, object]:
    """What must be equal for two runs to be the same run, as JSON values."""
    init = hashlib.sha256(config.init.read_bytes()).hexdigest() if config.init is not None else None
    return {"backbone": config.backbone, "data_sha256": data.sha256, "epochs": config.epochs,
            "batch": config.batch, "lr": config.lr, "seed": config.seed, "augment": config.augment,
            "classes": list(config.classes) if config.classes is not None else None, "init": init}


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
    return " ".join([*parts, f"-o {config.out.name}"])
