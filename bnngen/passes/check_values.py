# SPDX-License-Identifier: Apache-2.0
"""Refuse weights and parameters that no arithmetic can carry: NaN, infinity, a variance that is not positive."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.passes.curves import spread


def check_values(graph: ir.Graph, options: object) -> ir.Graph:
    """Return the graph as it is. Raises ModelError that names the layer."""
    for node in graph.nodes:
        for field in fields(node):
            value = getattr(node, field.name)
            if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ModelError(
                    f"{field.name} of this layer holds NaN or infinity",
                    where=f"layer {node.name}",
                    why="a number that is not finite has no integer, and its sign is not defined",
                    fix="train the model again, or load a checkpoint from before it diverged",
                )
        if isinstance(node, ir.Levels) and not (node.step > 0 and (np.diff(node.cuts) >= 0).all() and len(node.cuts)):
            raise ModelError(
                f"the quantizer's step is {node.step:g}, or its cuts do not ascend",
                where=f"layer {node.name}",
                why="codes count the cuts that are passed, in steps of positive size",
                fix="export the model again",
            )
        if isinstance(node, ir.BatchNorm) and not (spread(node) > 0).all():
            raise ModelError(
                "a batch norm has a variance that is not positive",
                where=f"layer {node.name}, channel {int(np.argmin(spread(node)))}",
                why="it divides by the square root of variance + epsilon",
                fix="train the model again with an epsilon above 0",
            )
    return graph
