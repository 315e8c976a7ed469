# SPDX-License-Identifier: Apache-2.0
"""Copies of a tensor for one reader, on a scale of their own."""

from __future__ import annotations

from dataclasses import replace

from bnngen import ir
from bnngen.passes.naming import unused


def with_copy(graph: ir.Graph, name: str, reader: str) -> ir.Graph:
    """Insert a copy of a tensor in front of the node that writes `reader`.

    The copy is an element-wise chain that changes nothing; it becomes a Requantize.
    """
    copy = unused(graph, f"{name}.for.{reader}")
    link = ir.Clip(copy, (name,), copy, -float("inf"), float("inf"))
    nodes = []
    for node in graph.nodes:
        if node.output == reader:
            nodes.append(ir.Chain(copy, (name,), copy, (link,)))
            node = replace(node, inputs=tuple(copy if other == name else other for other in node.inputs))
            if isinstance(node, ir.Chain):
                node = replace(node, links=(replace(node.links[0], inputs=node.inputs), *node.links[1:]))
        nodes.append(node)
    tensors = graph.tensors | {copy: replace(graph.tensors[name], name=copy, dtype=ir.FLOAT)}
    ranges = graph.meta.ranges
    if name in ranges:
        ranges = ranges | {copy: ranges[name]}
    return replace(graph, nodes=tuple(nodes), tensors=tensors, meta=replace(graph.meta, ranges=ranges))
