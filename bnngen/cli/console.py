# SPDX-License-Identifier: Apache-2.0
"""Everything that reaches the terminal: tables, progress, errors."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from bnngen.errors import BnngenError

LINE_SECONDS = 30.0  # without a terminal: no longer than this between two lines, where anything moves
ProgressFn = Callable[[str, int, int], None]

WIDTH = None if sys.stdout.isatty() else 140  # a file or a pipe has no width of its own

out = Console(highlight=False, soft_wrap=True, width=WIDTH)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str = "") -> None:
    """Print a line for people; nothing in it is markup."""
    out.print(text, markup=False)


def heading(text: str) -> None:
    """Print a line that opens a part of the output."""
    out.print(f"\n{text}", style="bold", markup=False)


def print_json(value: object) -> None:
    """Print one JSON document: keys as given, non-ASCII kept."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> None:
    """Print rows under a header; columns whose index is in `right` are right-aligned."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        grid.add_column(Text(name), justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(str(cell)) for cell in row))  # Text: a name may hold what rich takes for markup
    out.print(grid)


def print_error(error: BnngenError) -> None:
    """Print what happened, where, why and what to do."""
    err.print("bnngen: error: ", style="bold red", end="")
    err.print(error.message, markup=False)
    for label, text in error.lines():
        err.print(f"  {label:<6} {text}", markup=False)


@contextmanager
def progress() -> Iterator[ProgressFn]:
    """Yield a function (what, done, total): a bar on a terminal, a line per tenth elsewhere; total 0: not known."""
    if not err.is_terminal:
        yield _lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), _Count(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=None)

        def update(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield update


class _Count(MofNCompleteColumn):
    """Done of total; done alone where the total is not known."""

    def render(self, task: Task) -> Text:
        return Text(_count(int(task.completed), int(task.total or 0)), style="progress.download")


def _count(done: int, total: int) -> str:
    if total:
        return f"{done}/{total}"
    return str(done) if done else ""


def _lines() -> ProgressFn:
    last: dict[str, tuple[int, float]] = {}

    def update(what: str, done: int, total: int) -> None:
        label, now = what.split(",")[0], time.monotonic()
        tenth = 10 * done // total if total else 0
        before, since = last.get(label, (None, now))
        if tenth == before and now - since < LINE_SECONDS:
            return
        last[label] = (tenth, now)
        count = _count(done, total)
        err.print(f"  {what}: {count}" if count else f"  {what}", markup=False)

    return update


def kib(count: int) -> str:
    """Bytes for people."""
    if count >= 2**20:
        return f"{count / 2**20:.1f} MiB"
    return f"{count / 1024:.1f} KiB" if count >= 1024 else f"{count} B"


def short(path: Path) -> str:
    """A path as the user would type it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
