# SPDX-License-Identifier: Apache-2.0
"""Take the sign before the maximum: sign is monotone, so both orders give the same bits.

    MaxPool -> Sign      becomes      Sign -> MaxPool of bits

The sign then decides on what comes before the pool, exactly, and the pool moves bits instead of integers.
"""

from __future__ import annotations

from dataclasses import replace

from bnngen import ir
from bnngen.passes.naming import kept, unused


def sign_before_pool(graph: ir.Graph, options: object) -> ir.Graph:
    """Return the graph with every such pair turned round; a pool that others read as well stays."""
    for sign in list(graph.of_type(ir.Sign)):
        pool = graph.producer(sign.inputs[0])
        if isinstance(pool, ir.MaxPool) and len(graph.consumers(pool.output)) == 1 and pool.output not in kept(graph):
            graph = _turned(graph, pool, sign)
    return graph


def _turned(graph: ir.Graph, pool: ir.MaxPool, sign: ir.Sign) -> ir.Graph:
    source = graph.tensors[pool.inputs[0]]
    if source.dtype == ir.BITS:
        return graph
    early = unused(graph, f"{sign.output}.early")
    pair = {
        pool: replace(sign, inputs=(source.name,), output=early),
        sign: replace(pool, inputs=(early,), output=sign.output),
    }
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name != pool.output}
    tensors[early] = ir.Tensor(early, source.shape, ir.BITS)
    return replace(graph, nodes=tuple(pair.get(node, node) for node in graph.nodes), tensors=tensors)
