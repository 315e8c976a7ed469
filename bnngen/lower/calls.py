# SPDX-License-Identifier: Apache-2.0
"""What every lowering needs: the state while a graph is lowered, and the step from a node to a kernel call."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.lower import bounds
from bnngen.lower.kernels import LIST
from bnngen.lower.names import c_name
from bnngen.lower.program import AffineConst, Arg, Const, KernelCall
from bnngen.lower.select import choose, kernel_of
from bnngen.lower.shapes import TYPE_CODE, WIDE, MapShape, Shape


@dataclass
class Lowering:
    """State while a graph is lowered. `alias` maps the output of a Flatten to the tensor whose bytes it is."""

    graph: ir.Graph
    features: frozenset[str]
    mode: str
    ranges: dict[str, bounds.Range]
    tensors: dict[str, ir.Tensor]
    alias: dict[str, str] = field(default_factory=dict)
    consts: list[Const] = field(default_factory=list)
    affines: list[AffineConst] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def root(self, tensor: str) -> str:
        """Return the tensor that owns the bytes of `tensor`."""
        return self.alias.get(tensor, tensor)

    def type_code(self, tensor: str) -> int:
        """Return the BNN_ type of a stream or packed tensor; raise ModelError for any other."""
        dtype = self.tensors[tensor].dtype
        if dtype not in TYPE_CODE:
            raise ModelError(f"tensor {tensor} has type {dtype}, which no kernel reads or writes")
        return TYPE_CODE[dtype]

    def arg(self, tensor: str) -> Arg:
        """Return the argument that points at a tensor."""
        return Arg(special, special) if (special := self.special(tensor)) else Arg("tensor", self.root(tensor))

    def special(self, tensor: str) -> str | None:
        """Name of the caller's pointer behind a tensor, if it is one."""
        known = {self.graph.input: "image", self.graph.output: "scores", "latent": "latent"}
        return known.get(tensor)

    def unique(self, layer: str, kind: str) -> str:
        """Return a C name that no other constant has."""
        base = f"{c_name(layer)}_{kind}"
        name, number = base, 2
        while name in self.names:
            name, number = f"{base}_{number}", number + 1
        self.names.add(name)
        return name

    def const(self, layer: str, kind: str, values: np.ndarray) -> Arg:
        """Keep an array under a C name of its own."""
        name = self.unique(layer, kind)
        self.consts.append(Const(name, np.ascontiguousarray(values)))
        return Arg("const", name)

    def affine(self, layer: str, lowered: bounds.LoweredAffine) -> Arg:
        """Keep an affine; returns its argument."""
        a = lowered.affine
        mult, bias = self.const(layer, "mult", a.mult), self.const(layer, "bias", a.bias)
        name = self.unique(layer, "affine")
        self.affines.append(
            AffineConst(name, mult.name, bias.name, lowered.arithmetic, a.shift, a.lo, a.hi, a.acc_lo, a.acc_hi)
        )
        return Arg("affine", name)


@dataclass(frozen=True, eq=False)
class Call:
    """A call before its variant is known: everything but weights, which a variant packs its own way."""

    node: ir.Node
    kernel: str
    shape: Shape
    weights: np.ndarray | None = None
    in_place: bool = False


def finish(ctx: Lowering, call: Call, args: list[Arg]) -> KernelCall:
    """Choose the variant, pack weights as it wants them, and append scratch where the kernel has it."""
    node, kernel = call.node, kernel_of(call.kernel)
    variant = choose(call.kernel, call.shape, ctx.features, ctx.mode)
    if call.weights is not None:
        assert variant.pack is not None
        args.insert(1, ctx.const(node.name, "w", variant.pack(call.weights)))
    scratch = variant.scratch(call.shape)
    if any(name == "scratch" for _, name in kernel.params):
        args.append(Arg("scratch", f"{node.name}/scratch") if scratch else Arg("null"))
    more = call.shape.inputs - 1 if LIST in kernel.params else 0
    assert len(args) == len(kernel.params) + more, (call.kernel, args)
    reads = tuple(ctx.special(name) or ctx.root(name) for name in node.inputs)
    write = ctx.special(node.output) or ctx.root(node.output)
    return KernelCall(
        node.name,
        node.output,
        call.kernel,
        variant.name,
        call.shape,
        tuple(args),
        reads,
        write,
        scratch,
        call.in_place,
    )


def map_dims(node: ir.Node, tensor: ir.Tensor) -> tuple[int, int, int]:
    """[H, W, C] of a map; a vector is one pixel."""
    if len(tensor.shape) == 3:
        height, width, channels = tensor.shape
        return height, width, channels
    if len(tensor.shape) == 1:
        return 1, 1, tensor.shape[0]
    raise ModelError(f"tensor {tensor.name} has {len(tensor.shape)} dimensions", where=f"layer {node.name}")


def map_shape(ctx: Lowering, node: ir.Node, in_type: int, arithmetic: int = WIDE) -> MapShape:
    """Return the shape of an operation that keeps the place of every element."""
    rows, width, channels = map_dims(node, ctx.tensors[node.output])
    return MapShape(rows, width, channels, in_type, ctx.type_code(node.output), arithmetic)
