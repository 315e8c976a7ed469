# SPDX-License-Identifier: Apache-2.0
"""What learning takes, printed: every buffer of one build, and a table of what fits on which board."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from bnngen import ir
from bnngen.cli.console import heading, progress, say, table
from bnngen.errors import ModelError
from bnngen.learning_memory import Fit, learning_items, shared_bytes, what_fits
from bnngen.lower.tail_spec import find_tail
from bnngen.pipeline import BuildOptions, Compiled
from bnngen.targets import Target, load_target, target_names


def learning_rows(compiled: Compiled) -> list[tuple[str, str]]:
    """Return one row a group of buffers, for the report of a build."""
    groups = groupby(learning_items(compiled), lambda item: item.group)
    return [(f"  of which {group}", f"{sum(item.bytes for item in items):,}") for group, items in groups]


def print_learning(compiled: Compiled) -> None:
    """Print every buffer of learning and their sum; nothing for a model that does not learn."""
    items = learning_items(compiled)
    if not items:
        return
    heading(f"learning memory on {compiled.target.name}")
    lines = [(item.group, item.name, f"{item.bytes:,}", "always" if item.kept else "in a step") for item in items]
    lines.append(("total", "", f"{sum(item.bytes for item in items):,}", ""))
    table(["", "buffer", "bytes", "kept"], lines, (2,))
    say(
        f"the arena, {compiled.plan.arena_bytes:,} bytes, holds these and the activations of inference; "
        f"{shared_bytes(compiled):,} bytes of them share a place, at different times"
    )


def boards(chosen: Target) -> list[Target]:
    """Return the targets without an operating system, and the chosen one."""
    found = [load_target(name) for name in target_names()]
    small = [target for target in found if target.port_files.memory_map]
    return small if any(target.name == chosen.name for target in small) else [chosen, *small]


def fits_of(real: ir.Graph, chosen: Target, options: BuildOptions) -> list[Fit]:
    """Return what fits where; raises ModelError for a model without a learned head."""
    if real.meta.head is None:
        raise ModelError(
            "this model has no learned head",
            where=f"model {real.meta.name}",
            why="only learning needs the memory that --fits lists",
            fix="leave --fits out, or export it again with a cut: bnngen export MODEL --cut features",
        )
    with progress() as report:
        return what_fits(real, boards(chosen), options, report)


def print_fits(real: ir.Graph, fits: Sequence[Fit]) -> None:
    """Print a line for each board, a column for each number of trained blocks."""
    heading("what fits where: RAM that learning and inference need together, in KiB, with so many trained blocks")
    counts = sorted({fit.tail for fit in fits})
    rows = []
    for name in dict.fromkeys(fit.target for fit in fits):
        own = [fit for fit in fits if fit.target == name]
        rows.append((name, f"{own[0].memory.ram_budget_bytes / 1024:,.0f}", *(_cell(fit) for fit in own)))
    table(["board", "RAM", *(f"tail {n}" if n else "head alone" for n in counts)], rows, range(1, len(counts) + 2))
    stop = find_tail(real).stop
    say(f"a * does not fit. No more than {counts[-1]} blocks can be trained: layer {stop.layer}, {stop.why}")


def _cell(fit: Fit) -> str:
    return f"{fit.memory.ram_bytes / 1024:,.1f}" + ("" if fit.memory.fits else " *")
