# SPDX-License-Identifier: Apache-2.0
"""The picture of a learning session: accuracy over the classes seen, after every experience."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bnngen.report.picture import save_png


def plot_learning(curves: Mapping[str, Sequence[float]], labels: Sequence[str], title: str, path: Path) -> Path:
    """Draw one line a curve, accuracies in [0, 1]; `labels` name the experiences. Returns `path` (PNG).

    Raises UsageError when the picture cannot be written.
    """
    from matplotlib.figure import Figure  # late: it is slow to load, and only reports need it

    figure = Figure(figsize=(7.2, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        axes.plot(range(len(values)), [100 * value for value in values], marker="o", label=name)
    axes.set_xticks(range(len(labels)), labels, rotation=30 if max(map(len, labels)) > 6 else 0)
    axes.set_xlabel("new classes in the experience")
    axes.set_ylabel("accuracy over all classes seen [%]")
    axes.set_ylim(0, 102)
    axes.grid(alpha=0.3)
    axes.set_title(title)
    axes.legend()
    save_png(figure, path)
    return path
