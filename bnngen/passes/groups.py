# SPDX-License-Identifier: Apache-2.0
"""Which channels of which tensors must share one scale, because an op that does not multiply joins them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bnngen import ir

Array = np.ndarray


@dataclass(frozen=True)
class Groups:
    """slots: tensor -> one index a channel. label: slot -> the slot that stands for its group."""

    slots: dict[str, Array]
    label: Array


def find_groups(graph: ir.Graph, names: Iterable[str], uniform: Iterable[str]) -> Groups:
    """Group the channels of the tensors `names`; all channels of a `uniform` one are in one group."""
    slots: dict[str, Array] = {}
    count = 0
    for name in names:
        slots[name] = np.arange(count, count + graph.tensors[name].channels)
        count += graph.tensors[name].channels
    edges = [_edge(slots[name][:1].repeat(len(slots[name])), slots[name]) for name in uniform]
    for node in graph.nodes:
        edges += _joined(node, slots)
    pairs = np.concatenate(edges, axis=1) if edges else np.zeros((2, 0), np.int64)
    return Groups(slots, _components(count, pairs))


def _joined(node: ir.Node, slots: dict[str, Array]) -> list[Array]:
    """Return pairs of slots that the node joins."""
    core = node.links[0] if isinstance(node, ir.Chain) else node
    out = slots.get(node.output)
    if out is None or not all(name in slots for name in node.inputs):
        return []
    sources = [slots[name] for name in node.inputs]
    if isinstance(core, ir.Add):
        return [_edge(source, out) for source in sources]
    if isinstance(core, ir.MaxPool | ir.Flatten):
        return [_edge(np.tile(sources[0], len(out) // len(sources[0])), out)]
    if isinstance(core, ir.Concat):
        return [_edge(np.concatenate(sources), out)]
    if isinstance(core, ir.Channels):
        real = core.index >= 0
        return [_edge(sources[0][core.index[real]], out[real])]
    return []


def _edge(a: Array, b: Array) -> Array:
    return np.stack([a, b])


def _components(count: int, pairs: Array) -> Array:
    """Label each slot with the smallest slot that it is connected to."""
    label = np.arange(count)
    a, b = pairs
    while True:
        least = np.minimum(label[a], label[b])
        new = label.copy()
        for ends in (a, b):
            np.minimum.at(new, ends, least)
            np.minimum.at(new, label[ends], least)  # the old representative follows
        while True:
            shorter = new[new]
            if (shorter == new).all():
                break
            new = shorter
        if (new == label).all():
            return label
        label = new
