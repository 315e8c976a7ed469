# SPDX-License-Identifier: Apache-2.0
"""Gather what one kernel computes: an accumulator and the element-wise steps behind it.

A kernel ends in an epilogue (docs/numerics.md, "Affine" and "Threshold"), so a convolution, its ReLU, its
batch norm and the sign that follows are one step. Which sequences an epilogue can express is written as a
pattern over one letter a node; a chain grows while its letters match:

    C  Conv2D, BinaryConv2D, hidden Dense     R  Relu     B  BatchNorm     S  Sign
    P  average pools                          A  Add

A ReLU *before* the batch norm clamps the accumulator at 0, which needs a zero that is the same integer for
every channel: not with a bias, nor with a kernel scale that is not positive. The chain then ends at the
ReLU, and the batch norm starts one of its own.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from bnngen import ir

LETTER = {
    ir.Conv2D: "C",
    ir.BinaryConv2D: "C",
    ir.Dense: "C",
    ir.AveragePool: "P",
    ir.GlobalAveragePool: "P",
    ir.Add: "A",
    ir.Clip: "R",
    ir.BatchNorm: "B",
    ir.Sign: "S",
}
EXPRESSIBLE = re.compile(r"(C(RB|B)?R?S?|PB?R?S?|AR?|BR?S?|R|S)")


def fuse_chains(graph: ir.Graph, options: object) -> ir.Graph:
    """Return the graph with every chain as one `ir.Chain`; the final Dense stays as it is."""
    nodes: list[ir.Node] = []
    done: set[str] = set()
    for node in graph.nodes:
        if node.output in done:
            continue
        if type(node) not in LETTER or node.output == graph.output:
            nodes.append(node)
            continue
        links = _grow(graph, node)
        done.update(link.output for link in links)
        nodes.append(ir.Chain(node.name, node.inputs, links[-1].output, tuple(links)))
    used = {graph.input, graph.output} | {name for node in nodes for name in (*node.inputs, node.output)}
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in used}
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def _grow(graph: ir.Graph, first: ir.Node) -> list[ir.Node]:
    links = [first]
    while (following := _next(graph, links[-1])) is not None and expressible([*links, following]):
        links.append(following)
    return links


def _next(graph: ir.Graph, node: ir.Node) -> ir.Node | None:
    """Return the only reader of the node's output; None where the output itself is needed."""
    consumers = graph.consumers(node.output)
    if len(consumers) != 1 or consumers[0].output == graph.output or node.output in _kept(graph):
        return None
    return consumers[0]


def _kept(graph: ir.Graph) -> set[str]:
    """Tensors that must exist as such: what learning cuts at and reads."""
    meta = graph.meta
    return {part.tensor for part in (meta.latent, meta.head) if part is not None}


def expressible(links: list[ir.Node]) -> bool:
    """True when one epilogue can compute the links after the first."""
    letters = "".join(LETTER.get(type(link), "?") for link in links)
    if not EXPRESSIBLE.fullmatch(letters):
        return False
    return not letters.startswith("CRB") or has_common_zero(links[0])


def has_common_zero(node: ir.Node) -> bool:
    """True when the accumulator's 0 is the real 0 in every channel, and larger means larger."""
    if getattr(node, "bias", None) is not None and np.any(node.bias != 0):
        return False
    scale = getattr(node, "kernel_scale", None)
    return scale is None or bool(np.all(scale > 0))
