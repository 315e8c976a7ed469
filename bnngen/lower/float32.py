# SPDX-License-Identifier: Apache-2.0
"""Float graph -> Program: the reference that integers are held against (docs/adr/0009-float32-reference.md).

Every op of the float graph is one call, in the graph's order; pixels become real numbers in front, and scores become
integers behind. There is no cut and no learned head.
"""

from __future__ import annotations

from dataclasses import replace

from bnngen import ir
from bnngen.lower.calls import Lowering
from bnngen.lower.float_layers import FLOAT_LOWERINGS, RealImage, RealScores
from bnngen.lower.lowering import check_names, features_of, lower_nodes, make_program, split
from bnngen.lower.program import Program

SCORE_STEP = 2.0**-16  # what an int32 score of a float32 program counts


def lower_float32(graph: ir.Graph, kernels: str = "auto") -> Program:
    """Lower a float graph, as `run_float_passes` returns it, for any target.

    kernels: "auto" or "ref", which are the same here. Raises ModelError for a layer that no kernel computes.
    """
    ir.verify(graph)
    graph = device_graph(graph)
    check_names(graph)
    ctx = Lowering(graph, frozenset(), kernels, {}, dict(graph.tensors))
    parts = split(graph, None)
    segments = {name: tuple(lower_nodes(ctx, nodes, FLOAT_LOWERINGS)) for name, nodes in parts.items()}
    return make_program(ctx, segments, None, ctx.root(features_of(graph, parts)))


def device_graph(graph: ir.Graph) -> ir.Graph:
    """Return the graph from u8 pixels to s32 scores; its real image and its real scores get names of their own.

    Encodings read the pixels themselves, all other layers the real image. Cut and head are left out.
    """
    image, scores = graph.tensors[graph.input], graph.tensors[graph.output]
    real_image, real_scores = _unused(graph, image.name), _unused(graph, scores.name)
    swap = {image.name: real_image, scores.name: real_scores}
    nodes = [_renamed(node, {} if isinstance(node, ir.Encode) else swap) for node in graph.nodes]
    tensors = dict(graph.tensors) | {
        image.name: replace(image, dtype=ir.U8),
        scores.name: ir.Tensor(scores.name, scores.shape, ir.S32, SCORE_STEP),
        real_scores: replace(scores, name=real_scores),
    }
    if any(real_image in node.inputs for node in nodes):
        tensors[real_image] = replace(image, name=real_image)
        meta = graph.meta
        nodes.insert(0, RealImage(image.name, (image.name,), real_image, meta.input_scale, meta.input_offset))
    nodes.append(RealScores(scores.name, (real_scores,), scores.name))
    meta = replace(graph.meta, latent=None, head=None)
    return replace(graph, nodes=tuple(nodes), tensors=tensors, meta=meta)


def _renamed(node: ir.Node, swap: dict[str, str]) -> ir.Node:
    inputs = tuple(swap.get(name, name) for name in node.inputs)
    return replace(node, inputs=inputs, output=swap.get(node.output, node.output))


def _unused(graph: ir.Graph, name: str) -> str:
    """Return a name for the real-valued twin of a tensor that no other tensor has."""
    real = f"{name}.real"
    while real in graph.tensors:
        real += "_"
    return real
