# SPDX-License-Identifier: Apache-2.0
"""One table from Keras to the board: who agrees with whom, and exactly or not.

    Keras -> ONNX -> interpreter -> host C -> emulator or board

The first two are floating point: accuracy and the share of equal classes are compared. From the interpreter
on, every score of every image must be the same integer, and so must the checksum of every layer. The
histogram of the predicted classes stands beside it, so that a saturated model cannot pass for an exact one.
In a float32 build all stages are floating point, and the largest difference takes the place of equality.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from bnngen import interp, ir

Array = np.ndarray
Progress = Callable[[str, int, int], None]


class Device(Protocol):
    """What validation needs of a running target."""

    def infer(self, image: Array) -> Array:
        """Return int32 scores [classes] of one uint8 image [H, W, C]."""

    def trace(self, image: Array) -> tuple[list[tuple[int, int]], Array]:
        """Return (bytes, crc32) of every step's output, and the scores."""


@dataclass(frozen=True)
class Stage:
    """One link of the chain. scores: [N, classes]; integer: part of the bit-exact half."""

    name: str
    scores: Array
    integer: bool


@dataclass(frozen=True)
class Row:
    """A line of the table; `exact` is None where exactness is not claimed (floating point).

    largest: between two stages of floating point, the largest difference of a score from the stage before.
    """

    name: str
    images: int
    accuracy: float | None
    agreement: float | None
    exact: bool | None
    largest: float | None = None


@dataclass(frozen=True)
class Report:
    """rows: one per stage. histogram: predicted classes of the last stage. differences: first per target."""

    rows: list[Row]
    histogram: list[int]
    differences: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """True when everything that must be equal is equal."""
        return not self.differences and all(row.exact is not False for row in self.rows)


def interpreter_stage(graph: ir.Graph, images: Array, progress: Progress) -> Stage:
    """Run the integer graph in NumPy over uint8 images [N, H, W, C]."""
    parts = []
    for start in range(0, len(images), interp.BATCH):
        parts.append(interp.run(graph, images[start : start + interp.BATCH]))
        progress("interpreter", min(start + interp.BATCH, len(images)), len(images))
    return Stage("interpreter (NumPy)", np.concatenate(parts), True)


def float_stage(graph: ir.Graph, images: Array, progress: Progress) -> Stage:
    """Run the float graph in NumPy over uint8 images [N, H, W, C], scaled as the exporter does."""
    parts, meta = [], graph.meta
    for start in range(0, len(images), interp.BATCH):
        batch = images[start : start + interp.BATCH].astype(np.float64) * meta.input_scale + meta.input_offset
        parts.append(interp.run(graph, batch.astype(np.float32)))
        progress("float graph", min(start + interp.BATCH, len(images)), len(images))
    return Stage("float graph (NumPy)", np.concatenate(parts), False)


def real_scores(graph: ir.Graph, scores: Array, step: float) -> Array:
    """Return the int32 scores of a float32 build in the units of the float graph, its last softmax included."""
    real = scores * step
    last = graph.producer(graph.output)
    return interp.apply(last, [real], graph.tensors[graph.output]) if isinstance(last, ir.Softmax) else real


def device_stage(name: str, device: Device, images: Array, progress: Progress) -> Stage:
    """Run uint8 images through a target, pixels in, scores out."""
    scores = []
    for index, image in enumerate(images):
        scores.append(device.infer(image))
        progress(name, index + 1, len(images))
    return Stage(name, np.stack(scores), True)


def first_difference(graph: ir.Graph, device: Device, image: Array) -> str | None:
    """Compare every layer's checksum for one image; return a sentence on the first that differs."""
    values = interp.evaluate(graph, image[None])
    checksums, _ = device.trace(image)
    steps = [node for node in graph.nodes if not isinstance(node, ir.Flatten)]
    if len(checksums) != len(steps):
        return f"the target runs {len(checksums)} steps, the graph has {len(steps)}"
    for node, (size, crc) in zip(steps, checksums, strict=True):
        data = interp.to_bytes(values[node.output][0], graph.tensors[node.output].dtype)
        if (len(data), zlib.crc32(data)) != (size, crc):
            return (
                f"layer {node.name} is the first that differs ({len(data)} bytes expected, {size} received)"
            )
    return None


def compare(stages: Sequence[Stage], labels: Array | None) -> Report:
    """Hold every stage against the one before it; later stages may have seen fewer images."""
    rows: list[Row] = []
    for previous, stage in zip([None, *stages], stages, strict=False):
        count, chosen = len(stage.scores), stage.scores.argmax(axis=1)
        accuracy = None if labels is None else float((chosen == labels[:count]).mean())
        agreement = exact = largest = None
        if previous is not None:
            reference = previous.scores[:count]
            agreement = float((reference.argmax(axis=1) == chosen).mean())
            if stage.integer and previous.integer:
                exact = bool(np.array_equal(reference, stage.scores))
            elif not stage.integer and not previous.integer:
                largest = float(np.abs(np.float64(stage.scores) - reference).max())
        rows.append(Row(stage.name, count, accuracy, agreement, exact, largest))
    last = stages[-1].scores
    return Report(rows, np.bincount(last.argmax(axis=1), minlength=last.shape[1]).tolist())
