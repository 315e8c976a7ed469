# SPDX-License-Identifier: Apache-2.0
"""Which residual blocks of a network can be trained on a device, read backwards from the features.

Two forms of block, both with an identity shortcut and a binary 3x3 convolution that keeps the map's size:

    QuickNet           x + BN(relu(conv(sign(x))))
    Bi-Real, ReActNet  RPReLU(x + BN(conv(sign(x + shift)))), where shift and RPReLU may be missing

Behind the last one come at most a ReLU, and the global average that gives the features. Reading stops at the first
layer that is none of this; `TailStop` says which and why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError, UsageError
from bnngen.lower.tail import TailAfter, TailBlock, TailSpec
from bnngen.passes.latent import latent_ops

Array = np.ndarray
IDENTITY_WINDOW = ir.Window((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
FULL_STEP = 127  # of a latent weight of 1.0


class TailStop(Exception):
    """Why no further block was read: the layer, and what is wrong with it."""

    def __init__(self, layer: str, why: str) -> None:
        super().__init__(f"{layer}: {why}")
        self.layer, self.why = layer, why


@dataclass(frozen=True, eq=False)
class FoundBlock:
    """A block of the float graph. source: the tensor that it reads. stream: the tensors of its residual stream,
    without the source. has_latent: False where the file holds signs alone; then `block.latent` is +-127."""

    block: TailBlock
    source: str
    stream: tuple[str, ...]
    has_latent: bool


@dataclass(frozen=True, eq=False)
class FoundTail:
    """What stands in front of the features. blocks: in execution order, all that were recognised. relu: in front of
    the pool. end: the stream's tensors behind the last block. stop: why there are no more blocks."""

    blocks: tuple[FoundBlock, ...]
    relu: bool
    end: tuple[str, ...]
    features: str
    stop: TailStop


def find_tail(real: ir.Graph) -> FoundTail:
    """Return all residual blocks directly in front of the features of an imported graph; perhaps none."""
    head = real.meta.head
    if head is None:
        return FoundTail((), False, (), "", TailStop("scores", "the model has no learned head"))
    pool = real.producer(head.tensor)
    if not isinstance(pool, ir.GlobalAveragePool):
        stop = TailStop(_name(pool), "the features are no global average of a map")
        return FoundTail((), False, (), head.tensor, stop)
    last = pool.inputs[0]
    clip = _single(real, last)
    relu = isinstance(clip, ir.Clip) and _is_relu(clip)
    end = (clip.inputs[0], last) if relu else (last,)
    blocks: list[FoundBlock] = []
    tensor = end[0]
    while True:
        try:
            found = _block(real, tensor)
        except TailStop as stop:
            return FoundTail(tuple(blocks), relu, end, head.tensor, stop)
        blocks.insert(0, found)
        tensor = found.source


def tail_spec(real: ir.Graph, integer: ir.Graph, blocks: int) -> TailSpec:
    """Return the trainable tail of the last `blocks` residual blocks.

    real: the graph as imported, with its latent weights. integer: what the passes made of it; the cut tensor's
    type and levels are taken from there. Raises UsageError where the cut does not stand in front of those
    blocks, ModelError where the network has not so many that can be trained.
    """
    found = find_tail(real)
    _check_count(found, blocks)
    chosen = found.blocks[len(found.blocks) - blocks :]
    _check_cut(real, found, blocks, chosen[0].source)
    for block in chosen:
        _check_latent(block, blocks)
    latent = latent_ops(integer)
    assert latent is not None  # the float graph has a cut, and passes keep the metadata
    cut = integer.tensors[chosen[0].source]
    height, width, channels = cut.shape
    assert not cut.offsets.any()  # passes/offsets.py gives the tensor at the cut none
    low, high = (cut.scales * q for q in (latent.unpack.low, latent.unpack.high))
    names = [cut.name, *(name for block in chosen for name in block.stream), *found.end]
    return TailSpec(
        blocks=tuple(block.block for block in chosen),
        height=height,
        width=width,
        channels=channels,
        relu=found.relu,
        cut=cut.name,
        cut_dtype=cut.dtype,
        cut_scale=np.array(cut.scales),
        low=low,
        high=high,
        peak=max(float(real.meta.ranges[name].reach.max()) for name in names),
        features=found.features,
    )


