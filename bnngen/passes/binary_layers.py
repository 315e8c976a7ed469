# SPDX-License-Identifier: Apache-2.0
"""Find binary layers: bits times weights that are +s and -s for each output channel, dense ones too.

    bits -> Dense or Conv2D of +-s   becomes   bits -> BinaryConv2D, kernel scale s (-> BatchNorm that adds the bias)

A dense layer behind a flattened map whose channels do not fill words reads the map itself, through a window of its
size. Kernel scales are made positive by negating filters: then a larger accumulator is a larger value in every channel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnngen import ir
from bnngen.passes.naming import kept, unused


def binary_layers(graph: ir.Graph, options: object) -> ir.Graph:
    """Return the graph with all its binary layers as BinaryConv2D of scales that are not negative."""
    nodes, tensors = [], dict(graph.tensors)
    for node in graph.nodes:
        if isinstance(node, ir.BinaryConv2D):
            nodes.append(_positive(_on_the_map(graph, replace(node, latent=None))))  # what runs needs signs alone
        elif isinstance(node, ir.Conv2D | ir.Dense) and _is_binary(graph, node):
            nodes += _binary(graph, node, tensors)
        else:
            nodes.append(node)
    read = kept(graph) | {name for node in nodes for name in node.inputs}
    nodes = [node for node in nodes if not isinstance(node, ir.Flatten) or node.output in read]
    used = {graph.input} | {name for node in nodes for name in (*node.inputs, node.output)}
    return replace(graph, nodes=tuple(nodes), tensors={name: t for name, t in tensors.items() if name in used})


def shift_by(name: str, source: str, output: str, bias: np.ndarray) -> ir.BatchNorm:
    """Return a batch norm that only adds."""
    zero, one = np.zeros(len(bias), np.float32), np.ones(len(bias), np.float32)
    return ir.BatchNorm(name, (source,), output, one, bias.astype(np.float32), zero, one, 0.0)


def fills_words(graph: ir.Graph, name: str) -> bool:
    """True when the bits of the tensor can be read as they lie: a flattened map needs whole words a pixel."""
    node = graph.producer(name)
    if not isinstance(node, ir.Flatten):
        return True
    source = graph.tensors[node.inputs[0]]
    return source.channels % 32 == 0 or source.size == source.channels


def _is_binary(graph: ir.Graph, node: ir.Conv2D | ir.Dense) -> bool:
    if graph.tensors[node.inputs[0]].dtype != ir.BITS:
        return False
    size = np.abs(node.weights).reshape(-1, node.weights.shape[-1])
    return bool((size == size[:1]).all())


def _binary(graph: ir.Graph, node: ir.Conv2D | ir.Dense, tensors: dict[str, ir.Tensor]) -> list[ir.Node]:
    dense = isinstance(node, ir.Dense)
    weights = node.weights[None, None] if dense else node.weights
    scale = np.abs(weights[0, 0, 0]).astype(np.float32)
    signs = np.where(weights < 0, np.int8(-1), np.int8(1))
    window, groups = (ir.Window((1, 1)), 1) if dense else (node.window, node.groups)
    unit = None if (scale == 1).all() else scale
    conv = _on_the_map(graph, ir.BinaryConv2D(node.name, node.inputs, node.output, signs, window, 0, groups, unit))
    if node.bias is None or not np.any(node.bias):
        return [conv]
    dot = unused(graph, f"{node.output}.dot")
    tensors[dot] = replace(tensors[node.output], name=dot)
    return [replace(conv, output=dot), shift_by(f"{node.name}.bias", dot, node.output, node.bias)]


def _on_the_map(graph: ir.Graph, conv: ir.BinaryConv2D) -> ir.BinaryConv2D:
    """Let a dense layer read the map instead of its flattened bits, where these would not lie in words."""
    if fills_words(graph, conv.inputs[0]):
        return conv
    source = graph.tensors[graph.producer(conv.inputs[0]).inputs[0]]
    weights = conv.weights.reshape(*source.shape, -1)
    return replace(conv, inputs=(source.name,), weights=weights, window=ir.Window(source.shape[:2]))


def _positive(conv: ir.BinaryConv2D) -> ir.BinaryConv2D:
    if conv.kernel_scale is None or (conv.kernel_scale >= 0).all():
        return conv
    weights = np.where(conv.kernel_scale < 0, -conv.weights, conv.weights).astype(np.int8)
    return replace(conv, weights=weights, kernel_scale=np.abs(conv.kernel_scale))
