# SPDX-License-Identifier: Apache-2.0
"""Where a network can be cut in two: the tensors that everything behind them depends on alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, numpy_helper

from bnngen.errors import ModelError
from bnngen.export.builder import GraphBuilder
from bnngen.export.config import FEATURES, NO_CUT, TAIL_CUT
from bnngen.frontend import spelling


def separators(nodes: Sequence[NodeProto], constants: Iterable[str]) -> set[str]:
    """Return the tensors through which every path from the image to the scores passes.

    Walk the nodes in execution order. Behind the node that writes t, let the live tensors be those that were
    written and are still to be read. If t alone is live, all that follows is computed from t. If
    another tensor x is live, x was written before t, so t is not on the way to x, and is read after t, so
    t is not on the way from x: a path by x avoids t.
    """
    known = set(constants)
    last_read = {name: i for i, node in enumerate(nodes) for name in node.input if name not in known}
    live = {spelling.INPUT}
    found = set()
    for i, node in enumerate(nodes):
        live = {name for name in (*live, node.output[0]) if last_read.get(name, -1) > i}
        if live == {node.output[0]}:
            found.add(node.output[0])
    return found


@dataclass(frozen=True)
class Cuttable:
    """What a cut is chosen from.

    layers: layer name -> tensor. real: tensors that are real-valued. possible: the layers at whose outputs a
    cut can be, in order. features: real-valued input of the final Dense layer, None without one. joins: in order, the
    tensors in front of the features that separate the network and have several readers: where residual blocks begin.
    """

    layers: dict[str, str]
    real: set[str]
    possible: list[str]
    features: str | None
    joins: tuple[str, ...] = ()


def sign_thresholds(builder: GraphBuilder, cut: str, channels: int) -> np.ndarray | None:
    """Return the value of each channel at which a binary convolution behind the cut turns its sign, float64 [channels];
    None where none reads the cut, directly or behind a learned shift.

    A latent whose bits are these signs gives that convolution what the whole tensor gives it.
    """
    constants = {tensor.name: tensor for tensor in builder.initializers}
    signs = {node.input[0] for node in builder.nodes if node.op_type == "Sign" and node.domain == spelling.DOMAIN}
    if cut in signs:
        return np.zeros(channels)
    for node in builder.nodes:
        added = [name for name in node.input if name in constants]
        if node.op_type == "Add" and cut in node.input and added and node.output[0] in signs:
            return np.broadcast_to(-numpy_helper.to_array(constants[added[0]]).astype(np.float64).ravel(), (channels,))
    return None


def choose_cut(cut: str, graph: Cuttable) -> str | None:
    """Return the tensor of the cut that the user asked for; None for "none". Raises ModelError."""
    if cut == NO_CUT:
        return None
    if graph.features is None:
        raise ModelError(
            "the model does not end in a Dense layer on real-valued features",
            why="the learned head takes that layer's place",
            fix=f"end the model in Dense(classes), or export for inference alone: --cut {NO_CUT}",
        )
    if cut == FEATURES:
        return graph.features
    if cut in graph.possible:
        return graph.layers[cut]
    if cut.startswith(TAIL_CUT):
        return _before_blocks(cut, graph)
    raise ModelError(
        f"the model cannot be cut at {cut}",
        where=f"layer {cut}" if cut in graph.layers else "--cut",
        why=_why_not(cut, graph),
        fix=f"cut at one of: {', '.join([FEATURES, *graph.possible])}; or not at all: {NO_CUT}",
    )


def _before_blocks(cut: str, graph: Cuttable) -> str:
    """Return the input of the last so many residual blocks. Raises ModelError where there are not so many."""
    count, joins = cut.removeprefix(TAIL_CUT), graph.joins
    if count.isdecimal() and 1 <= int(count) <= len(joins):
        return joins[-int(count)]
    if joins:
        why, fix = f"{len(joins)} residual blocks lie in front of the features", f"tail:1 to tail:{len(joins)}"
    else:
        why, fix = "no residual block lies in front of the features: nothing joins behind a branch", FEATURES
    raise ModelError(f"the model cannot be cut at {cut}", where="--cut", why=why, fix=f"cut at {fix}")


def _why_not(cut: str, graph: Cuttable) -> str:
    if cut not in graph.layers:
        return (
            "no exported layer has that name; a nested model is taken apart, and the layers inside keep their names, "
            "or where one is there twice are called MODEL/LAYER"
        )
    if graph.layers[cut] == spelling.OUTPUT:
        return "behind the scores nothing is left to learn"
    if graph.layers[cut] not in graph.real:
        return "its output is binary already; a cut takes a real-valued tensor and makes bits of it"
    return "it lies inside a block: a replayed latent must carry all that the rest of the network reads"
