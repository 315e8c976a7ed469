# SPDX-License-Identifier: Apache-2.0
"""The picture of the per-layer table: signal-to-noise ratio by layer, in execution order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from bnngen.report.picture import save_png

ROW_INCHES = 0.2


def plot_layers(series: Mapping[str, Sequence[float]], layers: Sequence[str], title: str, path: Path) -> Path:
    """Draw one line a series, ratios in dB from the first layer at the top to the last. Returns `path` (PNG).

    A layer that is exact, an infinite ratio, has no point. Raises UsageError when the picture cannot be written.
    """
    from matplotlib.figure import Figure  # late: it is slow to load, and only reports need it

    figure = Figure(figsize=(7.2, 1.8 + ROW_INCHES * len(layers)), dpi=100, layout="constrained")
    axes = figure.subplots()
    for name, values in series.items():
        points = [(v, y) for y, v in enumerate(values) if math.isfinite(v)]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    axes.set_yticks(range(len(layers)), layers, fontsize=7)
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_xlabel("signal-to-noise ratio [dB]; no point: exact")
    axes.grid(alpha=0.3)
    axes.set_title(title)
    if axes.lines:
        axes.legend()
    save_png(figure, path)
    return path
