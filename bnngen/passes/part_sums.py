# SPDX-License-Identifier: Apache-2.0
"""Part a small tensor from the much larger sum that it enters, so that each has a scale of its own.

Tensors that an addition joins share scales, and the widest decides. In a residual chain that grows, the first
tensors then have a few steps only; that is right for the addition, whose sum is rounded to those steps
anyway, and wrong for other readers, such as the batch norm of the next block. At 8 bits, where a tensor has
other readers and the sum's range is WIDER times its own, a copy enters the sum, on the sum's scale
(docs/numerics.md, "Scale").
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from bnngen import ir
from bnngen.passes.copies import with_copy
from bnngen.passes.fixed import fixed_tensors
from bnngen.passes.groups import find_groups
from bnngen.passes.scales import MOVES, channel_reach, image_of

WIDER = 8  # three of the eight bits; a copy costs a pass and its memory


class HasBits(Protocol):
    """The one option this pass reads."""

    activation_bits: int


def part_sums(graph: ir.Graph, options: HasBits) -> ir.Graph:
    """Return the graph with copies in front of additions that would cost a tensor two bits or more."""
    if options.activation_bits == 16:
        return graph
    while (found := _last_small_operand(graph)) is not None:
        graph = with_copy(graph, *found)
    return graph


def _last_small_operand(graph: ir.Graph) -> tuple[str, str] | None:
    """Return (tensor, output of the addition) of the last operand that is to be parted; None where there is none.

    From the end, since what lies before a parted sum then forms a group of its own, with a smaller range.
    """
    fixed = fixed_tensors(graph, image_of(graph))
    sums = [n for n in graph.of_type(ir.Chain) if isinstance(n.links[0], ir.Add) and n.output not in fixed]
    if not sums:
        return None
    apart = {graph.output, *fixed}
    names = [n for n, tensor in graph.tensors.items() if tensor.dtype == ir.FLOAT and n not in apart]
    groups = find_groups(graph, names, ())
    shared, moved = np.zeros(len(groups.label)), {node.output for node in graph.nodes if isinstance(node, MOVES)}
    for name in set(names) - moved:
        np.maximum.at(shared, groups.label[groups.slots[name]], channel_reach(graph, name, 8))
    for node in reversed(sums):
        for name in node.inputs:
            if name in fixed or all(reader is node or _is_sign(reader) for reader in graph.consumers(name)):
                continue
            own, sum_of = channel_reach(graph, name, 8), shared[groups.label[groups.slots[name]]]
            if np.median(sum_of) >= WIDER * np.median(own) > 0:
                return name, node.output
    return None


def _is_sign(node: ir.Node) -> bool:
    """True for a bare sign: its threshold lies between two integers, whatever their scale (passes/offsets.py)."""
    return isinstance(node, ir.Chain) and isinstance(node.links[0], ir.Sign)
