# SPDX-License-Identifier: Apache-2.0
"""`bnngen results`: the runs of several experiments in one table and one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from bnngen.cli.console import kib, say, short, table
from bnngen.cli.learning import check_picture
from bnngen.report.simulation import plot_memory
from bnngen.simulate.results import read_summary


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", default="memory.png", show_default=True, type=click.Path(path_type=Path),
              help="The picture (PNG).")  # fmt: skip
def results(folders: tuple[Path, ...], out: Path) -> None:
    """Show the runs of several FOLDERS that `bnngen simulate` has left, and draw accuracy against memory."""
    check_picture(out)
    several = len(folders) > 1
    rows = [
        row | {"run": f"{folder.name}: {row['run']}" if several else row["run"]}
        for folder in folders
        for row in read_summary(folder)
    ]
    columns = ("run", "seeds", "accuracy, all classes", "classes seen", "peak RAM", "state")
    table(columns, [_line(row) for row in rows], range(1, len(columns)))
    say(f"picture: {short(plot_memory(rows, 'accuracy against memory', out))}")


def _line(row: Mapping[str, object]) -> tuple[str, ...]:
    shares = [_percent(row[f"{name}_mean"], row[f"{name}_ci95"]) for name in ("final_accuracy", "final_accuracy_seen")]
    sizes = [kib(int(row[name])) for name in ("learning_ram_bytes", "state_bytes")]
    return str(row["run"]), f"{row['seeds']:g}", *shares, *sizes


def _percent(mean: float, width: float | None) -> str:
    return f"{100 * mean:.2f}" if width is None else f"{100 * mean:.2f} ± {100 * width:.2f}"
