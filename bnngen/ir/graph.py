# SPDX-License-Identifier: Apache-2.0
"""The graph: nodes in execution order over named tensors; its verifier and its printed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from bnngen.errors import ModelError
from bnngen.ir.epilogues import Affine, Piecewise, Steps, Threshold
from bnngen.ir.meta import ModelMeta
from bnngen.ir.ops import Node, Window
from bnngen.ir.tensor import FLOAT, Tensor


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order, their tensors, one image in, one score vector out."""

    nodes: tuple[Node, ...]
    tensors: dict[str, Tensor]
    input: str
    output: str
    meta: ModelMeta

    def producer(self, tensor: str) -> Node | None:
        """Return the node that writes `tensor`; None for the graph's input."""
        return next((node for node in self.nodes if node.output == tensor), None)

    def consumers(self, tensor: str) -> list[Node]:
        """Return the nodes that read `tensor`, in execution order."""
        return [node for node in self.nodes if tensor in node.inputs]

    def of_type(self, *kinds: type[Node]) -> Iterator[Node]:
        """Yield the nodes of the given kinds in execution order."""
        return (node for node in self.nodes if isinstance(node, kinds))


def verify(graph: Graph) -> None:
    """Raise ModelError unless every tensor is written once, before it is read, and has a known type."""
    written = {graph.input}
    for node in graph.nodes:
        for name in node.inputs:
            if name not in written:
                raise ModelError(f"tensor {name} is read before it is written", where=f"layer {node.name}")
        if node.output in written:
            raise ModelError(f"tensor {node.output} is written twice", where=f"layer {node.name}")
        written.add(node.output)
    missing = written - set(graph.tensors)
    if missing or graph.output not in written:
        raise ModelError(f"tensors without a description: {sorted(missing) or graph.output}")


def is_integer(graph: Graph) -> bool:
    """True when no float tensor is left."""
    return all(tensor.dtype != FLOAT for tensor in graph.tensors.values())


def to_text(graph: Graph) -> str:
    """Print the graph one node a line, for people and for tests that compare text."""
    lines = [f"graph {graph.meta.name}({_tensor_text(graph.tensors[graph.input])})"]
    for node in graph.nodes:
        extra = [f"{f.name}={_value_text(getattr(node, f.name))}" for f in fields(node)[3:]]
        call = f"{type(node).__name__}({', '.join(node.inputs)})"
        text = " ".join(part for part in extra if not part.endswith("=None"))
        lines.append(f"  {_tensor_text(graph.tensors[node.output])} = {call} {text}".rstrip())
    return "\n".join([*lines, f"  return {graph.output}", ""])


def _tensor_text(tensor: Tensor) -> str:
    return f"{tensor.name}: {tensor.dtype}[{','.join(map(str, tensor.shape))}]"


def _value_text(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"<{value.dtype}{list(value.shape)}>"
    if isinstance(value, Window):
        return f"{value.kernel}/{value.stride} pads {value.pads} dilation {value.dilation}"
    if isinstance(value, Affine):
        return f"Affine(>>{value.shift} [{value.lo},{value.hi}])"
    if isinstance(value, Threshold | Piecewise | Steps):
        return type(value).__name__
    return str(value)
