# SPDX-License-Identifier: Apache-2.0
"""Let layers of the real-valued stream read bits: as int8, +1 and -1, exactly (docs/adr/0006-every-backbone.md, 2).

One Unpack stands behind each binary tensor that such a layer reads. A Sign of bits changes nothing and goes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnngen import ir
from bnngen.passes.naming import unused

Namer = dict[str, str]


def unpack_bits(graph: ir.Graph, options: object) -> ir.Graph:
    """Return the graph in which only layers that compute with bits read them."""
    graph = _without_signs_of_bits(graph)
    tensors, nodes = dict(graph.tensors), []
    unpacked: Namer = {}
    for node in graph.nodes:
        for name in node.inputs:
            if tensors[name].dtype == ir.BITS and name not in unpacked and not _reads_bits(graph, node, tensors):
                new = unused(graph, f"{name}.unpacked")
                one = np.ones(tensors[name].channels, np.int16)
                nodes.append(ir.Unpack(f"{name}.unpack", (name,), new, -one, one))
                tensors[new], unpacked[name] = ir.Tensor(new, tensors[name].shape), new
        if _reads_bits(graph, node, tensors):
            nodes.append(node)
            continue
        nodes.append(replace(node, inputs=tuple(unpacked.get(name, name) for name in node.inputs)))
        if isinstance(node, MOVES) and tensors[node.output].dtype == ir.BITS:
            tensors[node.output] = replace(tensors[node.output], dtype=ir.FLOAT)
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


MOVES = (ir.Flatten, ir.Concat, ir.Channels, ir.MaxPool)


def _reads_bits(graph: ir.Graph, node: ir.Node, tensors: dict[str, ir.Tensor]) -> bool:
    if any(tensors[name].dtype != ir.BITS for name in node.inputs):
        return False
    if isinstance(node, ir.Channels):
        return bool((node.index >= 0).all())
    if isinstance(node, ir.Flatten):
        source = tensors[node.inputs[0]]
        readers = graph.consumers(node.output)
        packed = source.channels % 32 == 0 or source.size == source.channels
        return packed or any(isinstance(reader, ir.BinaryConv2D) for reader in readers)
    return isinstance(node, ir.BinaryConv2D | ir.MaxPool | ir.Concat | ir.Unpack)


def _without_signs_of_bits(graph: ir.Graph) -> ir.Graph:
    renamed: Namer = {}
    nodes = []
    for node in graph.nodes:
        node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
        if isinstance(node, ir.Sign) and graph.tensors[node.inputs[0]].dtype == ir.BITS and node.output != graph.output:
            renamed[node.output] = node.inputs[0]
        else:
            nodes.append(node)
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name not in renamed}
    return replace(graph, nodes=tuple(nodes), tensors=tensors)
