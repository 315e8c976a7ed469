# SPDX-License-Identifier: Apache-2.0
"""What a training run leaves: OUT.keras, OUT.meta.json, OUT.calib.npz and OUT.log.csv."""

from __future__ import annotations

import csv
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np
import tensorflow as tf

from bnngen.data import Dataset, holdout
from bnngen.train.config import TrainConfig, TrainResult, command, trained_classes
from bnngen.train.models import INPUT_OFFSET, INPUT_SCALE
from bnngen.train.state import EpochLog, RunState

CALIBRATION_IMAGES = 512
CALIBRATION_SEED = 3

ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip entry can bear: equal content, equal bytes


def write_outputs(model: tf.keras.Model, state: RunState, config: TrainConfig, data: Dataset,
                  test_accuracy: float) -> TrainResult:
    """Write the model, whose weights are those of the best epoch, and the files beside it."""
    best, out = state.best, config.out
    result = TrainResult(model=out, meta=out.with_suffix(".meta.json"), log=write_log(state.log, out),
                         calibration=out.with_suffix(".calib.npz"), best_epoch=best.epoch,
                         val_accuracy=best.val_accuracy, test_accuracy=test_accuracy,
                         seconds=sum(e.seconds for e in state.log))
    _write_model(model, out)
    _write_calibration(data, result.calibration)
    meta = _meta(config, data) | {"best_epoch": best.epoch, "val_accuracy": round(best.val_accuracy, 6),
                                  "test_accuracy": round(test_accuracy, 6)}
    result.meta.write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    return result


def write_log(log: Sequence[EpochLog], out: Path) -> Path:
    """Write the log as CSV, one line an epoch."""
    path = out.with_suffix(".log.csv")
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(f.name for f in fields(EpochLog))
        for epoch in log:
            writer.writerow(f"{v:.6g}" if isinstance(v, float) else v for v in astuple(epoch))
    return path


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
    """Write the model without optimizer state, atomically; equal models give equal bytes.

    Keras stamps the archive with the time of saving; the stamps are rewritten to a constant.
    """
    raw, partial = path.with_suffix(".raw.keras"), path.with_suffix(".partial")
    model.save(raw, save_format="keras")
    with zipfile.ZipFile(raw) as source, zipfile.ZipFile(partial, "w") as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "metadata.json":
                content = json.dumps(json.loads(content) | {"date_saved": ""}, sort_keys=True).encode()
            target.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), content)
    os.replace(partial, path)
    raw.unlink()


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
