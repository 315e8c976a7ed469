# SPDX-License-Identifier: Apache-2.0
"""`bnngen operators`: which layers are exported, which are refused and why, and what targets compute."""

from __future__ import annotations

import importlib.util
import sys

import click

from bnngen.cli.console import heading, say, table
from bnngen.lower.support import op_rows

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
INTRODUCTION = """# Layers and operators

Made by `bnngen operators --markdown`; a test holds it against the code.

Quantizers of Larq's layers may be mixed freely. Inputs: none, `ste_sign`, `approx_sign`, `swish_sign`,
`ste_heaviside`, `dorefa_quantizer`. Kernels: these, `magnitude_aware_sign`, `ste_tern` and quantizers of one's own.
Both binary is a binary convolution; every other mixture is an integer convolution, whose weights are small exact
integers where the quantizer has few values.

TensorFlow operations between layers are exported too, those of the second table; a `Lambda`, or a layer of one's own,
by the operations that it calls.

A model file holds layers, quantizers and functions of one's own by their names. The file that defines them is imported
first: `bnngen export model.keras --import layers.py`, as often as there are such files. Their neighbours in the folder
can be imported by them, and what trains belongs behind `if __name__ == "__main__":`. A `Lambda` holds code, which runs
when the model is read: that takes `--import`, or `--trust-lambdas` where it calls nothing of such a file. Read only
models that you trust. Larq reads functions as quantizers from `.keras` files alone, not from `.h5`."""


@click.command()
@click.option("--markdown", is_flag=True, help="Print docs/operators.md.")
def operators(markdown: bool) -> None:
    """List the layers that can be exported, those that cannot, and what targets compute."""
    tables = [*(_layer_tables() if importlib.util.find_spec("larq") else []), _op_table()]
    if markdown:
        sys.stdout.write(as_markdown(tables))
        return
    for title, columns, rows in tables:
        heading(title)
        table(columns, rows)
    if len(tables) == 1:
        say("\nLayers of Keras and Larq are listed where these are installed: pip install 'bnngen[train]'")


def _layer_tables() -> list[Table]:
    from bnngen.export.support import layer_rows, operation_names, refused_rows

    return [
        ("Layers that are exported", ("layer", "as"), layer_rows()),
        ("Operations between layers", ("operation",), [(name,) for name in operation_names()]),
        ("Layers that are refused", ("layer", "because", "instead"), refused_rows()),
    ]


def _op_table() -> Table:
    rows = [(row.op, row.meaning, ", ".join(row.kernels)) for row in op_rows()]
    return "What targets compute", ("op of the integer graph", "meaning", "kernels (variants)"), rows


def as_markdown(tables: list[Table]) -> str:
    """Return the tables as one page; a bar inside a cell is escaped."""
    lines = [INTRODUCTION]
    for title, columns, rows in tables:
        lines += ["", f"## {title}", ""]
        for row in (columns, ["---"] * len(columns), *rows):
            lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |")
    return "\n".join([*lines, ""])
