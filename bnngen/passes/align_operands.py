# SPDX-License-Identifier: Apache-2.0
"""Bring tensors of fixed integers to the scale of those that they meet.

An addition or a concatenation of the image, of codes or of unpacked bits with a stream tensor, and a table's
input, need a scale that can be chosen. In front of them an element-wise chain that changes nothing is inserted;
it becomes a Requantize.
"""

from __future__ import annotations

from dataclasses import replace

from bnngen import ir
from bnngen.passes.copies import with_copy
from bnngen.passes.fixed import Fixed, fixed_tensors
from bnngen.passes.scales import image_of

JOINS = (ir.Add, ir.Concat, ir.Unary)


def align_operands(graph: ir.Graph, options: object) -> ir.Graph:
    """Return the graph in which only streams meet streams."""
    if not any(isinstance(_core(node), JOINS) for node in graph.nodes):
        return graph
    fixed = fixed_tensors(graph, image_of(graph))
    for node in list(graph.nodes):
        joins = isinstance(_core(node), JOINS) and not (isinstance(node, ir.Concat) and node.output in fixed)
        for name in dict.fromkeys(node.inputs) if joins else ():
            if name in fixed:
                graph = _with_stream(graph, name, node.output, fixed[name])
    return graph


def _core(node: ir.Node) -> ir.Node:
    return node.links[0] if isinstance(node, ir.Chain) else node


def _with_stream(graph: ir.Graph, name: str, reader: str, value: Fixed) -> ir.Graph:
    """Insert the stream copy of a fixed tensor in front of the node that writes `reader`."""
    if name not in graph.meta.ranges:
        ends = [tuple((value.scales * end).tolist()) for end in (value.lo, value.hi)]
        ranges = graph.meta.ranges | {name: ir.ChannelRange(*ends)}
        graph = replace(graph, meta=replace(graph.meta, ranges=ranges))
    return with_copy(graph, name, reader)
