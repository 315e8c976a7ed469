# SPDX-License-Identifier: Apache-2.0
"""The NumPy twin beside a device: the same calls, and the learned state compared after each
start, step and end; what `add` does to buffer and generator shows at the next of them.

The twin gets its latents from the interpreter, not from the device, so pixels, backbone, packing, replay
memory and head are all inside the comparison.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Protocol

import numpy as np

from bnngen import interp, ir
from bnngen.continual.twin import MORE, Twin
from bnngen.continual.twin_tail import TwinTail
from bnngen.errors import BnngenError
from bnngen.lower.learning import LearnConfig
from bnngen.lower.tail import TailSpec
from bnngen.lower.tail_constants import TailConfig
from bnngen.passes.latent import latent_ops

Array = np.ndarray


TailOptions = tuple[TailSpec, TailConfig]  # what a trained tail is, and how it learns


class Client(Protocol):
    """What is mirrored: a running target (docs/design.md, "Command server")."""

    def learn_init(self, seed: int) -> None: ...
    def begin(self) -> None: ...
    def add(self, label: int, image: Array) -> None: ...
    def step(self, most: int = 1) -> tuple[int, bool]: ...
    def end(self) -> object: ...
    def forget(self, label: int) -> None: ...
    def decide(self, image: Array) -> int: ...
    def classify(self, image: Array) -> Array: ...
    def state(self) -> list[int]: ...


class LatentPath:
    """Pixels to packed latents, and latents to features, through the interpreter."""

    def __init__(self, graph: ir.Graph) -> None:
        ops = latent_ops(graph)
        assert ops is not None and graph.meta.head is not None
        self.graph, self.ops, self.head = graph, ops, graph.meta.head
        self.cut = ops.pack.inputs[0]
        names = [node.output for node in graph.nodes]
        first, last = names.index(self.cut) + 1, names.index(self.head.tensor) + 1
        self.tail = graph.nodes[first:last]

    @property
    def feature_scale(self) -> float:
        """Real value of one step of the feature stream."""
        return self.graph.tensors[self.head.tensor].uniform_scale

    @property
    def sizes(self) -> tuple[int, int]:
        """(features, 32-bit words of a packed latent)."""
        shape = self.graph.tensors[self.cut].shape
        pixels = int(np.prod(shape[:-1], dtype=np.int64))
        return self.graph.tensors[self.head.tensor].size, pixels * -(-shape[-1] // 32)

    def pack(self, images: Array) -> Array:
        """uint8 images [N, H, W, C] -> uint32 latents [N, words]."""
        parts = []
        for start in range(0, len(images), interp.BATCH):
            value = interp.evaluate(self.graph, images[start : start + interp.BATCH])[self.cut]
            bits = interp.apply(self.ops.pack, [value], self.ops.latent)
            parts.append(np.frombuffer(interp.to_bytes(bits, ir.BITS), "<u4").reshape(len(bits), -1))
        return np.concatenate(parts)

    def features(self, images: Array) -> Array:
        """uint8 images [N, H, W, C] -> feature stream integers [N, D], not packed: what inference reads."""
        parts = [
            interp.evaluate(self.graph, images[start : start + interp.BATCH])[self.head.tensor]
            for start in range(0, len(images), interp.BATCH)
        ]
        return np.concatenate(parts).reshape(len(images), -1)

    def cut_of(self, image: Array) -> Array:
        """uint8 image [H, W, C] -> the integers of the tensor at the cut, [h, w, c]."""
        return interp.evaluate(self.graph, image[None])[self.cut][0]

    def unpack(self, latents: Array) -> Array:
        """uint32 latents [N, words] -> feature stream integers int64 [N, D]: unpack, then the tail."""
        shape = self.graph.tensors[self.cut].shape
        words = np.ascontiguousarray(latents, "<u4").reshape(*latents.shape[:1], *shape[:-1], -1)
        bits = np.unpackbits(words.view(np.uint8), axis=-1, bitorder="little")[..., : shape[-1]]
        value = np.where(bits == 1, np.int8(-1), np.int8(1))
        values = {self.cut: interp.apply(self.ops.unpack, [value], self.graph.tensors[self.cut])}
        for node in self.tail:
            inputs = [values[name] for name in node.inputs]
            values[node.output] = interp.apply(node, inputs, self.graph.tensors[node.output])
        return values[self.head.tensor].reshape(len(latents), -1).astype(np.int64)


class TwinMirror:
    """Speaks like a device, drives the real one and the twin, and compares their state.

    Raises BnngenError at the first difference. comparisons counts the equal ones.
    """

    def __init__(
        self, graph: ir.Graph, config: LearnConfig, seed: int, client: Client, tail: TailOptions | None = None
    ) -> None:
        self.client, self.path, self.config, self.tail = client, LatentPath(graph), config, tail
        self.comparisons = 0
        self._start(seed)

    def _start(self, seed: int) -> None:
        path = self.path
        tail = TwinTail(*self.tail) if self.tail else None
        scale = 2.0**-tail.numbers.x if tail else path.feature_scale
        head = replace(path.head, map=None) if tail else path.head  # docs/numerics.md, 6.11
        self.twin = Twin(head, scale, path.sizes, self.config, path.unpack, seed, tail)

    def learn_init(self, seed: int) -> None:
        self.client.learn_init(seed)
        self._start(seed)
        self._compare("init")

    def begin(self) -> None:
        self.client.begin()
        self.twin.begin()
        self._compare("begin")

    def add(self, label: int, image: Array) -> None:
        self.client.add(label, image)
        stream = self.path.features(image[None])[0] if self.twin.head.observes else None
        self.twin.add(self.path.pack(image[None])[0], label, stream)

    def step(self, most: int = 1) -> tuple[int, bool]:
        """One minibatch on both, whatever `most` says, so that every step is compared."""
        done, more = self.client.step(1)
        if (self.twin.step() == MORE) != more:
            raise BnngenError("the device and its twin disagree on whether there is more to do")
        self._compare(f"step {self.comparisons}")
        return done, more

    def end(self) -> object:
        verdict = self.client.end()
        self.twin.end()
        self._compare("end")
        return verdict

    def forget(self, label: int) -> None:
        self.client.forget(label)
        self.twin.forget(label)
        self._compare(f"forgetting class {label}")

    def decide(self, image: Array) -> int:
        """The target's answer, which must be the twin's."""
        label = self.client.decide(image)
        if label != self.twin.decide(self.twin.scores(self._features(image))[0]):
            raise BnngenError("the device and its twin do not decide alike")
        return label

    def _features(self, image: Array) -> Array:
        """What inference reads of one image, [1, D]."""
        if self.twin.tail is None:
            return self.path.features(image[None])
        return self.twin.tail.forward(self.path.cut_of(image), False)[None]

    def classify(self, image: Array) -> Array:
        """The target's scores; of a trained tail they must be the twin's, of a frozen one `validate` compares them."""
        scores = self.client.classify(image)
        if self.twin.tail is not None and not np.array_equal(scores, self.twin.scores(self._features(image))[0]):
            raise BnngenError("the device and its twin score an image differently")
        return scores

    def state(self) -> list[int]:
        return self.client.state()

    def _compare(self, call: str) -> None:
        want = [zlib.crc32(item) for item in self.twin.items()]
        got = self.client.state()
        wrong = [name for name, a, b in zip(self.twin.names, want, got, strict=True) if a != b]
        if wrong:
            raise BnngenError(
                f"after {call} the learned state differs from the NumPy twin's: {', '.join(wrong)}",
                why="learning is integer arithmetic with one specification: docs/numerics.md, section 5",
                fix="this is a defect of bnngen or of the board; build with --kernels ref to narrow it down",
            )
        self.comparisons += 1
