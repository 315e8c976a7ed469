# SPDX-License-Identifier: Apache-2.0
"""Measures the table of docs/zoo.md:  python -m tests.zoo.table [NAME ...]

For each model: export with random weights, `build` for host and rpi4, `analyze`; a line of Markdown on stdout. Seconds
are those of all processors together, which other work on the machine does not change much.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import onnx

from bnngen.export.zoo import MODELS
from tests.zoo.models import Cost, Exported, command

TARGETS = ("host", "rpi4")
MIB = 1 << 20


def row(name: str, folder: Path) -> str:
    """Return one line of the table."""
    model = Exported(name, folder)
    builds = [command(folder, "build", name, "--target", target) for target in TARGETS]
    facts = [json.loads(command(folder, "analyze", name, "--target", target, "--json").output) for target in TARGETS]
    binary, other = (sum(layer[kind] for layer in facts[0]["layers"]) for kind in ("binary_macs", "integer_macs"))
    cells = [
        name,
        len(onnx.load(model.path).graph.node),
        f"{model.path.stat().st_size / MIB:.1f}",
        f"{binary / 1e6:,.0f}",
        f"{other / 1e6:,.0f}",
        *(f"{fact['arena_bytes'] / 1024:,.0f}" for fact in facts),
        *(f"{flash(folder, name, target):.1f}" for target in TARGETS),
        seconds(model.cost),
        *(seconds(build) for build in builds),
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def flash(folder: Path, name: str, target: str) -> float:
    """Return the program's code and constants in MiB, as its project's manifest and `build` say."""
    from bnngen.device.compile import open_build
    from bnngen.device.size import measure_size
    from bnngen.targets import load_target

    built = open_build(folder / "build" / f"{name}-{target}", load_target(target))
    return measure_size(built.program(), built.target).flash_bytes / MIB


def seconds(cost: Cost) -> str:
    return f"{cost.cpu:.0f} s, {cost.peak / MIB:,.0f} MiB"


if __name__ == "__main__":
    for chosen in sys.argv[1:] or MODELS:
        with tempfile.TemporaryDirectory() as place:
            print(row(chosen, Path(place)), flush=True)
