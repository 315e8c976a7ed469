# SPDX-License-Identifier: Apache-2.0
"""What `bnngen simulate` says at the end: the table, the JSON line, the pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bnngen.cli.console import kib, say, table
from bnngen.report.simulation import plot_confusion, plot_curves, plot_memory
from bnngen.simulate.config import slug
from bnngen.simulate.experiment import Experiment
from bnngen.simulate.statistics import mean_std

CURVES = (
    ("accuracy_all", "accuracy over all classes", "accuracy.png"),
    ("accuracy_seen", "accuracy over the classes seen", "accuracy-seen.png"),
    ("forgetting", "forgetting", "forgetting.png"),
)


def document(experiment: Experiment, summary: Sequence[dict]) -> str:
    """Return the JSON object of --json, one line: the baseline's accuracies, and every run's."""
    chosen = next(row for row in summary if row["run"] == experiment.baseline)
    top = {name: chosen[name] for name in chosen if name not in ("run", "key", "difference_mean", "difference_ci95")}
    top |= {"scenario": experiment.scenario.name, "out": str(experiment.out), "baseline": experiment.baseline}
    return json.dumps(top | {"runs": list(summary)})


def print_table(experiment: Experiment, summary: Sequence[dict]) -> None:
    """Print a row per run."""
    rows = [
        (
            row["run"],
            _percent(row["final_accuracy_mean"], row["final_accuracy_ci95"]),
            _percent(row["final_accuracy_seen_mean"], row["final_accuracy_seen_ci95"]),
            _percent(row["final_forgetting_mean"], None),
            _percent(row["difference_mean"], row["difference_ci95"], "+"),
            kib(int(row["learning_ram_bytes"])),
            kib(int(row["state_bytes"])),
        )
        for row in summary
    ]
    columns = ("run", "accuracy, all classes", "classes seen", "forgetting", "difference", "peak RAM", "state")
    kept = [i for i, name in enumerate(columns) if len(summary) > 1 or name != "difference"]
    table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows], range(1, len(kept)))
    count = len(experiment.seeds)
    spread = f"mean over {_seeds(count)}, 95 % confidence interval" if count > 1 else _seeds(count)
    say(f"after the last experience; {spread}")
    if len(summary) > 1:
        say(f"difference: to {experiment.baseline!r}, seed by seed, all classes, in points")


def _seeds(count: int) -> str:
    return f"{count} seeds" if count > 1 else "one seed"


def _percent(mean: float | None, width: float | None, sign: str = "") -> str:
    if mean is None:
        return ""
    text = f"{100 * mean:{sign}.2f}"
    return text if width is None else f"{text} ± {100 * width:.2f}"


def draw(experiment: Experiment, results: dict[str, list[dict]], summary: list[dict], names: list[str]) -> list[Path]:
    """Draw accuracies and forgetting over the experiences, a confusion matrix per run, and accuracy against memory."""
    out, title = experiment.out, f"{experiment.scenario.name}, {_seeds(len(experiment.seeds))}"
    pictures = []
    for key, what, file in CURVES:
        curves = {name: curve for name, found in results.items() if (curve := _curve(found, key))[0]}
        if curves:
            pictures.append(plot_curves(curves, what, title, out / file))
    for name, found in results.items():
        total = np.sum([result["experiences"][-1]["confusion"] for result in found], axis=0)
        path = out / (f"confusion-{slug(name)}.png" if len(results) > 1 else "confusion.png")
        pictures.append(plot_confusion(total.tolist(), names, f"{name}: after the last experience", path))
    if len(summary) > 1:
        pictures.append(plot_memory(summary, title, out / "memory.png"))
    return pictures


def _curve(found: list[dict], key: str) -> tuple[list[int], list[float], list[float]]:
    """Return experiences, means and standard deviations over the seeds."""
    by_place: dict[int, list[float]] = {}
    for result in found:
        for row in result["experiences"]:
            if row[key] is not None:
                by_place.setdefault(row["experience"], []).append(row[key])
    places = sorted(by_place)
    means, deviations = zip(*(mean_std(by_place[place]) for place in places), strict=True) if places else ((), ())
    return places, list(means), list(deviations)
