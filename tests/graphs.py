# SPDX-License-Identifier: Apache-2.0
"""Small float graphs for tests, built by hand from the ops: no Keras, no ONNX."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnngen import interp, ir

SAME3 = ir.Window((3, 3), (1, 1), (1, 1, 1, 1))


def _dorefa(bits: int) -> tuple[np.ndarray, np.ndarray, int, float]:
    """round(clip(x, 0, 1) * n) / n, ties to even: cut i lies at (i + 1/2) / n, closed where i + 1 is even."""
    n = 2**bits - 1
    return (np.arange(n) + 0.5) / n, (np.arange(n) % 2).astype(np.int8), 0, 1 / n


QUANTIZERS = {
    "ternary": (np.array([-0.05, 0.05]), np.array([1, 1], np.int8), -1, 1.0),
    "heaviside": (np.array([0.0]), np.array([0], np.int8), 0, 1.0),
    **{f"dorefa{bits}": _dorefa(bits) for bits in range(1, 8)},
}


class Builder:
    """Adds one layer after another; every random number comes from one seeded generator."""

    def __init__(self, shape: tuple[int, int, int], seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[ir.Node] = []
        self.tensors = {"image": ir.Tensor("image", shape)}
        self.last = "image"

    def _append(self, node: ir.Node, shape: tuple[int, ...], dtype: str = ir.FLOAT) -> str:
        self.nodes.append(node)
        self.tensors[node.output] = ir.Tensor(node.output, shape, dtype)
        self.last = node.output
        return node.output

    def _map_shape(self, window: ir.Window, channels: int) -> tuple[int, int, int]:
        height, width = self.tensors[self.last].shape[:2]
        return (*window.output_size(height, width), channels)

    def conv(self, name: str, channels: int, window: ir.Window = SAME3, bias: bool = False) -> str:
        c_in = self.tensors[self.last].channels
        w = self.rng.normal(0, 0.3, (*window.kernel, c_in, channels)).astype(np.float32)
        b = self.rng.normal(0, 0.3, channels).astype(np.float32) if bias else None
        node = ir.Conv2D(name, (self.last,), name, w, window, 1, b)
        return self._append(node, self._map_shape(window, channels))

    def sign(self, name: str) -> str:
        node = ir.Sign(name, (self.last,), name)
        return self._append(node, self.tensors[self.last].shape, ir.BITS)

    def binary_conv(self, name: str, channels: int, window: ir.Window = SAME3, pad_value: int = 1) -> str:
        c_in = self.tensors[self.last].channels
        w = self.rng.choice(np.array([-1, 1], np.int8), (*window.kernel, c_in, channels))
        node = ir.BinaryConv2D(name, (self.last,), name, w, window, pad_value)
        return self._append(node, self._map_shape(window, channels))

    def norm(self, name: str, spread: float = 1.0) -> str:
        """Batch norm with gammas of both signs, one of them 0, and a mean that is an integer."""
        shape = self.tensors[self.last].shape
        c = shape[-1]
        gamma = self.rng.normal(0, 1, c).astype(np.float32)
        gamma[0] = 0
        mean = np.rint(self.rng.normal(0, 3, c) * spread).astype(np.float32)
        beta = np.where(np.arange(c) % 3 == 1, 0, self.rng.normal(0, 0.5, c)).astype(np.float32)
        variance = (self.rng.uniform(0.5, 2, c) * spread**2 * 9).astype(np.float32)
        node = ir.BatchNorm(name, (self.last,), name, gamma, beta, mean, variance, float(np.float32(1e-3)))
        return self._append(node, shape)

    def relu(self, name: str) -> str:
        return self._append(ir.Clip(name, (self.last,), name), self.tensors[self.last].shape)

    def add(self, name: str, other: str) -> str:
        return self._append(ir.Add(name, (other, self.last), name), self.tensors[self.last].shape)

    def max_pool(self, name: str) -> str:
        window = ir.Window((2, 2), (2, 2))
        tensor = self.tensors[self.last]
        node = ir.MaxPool(name, (self.last,), name, window)
        return self._append(node, self._map_shape(window, tensor.channels), tensor.dtype)

    def element(self, node_type: type[ir.Node], name: str, *values: object) -> str:
        """Any op of one input whose output has the input's shape; Sign has `sign`."""
        node = node_type(name, (self.last,), name, *values)
        return self._append(node, self.tensors[self.last].shape)

    def slopes(self, name: str, both: bool = False, least: float = 0.0) -> str:
        """PReLU, or DPReLU with `both`; slopes at least `least`."""
        c = self.tensors[self.last].channels
        values = [self.rng.uniform(least, 1.5, c).astype(np.float32) for _ in range(1 + both)]
        return self.element(ir.PRelu, name, *values)

    def levels(self, name: str, kind: str) -> str:
        """A quantizer: "ternary", "heaviside", or "dorefa1" to "dorefa7"."""
        return self.element(ir.Levels, name, *QUANTIZERS[kind])

    def few_valued_conv(self, name: str, channels: int, values: list[int], window: ir.Window = SAME3) -> str:
        """Convolution whose weights are small integers times a step of each output channel."""
        c_in = self.tensors[self.last].channels
        step = self.rng.choice(np.float32([0.25, 0.5, 3, 0.1]), channels)
        w = self.rng.choice(np.float32(values), (*window.kernel, c_in, channels)) * step
        return self._append(ir.Conv2D(name, (self.last,), name, w, window), self._map_shape(window, channels))

    def mul(self, name: str, other: str) -> str:
        shape = max(self.tensors[self.last].shape, self.tensors[other].shape, key=len)
        return self._append(ir.Mul(name, (self.last, other), name), shape)

    def concat(self, name: str, *others: str) -> str:
        shapes = [self.tensors[n].shape for n in (self.last, *others)]
        dtype = self.tensors[self.last].dtype
        node = ir.Concat(name, (self.last, *others), name)
        return self._append(node, (*shapes[0][:-1], sum(s[-1] for s in shapes)), dtype)

    def channels(self, name: str, index: list[int]) -> str:
        tensor = self.tensors[self.last]
        node = ir.Channels(name, (self.last,), name, np.array(index))
        return self._append(node, (*tensor.shape[:-1], len(index)), tensor.dtype)

    def thermometer(self, name: str, cuts: list[int]) -> str:
        """Bits of the image: one channel for each cut and image channel."""
        c = self.tensors["image"].channels
        source, value = np.repeat(np.arange(c), len(cuts)), np.tile(cuts, c)
        node = ir.Encode(name, ("image",), name, source, value, False, 1 / 128, -1.0)
        return self._append(node, (*self.tensors["image"].shape[:2], len(source)), ir.BITS)

    def average_pool(self, name: str, window: ir.Window) -> str:
        shape = self._map_shape(window, self.tensors[self.last].channels)
        return self._append(ir.AveragePool(name, (self.last,), name, window), shape)

    def flatten(self, name: str) -> str:
        tensor = self.tensors[self.last]
        return self._append(ir.Flatten(name, (self.last,), name), (tensor.size,), tensor.dtype)

    def pool(self, name: str) -> str:
        node = ir.GlobalAveragePool(name, (self.last,), name)
        return self._append(node, (self.tensors[self.last].channels,))

    def dense(self, name: str, classes: int) -> str:
        w = self.rng.normal(0, 0.3, (self.tensors[self.last].channels, classes)).astype(np.float32)
        b = self.rng.normal(0, 0.3, classes).astype(np.float32)
        return self._append(ir.Dense(name, (self.last,), name, w, b), (classes,))

    def finish(self, cut: str | None = None, features: str | None = None) -> ir.Graph:
        """Return the graph, calibrated on seeded pixels; with latent and head metadata when asked."""
        classes = self.tensors[self.last].channels
        meta = ir.ModelMeta(
            "tiny", tuple(f"c{i}" for i in range(classes)), tuple(range(classes)), 1 / 128, -1.0
        )
        graph = ir.Graph(tuple(self.nodes), self.tensors, "image", self.last, meta)
        values = interp.evaluate(graph, scaled(pixels(graph, 32, seed=99), meta))
        ranges = {name: seen(value) for name, value in values.items() if self.tensors[name].dtype == ir.FLOAT}
        meta = replace(meta, ranges=ranges)
        if cut and features:
            flat = values[cut].reshape(-1, self.tensors[cut].channels)
            middle = np.median(flat, axis=0)
            low, high = np.quantile(flat, 0.25, axis=0), np.quantile(flat, 0.75, axis=0)
            latent = ir.Latent(cut, *(tuple(map(float, v)) for v in (middle, low, high)))
            head = ir.HeadInput(features, min(ranges[features].lo), max(ranges[features].hi), capacity=10)
            meta = replace(meta, latent=latent, head=head)
        return replace(graph, meta=meta)


