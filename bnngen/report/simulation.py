# SPDX-License-Identifier: Apache-2.0
"""The pictures of continual-learning experiments: accuracy and forgetting by experience, confusion, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bnngen.report.picture import save_png

MOST_NAMES = 25  # classes of a confusion matrix that are named
WIDE = 4  # memories further apart than this factor are drawn on a log axis
Curve = tuple[Sequence[int], Sequence[float], Sequence[float]]  # experiences, means, standard deviations


def plot_curves(curves: Mapping[str, Curve], what: str, title: str, path: Path) -> Path:
    """Draw mean and standard deviation over the seeds for each run, by experience; values are shares.

    Returns `path` (PNG).
    """
    from matplotlib.figure import Figure  # late: it is slow to load, and only reports need it

    figure = Figure(figsize=(7.2, 4.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, (places, means, widths) in curves.items():
        middle, width = 100 * np.asarray(means), 100 * np.asarray(widths)
        mark = "o" if len(places) <= 20 else ""
        (line,) = axes.plot(places, middle, marker=mark, markersize=3.5, label=name)
        axes.fill_between(places, middle - width, middle + width, color=line.get_color(), alpha=0.2, linewidth=0)
    several = any(any(widths) for _, _, widths in curves.values())
    axes.set_xlabel("experience" + ("; band: standard deviation over the seeds" if several else ""))
    axes.set_ylabel(f"{what} [%]")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.set_title(title)
    axes.legend(fontsize=8)
    save_png(figure, path)
    return path


def plot_confusion(matrix: Sequence[Sequence[float]], names: Sequence[str], title: str, path: Path) -> Path:
    """Draw a confusion matrix: rows are the right classes, and sum up to 100 %. Returns `path` (PNG)."""
    from matplotlib.figure import Figure

    counts = np.asarray(matrix, float)
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(6.4, 5.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    if len(names) <= MOST_NAMES:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("class of the test image")
    figure.colorbar(shown, label="share of the class [%]")
    axes.set_title(title, fontsize=10)
    save_png(figure, path)
    return path


def plot_memory(rows: Sequence[Mapping[str, object]], title: str, path: Path) -> Path:
    """Draw accuracy against peak learning RAM, and against persistent state, for runs of any number of experiments.

    rows: of summary.csv (results.read_summary): run, final_accuracy_mean, final_accuracy_ci95, learning_ram_bytes,
    state_bytes. Those on the front, which no other run beats with less memory, are joined. Returns `path` (PNG).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.6), dpi=120, layout="constrained")
    pair = (("learning_ram_bytes", "peak RAM of learning [KiB]"), ("state_bytes", "persistent state [KiB]"))
    for axes, (key, label) in zip(figure.subplots(1, 2, sharey=True), pair, strict=True):
        points = sorted((float(row[key]) / 1024, 100 * float(row["final_accuracy_mean"])) for row in rows)
        for row in rows:
            place = max(float(row[key]) / 1024, 1 / 1024), 100 * float(row["final_accuracy_mean"])
            axes.errorbar(*place, 100 * float(row["final_accuracy_ci95"] or 0), marker="o", markersize=4, capsize=2,
                          linestyle="", label=str(row["run"]))
        axes.plot(*zip(*front(points), strict=True), color="grey", linewidth=0.8, linestyle="--", zorder=0)
        if points[-1][0] > WIDE * points[0][0]:  # a log axis of less than an octave has hardly a tick
            axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("accuracy after the last experience [%]")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7)
    figure.suptitle(title)
    save_png(figure, path)
    return path


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points, by memory, that are more accurate than every one with less memory."""
    best: list[tuple[float, float]] = []
    for memory, accuracy in sorted(points, key=lambda p: (p[0], -p[1])):
        if not best or accuracy > best[-1][1]:
            best.append((memory, accuracy))
    return best
