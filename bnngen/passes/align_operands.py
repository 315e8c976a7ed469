# SPDX-License-Identifier: Apache-2.0
"""Bring tensors of fixed integers to the scale of those that they meet.

An addition or a concatenation of the image, of codes or of unpacked bits with a stream tensor, and a table's
input, need a scale that can be chosen. In front of them an element-wise chain that changes nothing is inserted;
it becomes a Requantize.
"""

from __future__ import annotations

from dataclasses import replace

from bnngen import ir
from bnngen.passes.fixed import Fixed, fixed_tensors
from bnngen.passes.naming import unused
from bnngen.passes.scales import image_of

JOINS = (ir.Add, ir.Concat, ir.Unary)
EVERYTHING = (-float("inf"), float("inf"))


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
    copy = unused(graph, f"{name}.for.{reader}")
    link = ir.Clip(copy, (name,), copy, *EVERYTHING)
    nodes = []
    for node in graph.nodes:
        if node.output == reader:
            nodes.append(ir.Chain(copy, (name,), copy, (link,)))
            node = replace(node, inputs=tuple(copy if other == name else other for other in node.inputs))
            if isinstance(node, ir.Chain):
                node = replace(node, links=(replace(node.links[0], inputs=node.inputs), *node.links[1:]))
        nodes.append(node)
    tensors = graph.tensors | {copy: replace(graph.tensors[name], name=copy, dtype=ir.FLOAT)}
    ends = [value.scales * end for end in (value.lo, value.hi)]
    reach = ir.ChannelRange(tuple(ends[0].tolist()), tuple(ends[1].tolist()))
    ranges = graph.meta.ranges | {copy: graph.meta.ranges.get(name, reach)}
    return replace(graph, nodes=tuple(nodes), tensors=tensors, meta=replace(graph.meta, ranges=ranges))