def assume_cut(real: ir.Graph, blocks: int) -> ir.Graph:
    """Return the graph as if it were exported with its cut in front of the last `blocks` blocks; 0: at the features.

    For sizes alone: the levels of latents, and latent weights that the file has not, are made up.
    """
    found = find_tail(real)
    tensor = found.blocks[len(found.blocks) - blocks].source if blocks else found.features
    ones = (1.0,) * real.tensors[tensor].channels
    latent = ir.Latent(tensor, (0.0,) * len(ones), tuple(-one for one in ones), ones)
    nodes = tuple(
        replace(node, latent=node.weights * np.int8(FULL_STEP))
        if isinstance(node, ir.BinaryConv2D) and node.latent is None
        else node
        for node in real.nodes
    )
    return replace(real, nodes=nodes, meta=replace(real.meta, latent=latent))


# --------------------------------------------------------------------------------------- what is refused


def _check_count(found: FoundTail, blocks: int) -> None:
    most = len(found.blocks)
    if 1 <= blocks <= most:
        return
    stop = found.stop
    raise ModelError(
        f"{blocks} residual blocks cannot be trained, {most or 'none'} can",
        where=f"layer {stop.layer}",
        why=f"counted from the features, the first layer that a device cannot train is this one: {stop.why}",
        fix=f"export with --cut tail:{most} and build with --tail {most}" if most else "train the head alone: --tail 0",
    )


def _check_cut(real: ir.Graph, found: FoundTail, blocks: int, wanted: str) -> None:
    cut = real.meta.latent.tensor if real.meta.latent else None
    if cut == wanted:
        return
    sources = [block.source for block in found.blocks]
    fix = f"export again: bnngen export MODEL --cut tail:{blocks}"
    if cut in sources:
        fix += f"; or train what is behind this cut: --tail {len(sources) - sources.index(cut)}"
    raise UsageError(
        f"--tail {blocks} needs the cut in front of the last {blocks} blocks, at {wanted}",
        where="--tail",
        why=f"the model was exported with its cut at {cut}" if cut else "the model was exported without a cut",
        fix=fix,
    )


def _check_latent(block: FoundBlock, blocks: int) -> None:
    if block.has_latent:
        return
    raise ModelError(
        "the file holds the signs of the weights alone, not what training left behind them",
        where=f"layer {block.block.name}",
        why="a device changes latent weights in small steps; they are exported from Larq models, behind the cut",
        fix=f"export the Larq model again with this version: bnngen export MODEL --cut tail:{blocks}",
    )


# ------------------------------------------------------------------------------------ reading backwards


def _block(graph: ir.Graph, output: str) -> FoundBlock:
    """Return the block that ends at a tensor. Raises TailStop."""
    after, stream, added = _after(graph, output)
    add = graph.producer(added)
    if not isinstance(add, ir.Add):
        raise TailStop(_name(add), f"{_kind(add)} stands where a block would add its shortcut")
    reasons = []
    for branch, source in (add.inputs[::-1], add.inputs):  # Keras and the exporter write the shortcut first
        try:
            block, has_latent = _branch(graph, branch, source, after)
            return FoundBlock(block, source, (added, *stream), has_latent)
        except TailStop as stop:
            reasons.append(stop)
    raise reasons[0]


def _after(graph: ir.Graph, output: str) -> tuple[TailAfter | None, tuple[str, ...], str]:
    """Return what follows the addition, the tensors behind it in order, and the sum itself."""
    channels, tensor = graph.tensors[output].channels, output
    behind = before = np.zeros(channels)
    names: list[str] = []
    node = graph.producer(tensor)
    if isinstance(node, ir.BatchNorm) and isinstance(_single(graph, node.inputs[0]), ir.PRelu):
        behind = _shift(node, "behind the slopes")
        names.insert(0, tensor)
        tensor = node.inputs[0]
        node = graph.producer(tensor)
    if not isinstance(node, ir.PRelu):
        return None, (), tensor
    if node.positive is not None:
        raise TailStop(node.name, "a slope on the positive side cannot be trained")
    slope = node.negative.astype(np.float64)
    names.insert(0, tensor)
    tensor = node.inputs[0]
    node = _single(graph, tensor)
    if isinstance(node, ir.BatchNorm):
        before = _shift(node, "in front of the slopes")
        names.insert(0, tensor)
        tensor = node.inputs[0]
        node = _single(graph, tensor)
    if node is None:
        raise TailStop(graph.producer(tensor).name, "several layers read it in front of the slopes")
    return TailAfter(before, slope, behind), tuple(names), tensor


