# SPDX-License-Identifier: Apache-2.0
"""State of one import: which Graph tensor stands behind an ONNX tensor, and in which layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.frontend.proto import REEXPORT, Call, damaged, read_array

# Layouts of an ONNX tensor. POINT is [N, C, 1, 1] that is the vector [C] in the Graph. POOLED is such a one behind a
# GlobalAveragePool that nothing has read yet: a Flatten gives the Graph's vector its name.
NCHW, NHWC, VECTOR, POINT, POOLED = "NCHW", "NHWC", "vector", "point", "pooled"
ELEMENTWISE = (NCHW, VECTOR, POINT)

MAX_ELEMENTS = 1 << 28  # of one tensor: a gigabyte of float32, more than any board's activations


@dataclass(frozen=True)
class Value:
    """An ONNX tensor: which Graph tensor it is, and its layout. pool: the pooling node behind POOLED."""

    tensor: str
    layout: str
    pool: str = ""


@dataclass
class Importer:
    """Collects nodes and tensors.

    constants: the file's initializers. uses: how often each ONNX tensor is read; the metadata counts too,
    so a tensor with one use may disappear into its reader. scaling: scale and offset of the image's pixels.
    """

    constants: Mapping[str, TensorProto]
    uses: Counter[str]
    scaling: tuple[float, float] = (1.0, 0.0)
    values: dict[str, Value] = field(default_factory=dict)
    tensors: dict[str, ir.Tensor] = field(default_factory=dict)
    nodes: list[ir.Node] = field(default_factory=list)

    def define(self, name: str, tensor: ir.Tensor, layout: str) -> None:
        """Enter the Graph tensor that the ONNX tensor `name` is."""
        self.tensors[tensor.name] = tensor
        self.alias(name, Value(tensor.name, layout))

    def alias(self, name: str, value: Value) -> None:
        """Let the ONNX tensor `name` be `value`: a layout move writes no Graph node."""
        if not name or name in self.values or name in self.constants:
            raise ModelError(f"tensor {name or '(without a name)'} is written twice", where="graph", fix=REEXPORT)
        self.values[name] = value

    def add(self, node: ir.Node, shape: tuple[int, ...], layout: str, dtype: str = ir.FLOAT) -> None:
        """Append a node and enter its output."""
        shape = self.checked(shape, node.name)
        self.define(node.output, ir.Tensor(node.output, shape, dtype), layout)
        self.nodes.append(node)

    def replace_last(self, node: ir.Node, shape: tuple[int, ...], layout: str) -> None:
        """Put `node` in the place of the last one, whose output disappears."""
        last = self.nodes.pop()
        del self.tensors[last.output], self.values[last.output]
        self.add(node, shape, layout)

    def only_read(self, call: Call) -> ir.Node | None:
        """Return the last node when this one reads its output as input 0, and nothing else does."""
        name = call.inputs[0]
        alone = self.nodes and self.nodes[-1].output == name and self.uses[name] == 1
        return self.nodes[-1] if alone else None

    def checked(self, shape: tuple[int, ...], where: str) -> tuple[int, ...]:
        """Return the shape. Raises ModelError unless every size is positive and their product is bounded."""
        elements = 1
        for size in shape:
            elements *= size
        if min(shape) < 1 or elements > MAX_ELEMENTS:
            raise ModelError(f"a tensor of shape {list(shape)} cannot be", where=where, fix=REEXPORT)
        return shape

    def operand(
        self,
        call: Call,
        index: int,
        layouts: tuple[str, ...] = (NCHW,),
        dtypes: tuple[str, ...] = (ir.FLOAT, ir.BITS),
    ) -> tuple[Value, ir.Tensor]:
        """Return input `index` of the node, which must be computed and have one of the layouts and types."""
        name = call.inputs[index] if index < len(call.inputs) else ""
        if name not in self.values:
            raise ModelError(
                f"input {index} of the node, {name or '(none)'}, is not computed before it",
                where=call.where,
                fix=REEXPORT,
            )
        if self.values[name].layout == POOLED and POINT in layouts and POOLED not in layouts:
            self._pool(name)
        value = self.values[name]
        tensor = self.tensors[value.tensor]
        if value.layout not in layouts or tensor.dtype not in dtypes:
            raise ModelError(
                f"input {name} is a {tensor.dtype} tensor in layout {value.layout}",
                where=call.where,
                why=f"the operator takes {' or '.join(dtypes)} in layout {' or '.join(layouts)}",
                fix=REEXPORT,
            )
        return value, tensor

    def _pool(self, name: str) -> None:
        """Make the GlobalAveragePool a node whose output has the ONNX tensor's own name."""
        value = self.values.pop(name)
        channels = self.tensors[value.tensor].channels
        self.add(ir.GlobalAveragePool(value.pool, (value.tensor,), name), (channels,), POINT)

    def constant(self, call: Call, index: int, kind: type, shape: tuple[int | None, ...]) -> np.ndarray:
        """Return input `index`, a constant of that element type and shape (None is any size)."""
        name = call.inputs[index] if index < len(call.inputs) else ""
        if name not in self.constants:
            raise ModelError(
                f"input {index} of the node, {name or '(none)'}, is not a constant",
                where=call.where,
                why="weights and shapes are fixed",
                fix=REEXPORT,
            )
        array = read_array(self.constants[name])
        fits = len(array.shape) == len(shape) and all(w in (None, h) for h, w in zip(array.shape, shape, strict=True))
        if array.dtype != kind or not fits or array.size == 0:
            raise ModelError(
                f"constant {name} is {array.dtype} {list(array.shape)}",
                where=call.where,
                why=f"{np.dtype(kind)} {['any' if s is None else s for s in shape]} belongs here",
                fix=REEXPORT,
            )
        return array


