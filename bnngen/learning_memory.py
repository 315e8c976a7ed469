# SPDX-License-Identifier: Apache-2.0
"""What learning takes of a device's memory: every buffer, and what fits where as more blocks are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from bnngen import ir
from bnngen.analysis import MemoryUse, memory_use
from bnngen.lower.tail_spec import assume_cut, find_tail
from bnngen.lower.tail_view import PREFIX
from bnngen.pipeline import BuildOptions, Compiled, compile_graph
from bnngen.plan import PERSISTENT, Placed
from bnngen.targets import Target

Progress = Callable[[str, int, int], None]

GROUPS = (  # group, the names of its buffers (or, for the tail, what stands behind the prefix)
    ("tail: weights that answer", ("committed_latents", "committed_signs", "committed_vectors")),
    ("tail: their copy in training", ("training_latents", "training_signs", "training_vectors")),
    ("tail: gradients of a minibatch", ("sums", "vector_sums")),
    ("tail: bits kept for the way back", ("bits", "masks", "alive")),
    (
        "tail: maps and rows of one sample",
        (
            "stream",
            "features",
            "gradient",
            "inner",
            "wide",
            "row",
            "lane",
            "total",
            "dx",
        ),
    ),
    ("replay memory", ("replay_labels", "replay_latents", "mix_ones", "mix_counts", "seen")),
    ("new samples", ("buffer_labels", "buffer_latents", "order")),
    ("latent of one sample", ("latent",)),
)
HEAD = "head"


@dataclass(frozen=True)
class LearningItem:
    """One buffer. kept: its contents last between calls; otherwise it may share its bytes with activations."""

    group: str
    name: str
    bytes: int
    kept: bool


def learning_items(compiled: Compiled) -> list[LearningItem]:
    """Return every buffer of learning, group by group, the largest of each group first; empty without a cut."""
    items = [_item(b) for b in compiled.plan.buffers if b.name.startswith("learn/")]
    order = [group for group, _ in GROUPS] + [HEAD]
    return sorted(items, key=lambda item: (order.index(item.group), -item.bytes, item.name))


def _item(buffer: Placed) -> LearningItem:
    name = buffer.name.removeprefix("learn/")
    return LearningItem(_group(name), name, buffer.bytes, buffer.kind == PERSISTENT)


def _group(name: str) -> str:
    of_tail = name.startswith(PREFIX)
    for group, names in GROUPS:
        if group.startswith("tail:") == of_tail and name.removeprefix(PREFIX) in names:
            return group
    return HEAD


def shared_bytes(compiled: Compiled) -> int:
    """Return how many bytes of the arena several buffers share: the sum of all buffers, less the arena."""
    return sum(buffer.bytes for buffer in compiled.plan.buffers) - compiled.plan.arena_bytes


@dataclass(frozen=True)
class Fit:
    """One model on one target, with so many trained blocks. memory: before any C is compiled."""

    target: str
    tail: int
    memory: MemoryUse


def what_fits(real: ir.Graph, targets: Sequence[Target], options: BuildOptions, progress: Progress) -> list[Fit]:
    """Return what an imported model takes on each target with no, one, ... and all blocks trained that can be.

    The cut is assumed in front of those blocks, whatever the file's own is; a frozen network's is at the features.
    """
    return list(_fits(real, targets, options, progress))


def _fits(real: ir.Graph, targets: Sequence[Target], options: BuildOptions, progress: Progress) -> Iterator[Fit]:
    most, done = len(find_tail(real).blocks), 0
    for tail in range(most + 1):
        cut = assume_cut(real, tail)
        chosen = replace(options, learn=replace(options.learn, tail=tail))
        for target in targets:
            yield Fit(target.name, tail, memory_use(compile_graph(cut, target, chosen)))
            done += 1
            progress("what fits", done, (most + 1) * len(targets))