def _branch(graph: ir.Graph, branch: str, source: str, after: TailAfter | None) -> tuple[TailBlock, bool]:
    """Return the block whose addition adds `branch` to `source`, and whether its latent weights are known."""
    channels, tensor = graph.tensors[branch].channels, branch
    gain, bias = np.ones(channels), np.zeros(channels)
    node = _read_once(graph, tensor)
    while isinstance(node, ir.BatchNorm):
        a, b = affine(node)
        gain, bias = gain * a, gain * b + bias
        tensor = node.inputs[0]
        node = _read_once(graph, tensor)
    relu = isinstance(node, ir.Clip) and _is_relu(node)
    if relu:
        node = _read_once(graph, node.inputs[0])
    if not isinstance(node, ir.BinaryConv2D):
        raise TailStop(_name(node), f"{_kind(node)} stands where a block has its binary convolution")
    _check_conv(graph, node)
    shift = _signed(graph, node.inputs[0], source)
    unit = np.ones(channels) if node.kernel_scale is None else node.kernel_scale.astype(np.float64)
    if relu and (unit < 0).any():
        raise TailStop(node.name, "a negative kernel scale in front of a ReLU cannot be trained")
    latent = node.weights * np.int8(FULL_STEP) if node.latent is None else node.latent
    block = TailBlock(
        name=node.name,
        latent=np.ascontiguousarray(latent.transpose(3, 0, 1, 2)),
        pad=node.pad_value,
        relu=relu,
        scale=unit * gain,
        bias=bias,
        shift=shift,
        after=after,
    )
    return block, node.latent is not None


def _check_conv(graph: ir.Graph, conv: ir.BinaryConv2D) -> None:
    if conv.window != IDENTITY_WINDOW:
        raise TailStop(conv.name, "only 3x3 convolutions that keep the map's size, without stride, can be trained")
    channels = graph.tensors[conv.inputs[0]].channels
    if conv.groups != 1 or conv.weights.shape[-1] != channels:
        raise TailStop(conv.name, "only convolutions of all channels to as many can be trained")


def _signed(graph: ir.Graph, bits: str, source: str) -> Array | None:
    """Return the shift in front of the sign that makes `bits` of `source`; None without one."""
    sign = _read_once(graph, bits)
    if not isinstance(sign, ir.Sign):
        raise TailStop(_name(sign), f"{_kind(sign)} makes the bits of a block, not a sign")
    if sign.inputs[0] == source:
        return None
    node = _read_once(graph, sign.inputs[0])
    if not isinstance(node, ir.BatchNorm) or node.inputs[0] != source:
        raise TailStop(_name(node), "the convolution does not read what the shortcut carries, or not by a shift alone")
    return _shift(node, "in front of the sign")


def affine(norm: ir.BatchNorm) -> tuple[Array, Array]:
    """Return (gain, offset) of a batch norm as float64 [C]: y = gain * x + offset."""
    gamma, beta, mean, variance = (
        np.asarray(array, np.float64) for array in (norm.gamma, norm.beta, norm.mean, norm.variance)
    )
    gain = gamma / np.sqrt(variance + norm.epsilon)
    return gain, beta - gain * mean


def _shift(norm: ir.BatchNorm, place: str) -> Array:
    """Return what a batch norm adds, if it does nothing else."""
    gain, offset = affine(norm)
    if not (gain == 1).all():
        raise TailStop(norm.name, f"{place} only a shift can be trained, and this layer scales too")
    return offset


def _is_relu(clip: ir.Clip) -> bool:
    return clip.lo == 0 and clip.hi == float("inf")


def _single(graph: ir.Graph, tensor: str) -> ir.Node | None:
    """Return the producer of a tensor that one layer alone reads; None otherwise."""
    return graph.producer(tensor) if len(graph.consumers(tensor)) == 1 else None


def _read_once(graph: ir.Graph, tensor: str) -> ir.Node | None:
    """Return the producer of a tensor inside a block. Raises TailStop where a layer outside reads it too."""
    node = graph.producer(tensor)
    if node is not None and len(graph.consumers(tensor)) > 1:
        raise TailStop(node.name, f"{_kind(node)} stands where a branch of a block would be read by one layer alone")
    return node


def _name(node: ir.Node | None) -> str:
    return "image" if node is None else node.name


def _kind(node: ir.Node | None) -> str:
    return "the image" if node is None else type(node).__name__