def attributes(
    call: Call, defaults: Mapping[str, Any], fixed: Mapping[str, Any] | None = None, needed: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the node's attributes over their defaults; `needed` ones have none, their entry says the type.

    An attribute in `fixed` must have that value; one that is in neither, or of another type than its default
    (lists: integers, of the default's length if that is not 0), raises ModelError: ignoring it would change what the
    network computes.
    """
    values = dict(defaults)
    for name in needed:
        if name not in call.attributes:
            raise ModelError(f"attribute {name} is missing", where=call.where, why="it has no default", fix=REEXPORT)
    for name, value in call.attributes.items():
        if fixed is not None and name in fixed:
            if value != fixed[name]:
                raise ModelError(
                    f"attribute {name} = {value!r} is not supported",
                    where=call.where,
                    why=f"it must be {fixed[name]!r}",
                    fix=REEXPORT,
                )
        elif name not in defaults:
            raise ModelError(f"attribute {name} is not supported", where=call.where, fix=REEXPORT)
        elif not _is_like(value, defaults[name]):
            raise damaged(call.where, f"attribute {name}")
        else:
            values[name] = value
    return values


def _is_like(value: Any, default: Any) -> bool:
    if not isinstance(value, list) or not isinstance(default, list):
        return isinstance(value, type(default))
    return all(isinstance(v, int) for v in value) and len(default) in (0, len(value))


def window(call: Call, kernel: tuple[int, int], values: Mapping[str, Any]) -> ir.Window:
    """Return the sliding window of a node from its attributes strides, pads and dilations."""
    made = ir.Window(kernel, tuple(values["strides"]), tuple(values["pads"]), tuple(values.get("dilations", (1, 1))))
    if min(*kernel, *made.stride, *made.dilation) < 1 or min(made.pads) < 0:
        raise ModelError(
            f"a window of {kernel} with strides {made.stride}, pads {made.pads} and dilations "
            f"{made.dilation} cannot be",
            where=call.where,
            fix=REEXPORT,
        )
    return made
