# SPDX-License-Identifier: Apache-2.0
"""The middle of the translation: operations on maps whose layout is settled, and the list that patterns rewrite.

Every tensor of a `Net` is a map [H, W, C]; a vector is a map of one pixel. Kinds of operations, with what `args` has:

    conv          weights [O, I/g, kH, kW], bias [O] or None, window, group, fill (what is read outside the map)
    binary_conv   the same, with weights +1 and -1, bias None
    affine        mult, add: [C] each, or None: x * mult + add
    batch_norm    gamma, beta, mean, variance [C], epsilon
    sign          +1 where x >= 0, otherwise -1        onnx_sign   ONNX's Sign: 0 for 0
    clip          lo, hi                               round       ties to even
    quantize      steps (DoReFa)                       ternary     threshold
    heaviside     1 where x > 0, otherwise 0           compare     test ("ge", "gt", "le", "lt"), level [C]: 1 or 0
    prelu         slope [C]                            unary       op: the ONNX operator, attributes
    add, sub, mul, max, min     of two computed tensors
    max_pool, average_pool      window                 concat      channels one behind the other
    channels      index: of the input's channel, -1 for 0
    pad           pads (top, left, bottom, right), value
    flatten       [H, W, C] -> [1, 1, H * W * C]       softmax     at the end alone
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from onnx import NodeProto

from bnngen.errors import ModelError

Shape = tuple[int, int, int]
Pads = tuple[int, int, int, int]
MOVES = ("max_pool", "concat", "channels", "flatten", "pad")  # of bits they give bits


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window; pads are (top, left, bottom, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    def with_pads(self, pads: Iterable[int]) -> Window:
        """Return the window with these pads added to its own."""
        return replace(self, pads=tuple(int(a + b) for a, b in zip(self.pads, pads, strict=True)))


@dataclass(frozen=True, eq=False)
class Op:
    """One operation. node: the node of the foreign file that it comes from, for messages."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    output: str
    node: NodeProto
    args: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        return self.args[key]

    def become(self, kind: str, inputs: Iterable[str], **args: Any) -> Op:
        """Return an operation of another kind in this one's place: the same name and output."""
        return Op(kind, self.name, tuple(inputs), self.output, self.node, args)

    def changed(self, inputs: Iterable[str], **args: Any) -> Op:
        """Return the same kind of operation on other inputs, with some arguments changed."""
        return replace(self, inputs=tuple(inputs), args={**self.args, **args})


def node_error(node: NodeProto, message: str, expected: str = "", fix: str = "") -> ModelError:
    """Return an error that names a node of the foreign file, and the pattern that was looked for there."""
    name = node.name or (node.output[0] if node.output else "without a name")
    domain = f"{node.domain}." if node.domain not in ("", "ai.onnx") else ""
    return ModelError(
        message,
        where=f"node {name} ({domain}{node.op_type})",
        why=f"expected: {expected}" if expected else "",
        fix=fix or "export the Keras model itself where there is one, or report the file: docs/other-onnx.md lists "
        "what is recognised",
    )


class Net:
    """Operations in execution order over named maps. shapes: [H, W, C] of every tensor."""

    def __init__(self, shape: Shape) -> None:
        self.input = "image"
        self.output = ""
        self.ops: list[Op] = []
        self.shapes: dict[str, Shape] = {self.input: shape}
        self._writers: dict[str, Op] = {}
        self._bypassed: dict[str, str] = {}
        self._fresh = 0

    def append(self, op: Op, shape: Shape) -> str:
        """Append an operation; return its output."""
        self.ops.append(op)
        self._writers[op.output] = op
        self.shapes[op.output] = shape
        return op.output

    def temporary(self, tensor: str, shape: Shape) -> str:
        """Return a new name for a tensor between the operations that one operation becomes."""
        self._fresh += 1
        name = f"{tensor}#{self._fresh}"
        self.shapes[name] = shape
        return name

    def writer(self, tensor: str, kind: str = "") -> Op | None:
        """Return the operation that computes a tensor, None for the input, or when it is of another kind."""
        op = self._writers.get(tensor)
        return op if op is not None and kind in ("", op.kind) else None

    def channels(self, tensor: str) -> int:
        """Number of channels of a tensor."""
        return self.shapes[tensor][2]

    def readers(self, tensor: str) -> list[Op]:
        """Return the operations that read a tensor."""
        return [op for op in self.ops if tensor in op.inputs]

    def bypass(self, tensor: str, source: str) -> None:
        """Let every reader of a tensor read `source` instead."""
        self._bypassed[tensor] = source

    def is_binary(self, tensor: str) -> bool:
        """True for a tensor that holds +1 and -1 alone."""
        op = self.writer(tensor)
        while op is not None and op.kind in MOVES and len(op.inputs) == 1:
            if (op.kind == "channels" and (op["index"] < 0).any()) or op.kind == "pad":
                return False
            op = self.writer(op.inputs[0])
        if op is None:
            return False
        return op.kind == "sign" or (op.kind == "concat" and all(self.is_binary(name) for name in op.inputs))

    def rewrite(self, pattern: Callable[[Net, Op], list[Op] | None]) -> bool:
        """Offer every operation to a pattern once; replace it by what the pattern returns, if anything."""
        ops, hit = [], False
        for op in self.ops:
            if any(name in self._bypassed for name in op.inputs):
                op = op.changed(self._bypassed.get(name, name) for name in op.inputs)
                self._writers[op.output] = op
            new = pattern(self, op)
            hit = hit or new is not None
            for item in [op] if new is None else new:
                ops.append(item)
                self._writers[item.output] = item
        self.ops = ops
        return hit

    def drop_dead(self) -> None:
        """Remove operations whose results nothing reads."""
        live, kept = {self.output}, []
        for op in reversed(self.ops):
            if op.output in live:
                kept.append(op)
                live.update(op.inputs)
        self.ops = kept[::-1]


def same_for_all(values: np.ndarray | None) -> float | None:
    """Return the one value of an array, None where there is no array, or values differ."""
    if values is None or values.size == 0 or not (values == values.flat[0]).all():
        return None
    return float(values.flat[0])
