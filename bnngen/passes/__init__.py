# SPDX-License-Identifier: Apache-2.0
"""From the graph that Keras means to the graph that the device computes: the passes, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bnngen import ir
from bnngen.errors import UsageError
from bnngen.passes.align_operands import align_operands
from bnngen.passes.binary_layers import binary_layers
from bnngen.passes.check_values import check_values
from bnngen.passes.drop_softmax import drop_softmax
from bnngen.passes.end_in_scores import end_in_scores
from bnngen.passes.fuse_chains import fuse_chains
from bnngen.passes.integerize import integerize
from bnngen.passes.part_sums import part_sums
from bnngen.passes.sign_before_pool import sign_before_pool
from bnngen.passes.unpack_bits import unpack_bits


@dataclass(frozen=True)
class Options:
    """What the user may choose. activation_bits: 8 or 16, the type of the real-valued stream."""

    activation_bits: int = 16

    def __post_init__(self) -> None:
        if self.activation_bits not in (8, 16):
            raise UsageError(
                f"--activation-bits {self.activation_bits} is not supported",
                why="the real-valued stream is int8 or int16 (docs/numerics.md, section 3)",
                fix="use --activation-bits 8 or 16",
            )


Pass = Callable[[ir.Graph, Options], ir.Graph]

PIPELINE: tuple[Pass, ...] = (
    check_values,  # NaN, infinity and variances of 0 are refused
    drop_softmax,  # the largest score wins with or without it
    binary_layers,  # bits times +-s is a binary convolution, dense layers too
    sign_before_pool,  # max pool -> sign decides on bits
    unpack_bits,  # real-valued layers read bits as +1 and -1
    end_in_scores,  # a last layer other than Dense gets a Scores node
    fuse_chains,  # conv -> relu -> batch norm -> sign becomes one step with one epilogue
    align_operands,  # the image, codes and bits take the scale of what they are added to
    part_sums,  # at 8 bits, a small tensor keeps its scale beside the large sum that it enters
    integerize,  # scales from the calibrated ranges; weights, thresholds and multipliers in integers
)


FLOAT_PIPELINE: tuple[Pass, ...] = (check_values, drop_softmax, end_in_scores)


def run_float_passes(graph: ir.Graph) -> ir.Graph:
    """Return the float graph that a float32 build computes: as imported, without a softmax, ending in a vector."""
    ir.verify(graph)
    for step in FLOAT_PIPELINE:
        graph = step(graph, Options())
        ir.verify(graph)
    return graph


def run_passes(graph: ir.Graph, options: Options | None = None) -> ir.Graph:
    """Return the integer graph; every stage on the way is verified."""
    options = options or Options()
    ir.verify(graph)
    for step in PIPELINE:
        graph = step(graph, options)
        ir.verify(graph)
    return graph
