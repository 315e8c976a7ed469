# SPDX-License-Identifier: Apache-2.0
"""Program: a list of kernel calls in segments, with packed constants. What the planner and the emitter read.

Nothing here knows where a buffer lies (plan.py) or how C is laid out (emit/).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np

from bnngen import ir
from bnngen.lower.shapes import Shape, words
from bnngen.lower.tail import TailSpec

INFERENCE = ("front", "tail", "scores")
SEGMENTS = (*INFERENCE, "pack", "unpack")


@dataclass(frozen=True, eq=False)
class Const:
    """A const array in flash. `values` has the kernel's own order; its dtype gives the C type."""

    name: str
    values: np.ndarray


@dataclass(frozen=True)
class AffineConst:
    """A `bnn_affine` in flash: the names of its arrays and its scalars."""

    name: str
    mult: str
    bias: str
    arithmetic: int
    shift: int
    lo: int
    hi: int
    acc_lo: int
    acc_hi: int


@dataclass(frozen=True)
class Value:
    """A tensor in memory. `buffer` is shared by tensors that are the same bytes at different times."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    buffer: str

    @property
    def bytes(self) -> int:
        return value_bytes(self.dtype, self.shape)


@dataclass(frozen=True)
class Arg:
    """One argument of a call.

    kind: "tensor" or "scratch" (arena), "const", "affine", "int", "null", or a pointer that the caller passes:
    "image", "scores", "latent". name: of the tensor, scratch buffer or constant.
    """

    kind: str
    name: str = ""
    value: int = 0


@dataclass(frozen=True)
class KernelCall:
    """One step. `reads` and `write` are tensor names, or "image", "scores", "latent"; `tensor` is the output's
    name in the graph."""

    layer: str
    tensor: str
    kernel: str
    variant: str
    shape: Shape
    args: tuple[Arg, ...]
    reads: tuple[str, ...]
    write: str
    scratch_bytes: int = 0
    in_place: bool = False

    @property
    def scratch(self) -> str | None:
        """Name of the call's scratch buffer, if it has one."""
        return f"{self.layer}/scratch" if self.scratch_bytes else None


@dataclass(frozen=True)
class Program:
    """Kernel calls by segment, their constants, and the tensors with a name outside.

    cut: tensor between front and tail, None without latent replay. features: what the heads read.
    model_hash: 32 hexadecimal digits over the graph that is computed; equal on every target.
    """

    name: str
    model_hash: str
    classes: tuple[str, ...]
    trained_classes: tuple[int, ...]
    image: tuple[int, ...]
    segments: dict[str, tuple[KernelCall, ...]]
    values: dict[str, Value]
    consts: tuple[Const, ...]
    affines: tuple[AffineConst, ...]
    cut: str | None
    features: str
    capacity: int

    def inference(self) -> tuple[KernelCall, ...]:
        """Return the calls of `infer` in order; a call's place is its step number."""
        return tuple(call for segment in INFERENCE for call in self.segments[segment])

    def calls(self) -> Iterator[KernelCall]:
        """Yield the calls of all segments."""
        for segment in SEGMENTS:
            yield from self.segments[segment]

    @property
    def is_float(self) -> bool:
        """True for a float32 build, the reference; its tensors are real or binary, never integers."""
        return self.values[self.features].dtype == ir.FLOAT

    @property
    def latent_words(self) -> int:
        """32-bit words of one packed latent; 0 without a cut."""
        if self.cut is None:
            return 0
        shape = self.values[self.cut].shape
        return int(np.prod(shape[:-1], dtype=np.int64)) * words(shape[-1])

    @property
    def const_bytes(self) -> int:
        """Bytes of all constant arrays."""
        return sum(const.values.nbytes for const in self.consts)

    def to_text(self) -> str:
        """One line a call, for people and for tests."""
        lines = [f"program {self.name} {self.model_hash}"]
        for segment in SEGMENTS:
            lines.append(f"{segment}:")
            for call in self.segments[segment]:
                out = self.values.get(call.write)
                kind = f"{out.dtype}[{','.join(map(str, out.shape))}] in {out.buffer}" if out else ""
                reads = ", ".join(call.reads)
                lines.append(f"  {call.write}: {kind} = {call.kernel}_{call.variant}({reads})".rstrip())
        return "\n".join([*lines, ""])


def value_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Return the bytes that a tensor takes in memory, packed if it is binary."""
    if dtype == ir.BITS:
        return int(np.prod(shape[:-1], dtype=np.int64)) * words(shape[-1]) * 4
    size = {ir.U8: 1, ir.S8: 1, ir.S16: 2, ir.S32: 4, ir.FLOAT: 4}[dtype]
    return int(np.prod(shape, dtype=np.int64)) * size


def graph_hash(graph: ir.Graph) -> str:
    """Return 32 hexadecimal digits over everything that decides what a graph computes."""
    digest = hashlib.sha256(ir.to_text(graph).encode())
    for node in graph.nodes:
        _hash_fields(digest, node)
    digest.update(repr((graph.meta.classes, graph.meta.trained_classes, graph.meta.latent, graph.meta.head)).encode())
    return digest.hexdigest()[:32]


def tail_hash(model_hash: str, spec: TailSpec) -> str:
    """Return the hash of a model of which a tail is trained: learned state fits the weights that it started from."""
    digest = hashlib.sha256(model_hash.encode())
    for block in spec.blocks:
        _hash_fields(digest, replace(block, after=None))
        if block.after is not None:
            _hash_fields(digest, block.after)
    return digest.hexdigest()[:32]


def _hash_fields(digest: hashlib._Hash, item: object) -> None:
    for f in fields(item):  # type: ignore[arg-type]
        if not f.metadata.get("computes", True):
            continue
        value = getattr(item, f.name)
        if isinstance(value, np.ndarray):
            array = np.ascontiguousarray(value)
            digest.update(f"{f.name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
        elif isinstance(value, ir.Epilogue):
            _hash_fields(digest, value)
        else:
            digest.update(f"{f.name} {value!r};".encode())
