# SPDX-License-Identifier: Apache-2.0
"""Where a network can be cut in two: the tensors that everything behind them depends on alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnx import NodeProto

from bnngen.errors import ModelError
from bnngen.export.config import FEATURES, NO_CUT
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


def choose_cut(cut: str, layers: dict[str, str], features: str | None, possible: list[str]) -> str | None:
    """Return the tensor of the cut; None for the cut "none".

    cut: what the user asked for. layers: layer name -> tensor. features: input of the final Dense layer.
    possible: names of layers at whose outputs a cut can be, in order. Raises ModelError.
    """
    if cut == NO_CUT:
        return None
    choices = f"cut at one of: {', '.join([FEATURES, *possible])}; or at nothing: {NO_CUT}"
    if features is None:
        raise ModelError(
            "the model does not end in a Dense layer on real-valued features",
            why="the learned head takes that layer's place",
            fix=f"end the model in Dense(classes), or export for inference alone: --cut {NO_CUT}",
        )
    if cut == FEATURES:
        return features
    if cut not in layers:
        raise ModelError(
            f"there is no layer {cut} to cut at",
            why="its name is not one of the exported layers",
            fix=choices,
        )
    if cut not in possible:
        raise ModelError(
            f"cut inside a block, or at a binary tensor: {cut}",
            where=f"layer {cut}",
            why="a replayed latent is all that the rest of the network sees, so every path must pass "
            "through the cut; its values are real ones, which a threshold makes bits",
            fix=choices,
        )
    return layers[cut]
