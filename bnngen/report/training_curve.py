# SPDX-License-Identifier: Apache-2.0
"""The curve of a training run, drawn from its log: accuracy and loss, training and held-out images."""

from __future__ import annotations

import csv
from pathlib import Path

from bnngen.errors import DataError
from bnngen.report.picture import save_png


def draw_training_curve(log: Path, png: Path, title: str = "") -> None:
    """Draw OUT.log.csv as a PNG of 1000x420 pixels; the file carries no date.

    log: columns epoch, train_loss, train_accuracy, val_loss, val_accuracy (losses in nats, accuracies as
    shares). Raises DataError when the log has no epoch or lacks a column, UsageError when the picture cannot
    be written.
    """
    from matplotlib.figure import Figure  # late: it is slow to load, and only reports need it

    series = _read(log)
    figure = Figure(figsize=(10, 4.2), dpi=100, layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    for axes, key, scale, label in ((accuracy, "accuracy", 100, "accuracy (%)"),
                                    (loss, "loss", 1, "loss (nats)")):
        axes.plot(series["epoch"], [scale * v for v in series[f"train_{key}"]], label="training (augmented)")
        axes.plot(series["epoch"], [scale * v for v in series[f"val_{key}"]], label="held-out")
        axes.set(xlabel="epoch", ylabel=label)
        axes.grid(alpha=0.3)
    accuracy.legend()
    figure.suptitle(title)
    save_png(figure, png)


def _read(log: Path) -> dict[str, list[float]]:
    columns = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy")
    try:
        with open(log, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        series = {name: [float(row[name]) for row in rows] for name in columns}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DataError("this is not a training log", where=str(log), why=repr(error),
                        fix="give the OUT.log.csv that `bnngen train` wrote") from error
    if not rows:
        raise DataError("the training log is empty", where=str(log), fix="train for at least one epoch")
    return series
