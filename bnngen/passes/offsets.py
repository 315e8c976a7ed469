# SPDX-License-Identifier: Apache-2.0
"""Where the decision of a sign lies between the integers of an 8-bit tensor (docs/numerics.md, "Offset").

Rounded to nearest, the last half step below 0 becomes 0, and sign(0) is +1: every convolution behind would read too
many +1, an error with a direction. So a tensor that a sign reads means scale * (q + offset), the offset such that the
sign's threshold lies half-way between two integers: 1/2 for a threshold of 0. Offsets fold into constants of the layers
that write and read; an addition adds them, and the branch written last gives the sum the offset that it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bnngen import ir
from bnngen.passes.forms import LAYERS, compose

Array = np.ndarray
JOINS = (ir.MaxPool, ir.Flatten, ir.Concat, ir.Channels)


def with_offsets(graph: ir.Graph, tensors: Mapping[str, ir.Tensor]) -> dict[str, ir.Tensor]:
    """Return the integer tensors of a fused graph, the 8-bit ones among them with their offsets."""
    names = {name for name, tensor in tensors.items() if tensor.dtype == ir.S8}
    wanted = _wanted(graph, tensors)
    whole = _whole(graph) | set(graph.tensors) - names
    while True:
        offsets, conflict = _assign(graph, wanted, _spread(graph, whole))
        if not conflict:
            return {name: _shifted(tensor, offsets.get(name)) for name, tensor in tensors.items()}
        whole |= conflict


def _shifted(tensor: ir.Tensor, offset: Array | None) -> ir.Tensor:
    if offset is None or not offset.any():
        return tensor
    same = (offset == offset[0]).all()
    return replace(tensor, offset=float(offset[0]) if same else tuple(offset.tolist()))


def _links(node: ir.Node) -> tuple[ir.Node, ...]:
    return node.links if isinstance(node, ir.Chain) else (node,)


# --------------------------------------------------------------------------------------- what is needed


def _wanted(graph: ir.Graph, tensors: Mapping[str, ir.Tensor]) -> dict[str, Array]:
    """Return the offset that puts the threshold of the first sign behind each tensor half-way between integers."""
    wanted: dict[str, Array] = {}
    for node in graph.nodes:
        *norms, last = _links(node)
        name = node.inputs[0]
        if not isinstance(last, ir.Sign) or not all(isinstance(link, ir.BatchNorm) for link in norms):
            continue
        if name in tensors and name not in wanted:
            gain, offset = compose(np.ones(tensors[name].channels), np.zeros(tensors[name].channels), tuple(norms))
            cut = np.divide(-offset, gain, out=np.zeros(len(gain)), where=gain != 0)
            wanted[name] = _fraction(cut / tensors[name].scales + 0.5)
    direct = set(wanted)
    for node in reversed(graph.nodes):  # what joins or moves channels without changing them passes the wish on
        parts = _passed_back(node, graph, wanted[node.output]) if node.output in wanted else {}
        for name, part in parts.items():
            if name not in direct:  # of several such readers the first decides, channel by channel
                wanted[name] = np.where(np.isnan(part), wanted.get(name, part), part)
    return {name: np.nan_to_num(part) for name, part in wanted.items()}


def _passed_back(node: ir.Node, graph: ir.Graph, wish: Array) -> dict[str, Array]:
    """Return what the output's wish means for each input; NaN for channels that the output does not have."""
    widths = [graph.tensors[name].channels for name in node.inputs]
    if isinstance(node, ir.MaxPool | ir.Concat):
        return dict(zip(node.inputs, np.split(wish, np.cumsum(widths)[:-1]), strict=True))
    if isinstance(node, ir.Channels):
        part = np.full(widths[0], np.nan)
        for channel, source in reversed(list(enumerate(node.index.tolist()))):
            if source >= 0:
                part[source] = wish[channel]
        return {node.inputs[0]: part}
    if isinstance(node, ir.Flatten):
        pixels = wish.reshape(-1, widths[0])
        return {node.inputs[0]: np.where((pixels == pixels[0]).all(axis=0), pixels[0], np.nan)}
    return {}


def _fraction(offset: Array) -> Array:
    """Return the offset without whole steps: above -1/2, up to 1/2."""
    return offset - np.ceil(offset - 0.5)


def _whole(graph: ir.Graph) -> set[str]:
    """Return the tensors whose integer 0 must mean 0: padded, clipped, multiplied, looked up or learned ones."""
    learned = (graph.meta.latent, graph.meta.head)
    found = {graph.input, graph.output} | {part.tensor for part in learned if part is not None}
    for node in graph.nodes:
        first, *rest = links = _links(node)
        padded = isinstance(first, ir.Conv2D) and any(first.window.pads)
        clip = rest[:1] if isinstance(first, LAYERS) else [first]
        clipped = len(links) > 1 and any(map(_is_limit, clip))
        if padded or clipped or isinstance(first, ir.Unary | ir.Mul) or isinstance(node, ir.Dense):
            found |= set(node.inputs)
        if isinstance(first, ir.Unary) or _is_limit(links[-1]):
            found.add(node.output)
    return found


def _is_limit(link: ir.Node) -> bool:
    return isinstance(link, ir.Clip) and bool(np.isfinite([link.lo, link.hi]).any())


def _spread(graph: ir.Graph, whole: set[str]) -> set[str]:
    """Return the set with the tensors whose channels become channels of a member."""
    found = set(whole)
    for node in reversed(graph.nodes):
        if isinstance(node, JOINS) and node.output in found:
            found |= set(node.inputs)
    return found


# -------------------------------------------------------------------------------------------- choice


def _assign(graph: ir.Graph, wanted: Mapping[str, Array], whole: set[str]) -> tuple[dict[str, Array], set[str]]:
    """Return offsets by tensor, and the operands of a sum that can be whole only if they are; none where all fits."""
    found: dict[str, Array] = {}
    for node in graph.nodes:
        first, sources = _links(node)[0], [found.get(name, np.zeros(1)) for name in node.inputs]
        if isinstance(first, ir.Add):
            found[node.output] = sum(sources, np.zeros(graph.tensors[node.output].channels))
            if node.output in whole and found[node.output].any():
                return {}, set(node.inputs)
        elif isinstance(first, JOINS):
            found[node.output] = _joined(first, graph, found)
        else:
            found[node.output] = _written(graph, node.output, wanted, whole, found)
    return found, set()


def _joined(node: ir.Node, graph: ir.Graph, found: Mapping[str, Array]) -> Array:
    parts = [np.broadcast_to(found.get(n, np.zeros(1)), (graph.tensors[n].channels,)) for n in node.inputs]
    offset = np.concatenate(parts)
    if isinstance(node, ir.Channels):
        return np.where(node.index < 0, 0.0, offset[np.maximum(node.index, 0)])
    return np.tile(offset, graph.tensors[node.output].channels // len(offset))


def _written(
    graph: ir.Graph, name: str, wanted: Mapping[str, Array], whole: set[str], found: Mapping[str, Array]
) -> Array:
    """Return the offset of a tensor that an epilogue writes: for itself, or for the sum that it completes."""
    none = np.zeros(graph.tensors[name].channels)
    if name in whole:
        return none
    readers = graph.consumers(name)
    add = readers[0] if len(readers) == 1 and isinstance(_links(readers[0])[0], ir.Add) else None
    other = next((found[source] for source in add.inputs if source in found), None) if add else None
    if other is None:
        return wanted.get(name, none)
    if add.output in whole:
        return none - other
    return _fraction(wanted[add.output] - other) if add.output in wanted else none
