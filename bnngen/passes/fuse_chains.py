# SPDX-License-Identifier: Apache-2.0
"""Gather what one kernel computes: an accumulator and the element-wise steps behind it.

A run is a layer and all element-wise nodes behind it that nobody else reads. It becomes one chain where one epilogue
can express it (`forms`), otherwise as few as its order allows: each takes the longest expressible part of what is left.
Where a quantizer or the scores end a run, and the layer's accumulator is exact, the layer stands alone.
"""

from __future__ import annotations

from dataclasses import replace

from bnngen import ir
from bnngen.passes.binary_layers import shift_by
from bnngen.passes.curves import falls
from bnngen.passes.fixed import Fixed, accumulator, fixed_tensors, has_no_bias
from bnngen.passes.forms import ELEMENTS, ENDS, KERNELS, LAYERS, expressible
from bnngen.passes.naming import kept, unused
from bnngen.passes.scales import image_of

Links = tuple[ir.Node, ...]


def fuse_chains(graph: ir.Graph, options: object) -> ir.Graph:
    """Return the graph with every chain as one `ir.Chain`; a Dense that gives the scores stays as it is."""
    fixed = fixed_tensors(graph, image_of(graph))
    nodes: list[ir.Node] = []
    tensors = dict(graph.tensors)
    done: set[str] = set()
    for node in graph.nodes:
        if node.output in done:
            continue
        scores = isinstance(node, ir.Dense) and node.output == graph.output
        if scores or not isinstance(node, (*KERNELS, *ELEMENTS, *ENDS)):
            nodes.append(node)
            continue
        run = _run(graph, node)
        done.update(link.output for link in run)
        for links in _cut(_exactly(graph, run, fixed, tensors)):
            nodes.append(ir.Chain(links[0].name, links[0].inputs, links[-1].output, links))
    used = {graph.input, graph.output} | {name for node in nodes for name in (*node.inputs, node.output)}
    return replace(graph, nodes=tuple(nodes), tensors={name: tensors[name] for name in tensors if name in used})


def _run(graph: ir.Graph, first: ir.Node) -> Links:
    """Return the node and the element-wise ones behind it, as far as each is the only reader of the one before."""
    run, stays = [first], kept(graph)
    while run[-1].output not in stays and not isinstance(run[-1], ENDS):
        readers = graph.consumers(run[-1].output)
        if len(readers) != 1 or not isinstance(readers[0], (*ELEMENTS, *ENDS)):
            break
        run.append(readers[0])
    return tuple(run)


def _exactly(graph: ir.Graph, run: Links, fixed: dict[str, Fixed], tensors: dict[str, ir.Tensor]) -> list[Links]:
    """Part the layer from the rest where its exact accumulator decides codes or scores. Its bias goes to the rest."""
    layer, rest = run[0], run[1:]
    if not (isinstance(layer, LAYERS) and rest and isinstance(rest[-1], ir.Levels | ir.Scores)):
        return [run]
    bare, shifted = layer, rest
    if not has_no_bias(layer):
        total = unused(graph, f"{layer.output}.sum")
        bare = replace(layer, bias=None, output=total)
        shifted = (shift_by(f"{layer.name}.bias", total, layer.output, layer.bias), *rest)
    if not _whole(shifted) or accumulator(bare, fixed.get(layer.inputs[0])) is None:
        return [run]
    tensors[bare.output] = replace(tensors[layer.output], name=bare.output)
    return [(bare,), shifted]


def _cut(parts: list[Links]) -> list[Links]:
    """Return chains that one epilogue each can express."""
    chains = []
    for links in parts:
        while links:
            length = len(links) if _whole(links) else _longest(links)
            chains.append(links[:length])
            links = links[length:]
    return chains


def _longest(links: Links) -> int:
    return max(n for n in range(1, len(links) + 1) if not isinstance(links[n - 1], ENDS) and expressible(links[:n]))


def _whole(links: Links) -> bool:
    """True when one epilogue computes all of the links."""
    *body, last = links
    if not isinstance(last, ENDS):
        return expressible(links)
    layer = bool(body) and isinstance(body[0], KERNELS)
    if isinstance(last, ir.Scores):
        bent = any(isinstance(link, ir.PRelu) for link in body)
        return not body or not layer and not bent and expressible(tuple(body))
    if layer and not (isinstance(body[0], LAYERS) and isinstance(last, ir.Sign)):
        return False
    return falls(tuple(body[layer:]), 1) is not None
