# SPDX-License-Identifier: Apache-2.0
"""Names that passes give to new tensors, and the tensors that no pass may take away."""

from __future__ import annotations

from bnngen import ir


def unused(graph: ir.Graph, name: str) -> str:
    """Return `name`, or `name` with a number, so that no tensor of the graph has it yet."""
    number, candidate = 1, name
    while candidate in graph.tensors:
        number += 1
        candidate = f"{name}{number}"
    return candidate


def kept(graph: ir.Graph) -> set[str]:
    """Return the tensors that must exist as such: what learning cuts at and reads, and the scores."""
    meta = graph.meta
    return {part.tensor for part in (meta.latent, meta.head) if part is not None} | {graph.output}