def seen(value: np.ndarray) -> ir.ChannelRange:
    """What calibration writes down of a tensor's values [N, ..., C]: the range of every channel."""
    flat = value.reshape(-1, value.shape[-1])
    return ir.ChannelRange(tuple(map(float, flat.min(axis=0))), tuple(map(float, flat.max(axis=0))))


def pixels(graph: ir.Graph, count: int, seed: int = 1) -> np.ndarray:
    """Seeded uint8 images of the graph's input shape."""
    shape = graph.tensors[graph.input].shape
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def scaled(images: np.ndarray, meta: ir.ModelMeta) -> np.ndarray:
    """What the Keras model reads: scale * pixel + offset, float32."""
    return (images * np.float32(meta.input_scale) + np.float32(meta.input_offset)).astype(np.float32)


def residual(pad_value: int = 1, channels: int = 33, seed: int = 0) -> ir.Graph:
    """Stem, two residual blocks, a transition, pooled features, classifier."""
    b = Builder((10, 9, 3), seed)
    b.conv("stem", channels)
    stem = b.norm("stem_bn")
    b.sign("block1_sign")
    b.binary_conv("block1_conv", channels, pad_value=pad_value)
    b.relu("block1_relu")
    b.norm("block1_bn", spread=5)
    b.add("block1_add", stem)
    b.relu("t_relu")
    b.max_pool("t_pool")
    b.conv("t_conv", 40, ir.Window((1, 1)))
    t = b.norm("t_bn")
    b.sign("block2_sign")
    b.binary_conv("block2_conv", 40, pad_value=pad_value)
    b.norm("block2_bn", spread=6)
    b.add("block2_add", t)
    b.relu("head_relu")
    b.pool("pool")
    b.dense("logits", 5)
    return b.finish(cut="pool", features="pool")


def chain(pad_value: int = 0, seed: int = 0) -> ir.Graph:
    """A plain chain: binary conv, batch norm, sign; strides; no residual."""
    b = Builder((12, 12, 1), seed)
    b.conv("stem", 32)
    b.norm("stem_bn")
    for index, (width, stride) in enumerate(((48, 2), (64, 1), (31, 2))):
        b.sign(f"sign{index}")
        window = ir.Window((3, 3), (stride, stride), (0, 0, 1, 1) if stride == 2 else (1, 1, 1, 1))
        b.binary_conv(f"conv{index}", width, window, pad_value)
        b.norm(f"bn{index}", spread=5)
    b.pool("pool")
    b.dense("logits", 4)
    return b.finish(cut="pool", features="pool")
