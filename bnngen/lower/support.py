# SPDX-License-Identifier: Apache-2.0
"""What targets compute, as a table: ops of the integer graph, the kernels behind them, and their variants."""

from __future__ import annotations

from dataclasses import dataclass

from bnngen import ir
from bnngen.lower.kernels import KERNELS

COMPUTED_BY: dict[type[ir.Node], tuple[str, ...]] = {
    ir.QuantizeInput: ("quantize_input",),
    ir.Encode: ("thermometer", "bitplanes"),
    ir.Conv2D: ("conv2d", "conv2d_sign"),
    ir.BinaryConv2D: ("bconv2d", "bconv2d_sign"),
    ir.Dense: ("dense",),
    ir.Scores: ("scores",),
    ir.MaxPool: ("maxpool", "bmaxpool"),
    ir.AveragePool: ("avgpool",),
    ir.GlobalAveragePool: ("avgpool",),
    ir.Add: ("add",),
    ir.Mul: ("mul",),
    ir.Requantize: ("requantize", "piecewise", "steps"),
    ir.Unary: ("lookup",),
    ir.Binarize: ("binarize",),
    ir.Unpack: ("unpack",),
    ir.Concat: ("concat", "bconcat"),
    ir.Channels: ("channels", "bchannels"),
    ir.Flatten: ("bflatten",),
}


@dataclass(frozen=True)
class OpRow:
    """One op of the integer graph. kernels: name and variants, "bconv2d (neon, cm4, x64, ref)"."""

    op: str
    meaning: str
    kernels: tuple[str, ...]


def op_rows() -> list[OpRow]:
    """Return a row for every op of the integer graph, in the order of COMPUTED_BY."""
    return [
        OpRow(kind.__name__, summary(kind), tuple(_kernel(name) for name in names))
        for kind, names in COMPUTED_BY.items()
    ]


def _kernel(name: str) -> str:
    return f"{name} ({', '.join(variant.name for variant in KERNELS[name].variants)})"


def summary(thing: object) -> str:
    """Return the first sentence of a docstring on one line."""
    text = " ".join((thing.__doc__ or "").split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".")
