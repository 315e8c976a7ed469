# SPDX-License-Identifier: Apache-2.0
"""What a network costs, layer by layer: shapes, precision, multiplications, bytes of weights.

Computed from the graph that will run: the integer graph, or the float graph of a float32 build. Bytes of weights are
those of the packed form: 32 channels to a word, thresholds and multipliers included.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from bnngen import ir
from bnngen.pipeline import Compiled, const_needed, ram_needed

WORD_BITS, WORD_BYTES = 32, 4


@dataclass(frozen=True)
class LayerCost:
    """One layer. macs: multiply-accumulates for one image; precision: inputs x weights -> output."""

    name: str
    op: str
    shape: tuple[int, ...]
    precision: str
    binary_macs: int
    integer_macs: int
    weight_bytes: int
    float_macs: int = 0


@dataclass(frozen=True)
class MemoryUse:
    """Bytes a compiled model asks for, and what the target allows. Code size is known only after a build."""

    arena_bytes: int
    inference_peak_bytes: int
    ram_bytes: int
    ram_budget_bytes: int
    const_bytes: int
    flash_budget_bytes: int

    @property
    def excess(self) -> dict[str, int]:
        """Bytes too many, by the memory that is exceeded."""
        over = {"RAM": self.ram_bytes - self.ram_budget_bytes, "flash": self.const_bytes - self.flash_budget_bytes}
        return {kind: count for kind, count in over.items() if count > 0}

    @property
    def fits(self) -> bool:
        """True when neither budget is exceeded."""
        return not self.excess


def memory_use(compiled: Compiled) -> MemoryUse:
    """Return what the plan says, before any C is written."""
    plan, budget = compiled.plan, compiled.target.budget
    return MemoryUse(
        plan.arena_bytes,
        plan.inference_peak_bytes,
        ram_needed(compiled),
        budget.ram_bytes,
        const_needed(compiled),
        budget.flash_bytes,
    )


def layer_costs(graph: ir.Graph) -> list[LayerCost]:
    """Return the cost of every node of a graph, in execution order."""
    return [_cost(node, graph) for node in graph.nodes]


def _cost(node: ir.Node, graph: ir.Graph) -> LayerCost:
    out, source = graph.tensors[node.output], graph.tensors[node.inputs[0]]
    macs, binary = _macs(node, out), isinstance(node, ir.BinaryConv2D)
    real = out.dtype == ir.FLOAT
    weights = (" x bits" if binary else " x f32" if real else " x s8") if macs else ""
    return LayerCost(
        node.name,
        type(node).__name__,
        out.shape,
        f"{source.dtype}{weights} -> {out.dtype}",
        macs if binary else 0,
        0 if binary or real else macs,
        _real_bytes(node) if ir.FLOAT in (source.dtype, out.dtype) else _weight_bytes(node, out),
        0 if binary or not real else macs,
    )


def _macs(node: ir.Node, out: ir.Tensor) -> int:
    if isinstance(node, (ir.Conv2D, ir.BinaryConv2D)):
        return out.size * int(np.prod(node.weights.shape[:3]))
    return node.weights.size if isinstance(node, ir.Dense) else 0


def _weight_bytes(node: ir.Node, out: ir.Tensor) -> int:
    total = 0
    if isinstance(node, ir.BinaryConv2D):
        total += _packed_bytes(node.weights)
    elif isinstance(node, (ir.Conv2D, ir.Dense)):
        total += node.weights.size
    if isinstance(node, ir.Dense) and node.bias is not None:
        total += 4 * node.bias.size
    if isinstance(node, ir.Unary) and node.table is not None:
        total += node.table.size * (1 if out.dtype == ir.S8 else 2)
    if isinstance(node, ir.Channels):
        total += 4 * node.index.size
    if isinstance(node, ir.Encode):
        total += 2 * (node.source.size + node.value.size)
    return total + _rule_bytes(getattr(node, "epilogue", None))


def _real_bytes(node: ir.Node) -> int:
    """Constants of a layer of a float32 build, the tables of its kernel."""
    if isinstance(node, ir.BinaryConv2D):
        scales = 0 if node.kernel_scale is None else 4 * node.weights.shape[-1]
        return _packed_bytes(node.weights) + scales
    if isinstance(node, ir.BatchNorm):
        return 3 * 4 * node.gamma.size
    if isinstance(node, ir.Levels):
        return 4 * (2 * len(node.cuts) + 1)
    if isinstance(node, ir.Clip):
        return 2 * 4
    arrays = (getattr(node, field.name) for field in fields(node))
    return sum(4 * array.size for array in arrays if isinstance(array, np.ndarray))


def _packed_bytes(weights: np.ndarray) -> int:
    k_h, k_w, c_in, c_out = weights.shape
    return k_h * k_w * -(-c_in // WORD_BITS) * WORD_BYTES * c_out


def _rule_bytes(rule: ir.Epilogue | None) -> int:
    if isinstance(rule, ir.Affine):
        return (4 + 8) * rule.mult.size
    if isinstance(rule, ir.Threshold):
        return 4 * rule.level.size
    if isinstance(rule, ir.Piecewise):
        return 4 * rule.knot.size + _rule_bytes(rule.below) + _rule_bytes(rule.above)
    if isinstance(rule, ir.Steps):
        return 4 * rule.level.size + rule.down.size
    return 0
