# SPDX-License-Identifier: Apache-2.0
"""What a training run leaves: OUT.keras, OUT.meta.json, OUT.calib.npz and OUT.log.csv.

The four belong together: the export believes the meta file and measures on the sample. So they change as a
set, and a model that is there is beside its own.
"""

from __future__ import annotations

import csv
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np
import tensorflow as tf

from bnngen.data import Dataset, holdout
from bnngen.train.config import INPUT_OFFSET, INPUT_SCALE, TrainConfig, TrainResult, command, trained_classes
from bnngen.train.state import EpochLog, RunState

CALIBRATION_IMAGES = 512
CALIBRATION_SEED = 3

ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip entry can bear: equal content, equal bytes


def write_outputs(model: tf.keras.Model, state: RunState, config: TrainConfig, data: Dataset,
                  test_accuracy: float) -> TrainResult:
    """Write the model, whose weights are those of the best epoch, and the files beside it, as a set."""
    result, best = result_of(state, config, test_accuracy), state.best
    meta = _meta(config, data) | {"best_epoch": best.epoch, "val_accuracy": round(best.val_accuracy, 6),
                                  "test_accuracy": round(test_accuracy, 6)}
    with _replaced([result.log, result.meta, result.calibration, result.model]) as (log, meta_part, sample, part):
        write_log(state.log, log)
        meta_part.write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        _write_calibration(data, sample)
        _write_model(model, part)
    return result


def result_of(state: RunState, config: TrainConfig, test_accuracy: float) -> TrainResult:
    """Return what a finished run has reached, and where its files stand."""
    best, out = state.best, config.out
    return TrainResult(model=out, meta=out.with_suffix(".meta.json"), log=out.with_suffix(".log.csv"),
                       calibration=out.with_suffix(".calib.npz"), best_epoch=best.epoch,
                       val_accuracy=best.val_accuracy, test_accuracy=test_accuracy,
                       seconds=sum(e.seconds for e in state.log))


@contextmanager
def _replaced(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield a path beside each file to write to; at the end they take the files' places, the last one last.

    An earlier last file goes before the first of the others comes, so that wherever this stops, a last file
    that is there is beside its own. A failure while writing changes none of the files.
    """
    partials = [file.with_name(file.name + ".partial") for file in files]
    try:
        yield partials
        for partial in partials:
            with open(partial, "r+b") as stream:
                os.fsync(stream.fileno())
        files[-1].unlink(missing_ok=True)
        for partial, file in zip(partials, files, strict=True):
            os.replace(partial, file)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)


def write_log(log: Sequence[EpochLog], path: Path) -> None:
    """Write the log as CSV, one line an epoch."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(f.name for f in fields(EpochLog))
        for epoch in log:
            writer.writerow(f"{v:.6g}" if isinstance(v, float) else v for v in astuple(epoch))


def _meta(config: TrainConfig, data: Dataset) -> dict[str, object]:
    """Everything that the export and a reader need to know about the model."""
    ids = trained_classes(config, data)
    return {
        "schema": 1,
        "name": config.out.stem,
        "backbone": config.backbone,
        "data": data.name,
        "data_source": data.source,
        "data_sha256": data.sha256,
        "data_note": config.note,
        "data_classes": list(data.classes),
        "classes": [data.classes[i] for i in ids],
        "trained_classes": list(ids),
        "input": {"shape": list(data.shape), "dtype": "uint8", "scale": INPUT_SCALE, "offset": INPUT_OFFSET},
        "seed": config.seed,
        "epochs": config.epochs,
        "command": command(config),
    }


def _write_model(model: tf.keras.Model, path: Path) -> None:
    """Write the model without optimizer state; equal models give equal bytes.

    Keras stamps the archive with the time of saving; the stamps are rewritten to a constant.
    """
    raw = path.with_suffix(".raw.keras")  # Keras chooses the format by the suffix
    try:
        model.save(raw, save_format="keras")
        with zipfile.ZipFile(raw) as source, zipfile.ZipFile(path, "w") as target:
            for name in sorted(source.namelist()):
                content = source.read(name)
                if name == "metadata.json":
                    content = json.dumps(json.loads(content) | {"date_saved": ""}, sort_keys=True).encode()
                target.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), content)
    finally:
        raw.unlink(missing_ok=True)


def _write_calibration(data: Dataset, path: Path) -> None:
    """Keep a fixed sample of the training images, x uint8 [<= 512, H, W, C] and y int64 [<= 512], class ids.

    `data` holds the trained classes alone: ranges measured on classes that a device meets later would
    leak what it cannot know. Held-out images stay out too.
    """
    fit, _ = holdout(len(data.x_train))
    chosen = np.random.default_rng(CALIBRATION_SEED).permutation(fit)[:CALIBRATION_IMAGES]
    with zipfile.ZipFile(path, "w") as archive:  # np.savez would stamp the time
        for name, array in (("x", data.x_train[chosen]), ("y", data.y_train[chosen])):
            entry = zipfile.ZipInfo(f"{name}.npy", ZIP_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
