# SPDX-License-Identifier: Apache-2.0
"""Drop a softmax at the end of the network: it is monotone, so the same class wins without it."""

from __future__ import annotations

from dataclasses import replace

from bnngen import ir
from bnngen.errors import ModelError


def drop_softmax(graph: ir.Graph, options: object) -> ir.Graph:
    """Return the graph without its last Softmax; one in the middle is refused."""
    for node in graph.of_type(ir.Softmax):
        if node.output != graph.output:
            raise ModelError(
                "a softmax in the middle of the network is not supported",
                where=f"layer {node.name}",
                why="only the order of the scores survives in integers",
                fix="use the softmax only as the last layer",
            )
        nodes = [other for other in graph.nodes if other is not node]
        tensors = {name: tensor for name, tensor in graph.tensors.items() if name != node.output}
        graph = replace(graph, nodes=tuple(nodes), tensors=tensors, output=node.inputs[0])
    return graph
