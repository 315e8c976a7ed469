# SPDX-License-Identifier: Apache-2.0
"""End every network in int32 scores of one scale: a Dense layer has them, any other last layer gets a Scores node."""

from __future__ import annotations

from dataclasses import replace

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.passes.naming import unused


def end_in_scores(graph: ir.Graph, options: object) -> ir.Graph:
    """Return the graph whose last node is a Dense or Scores. Raises ModelError unless it ends in a real vector."""
    last, output = graph.producer(graph.output), graph.tensors[graph.output]
    if last is None or len(output.shape) != 1:
        raise ModelError(
            f"the network's output has shape {list(output.shape)}, scores are a vector",
            where=f"layer {last.name}" if last else f"tensor {graph.output}",
            fix="end the network with a Dense layer, or with global pooling",
        )
    if output.dtype != ir.FLOAT:
        raise ModelError(
            "the network's output is binary",
            where=f"layer {last.name}",
            why="bits cannot say which class is the likeliest",
            fix="end the network with a real-valued layer",
        )
    if isinstance(last, ir.Dense) and last is graph.nodes[-1] and not graph.consumers(graph.output):
        return graph
    real = unused(graph, f"{graph.output}.real")
    nodes = [_renamed(node, graph.output, real) for node in graph.nodes]
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name != graph.output}
    tensors |= {real: replace(output, name=real), graph.output: output}
    ranges = dict(graph.meta.ranges)
    if graph.output in ranges:
        ranges[real] = ranges[graph.output]
    scores = ir.Scores(f"{last.name}.scores", (real,), graph.output, None)
    return replace(graph, nodes=(*nodes, scores), tensors=tensors, meta=replace(graph.meta, ranges=ranges))


def _renamed(node: ir.Node, old: str, new: str) -> ir.Node:
    swap = {old: new}
    inputs = tuple(swap.get(name, name) for name in node.inputs)
    return replace(node, inputs=inputs, output=swap.get(node.output, node.output))
