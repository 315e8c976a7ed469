# SPDX-License-Identifier: Apache-2.0
"""Integer graphs made by hand, independent of the passes: one to read, one with every op that lowering knows."""

from __future__ import annotations

import numpy as np

from bnngen import ir

SAME3 = ir.Window((3, 3), (1, 1), (1, 1, 1, 1))
LatentNodes = tuple[ir.Binarize, ir.Unpack]


class Builder:
    """Adds integer ops one after another, with seeded weights and plausible epilogues."""

    def __init__(self, image: tuple[int, int, int], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[ir.Node] = []
        self.tensors = {"image": ir.Tensor("image", image, ir.U8, 1.0)}

    def add(self, node: ir.Node, shape: tuple[int, ...], dtype: str) -> str:
        self.nodes.append(node)
        self.tensors[node.output] = ir.Tensor(node.output, shape, dtype, 1.0)
        return node.output

    def shape(self, source: str, window: ir.Window, channels: int) -> tuple[int, ...]:
        """What a window makes of a map; a vector stays one."""
        if len(self.tensors[source].shape) == 1:
            return (channels,)
        return (*window.output_size(*self.tensors[source].shape[:2]), channels)

    def affine(self, channels: int, spread: float, dtype: str, relu: bool = False) -> ir.Affine:
        """A rule that maps +-spread to the output type; multipliers of both signs."""
        lo, hi = ir.TYPE_RANGE[dtype]
        factor = self.rng.uniform(0.2, 1.2, channels) * self.rng.choice([-1, 1], channels) * hi / spread
        shift = 30 if np.abs(factor).max() < 1 else 16
        bias = np.rint(self.rng.uniform(-hi / 4, hi / 4, channels)).astype(np.int64) * 2**shift
        mult = np.rint(factor * 2**shift).astype(np.int32)
        return ir.Affine(mult, bias + 2 ** (shift - 1), shift, 0 if relu else lo, hi)

    def threshold(self, channels: int, spread: int) -> ir.Threshold:
        level = self.rng.integers(-spread, spread + 1, channels).astype(np.int32)
        return ir.Threshold(level, self.rng.integers(0, 2, channels).astype(np.int8))

    def quantize(self, name: str) -> str:
        channels = self.tensors["image"].channels
        rule = ir.Affine(np.array([2**30]), np.array([-128 * 2**30 + 2**29]), 30, -128, 127)
        assert len(np.broadcast_to(rule.mult, channels)) == channels
        return self.add(ir.QuantizeInput(name, ("image",), name, rule), self.tensors["image"].shape, ir.S8)

    def conv(
        self, name: str, source: str, channels: int, dtype: str, window: ir.Window = SAME3, groups: int = 1
    ) -> str:
        c_in = self.tensors[source].channels
        w = self.rng.integers(-127, 128, (*window.kernel, c_in // groups, channels)).astype(np.int8)
        spread = int(40 * np.sqrt(w[..., 0].size) * ir.TYPE_RANGE[self.tensors[source].dtype][1])
        rule = self.threshold(channels, spread // 4) if dtype == ir.BITS else self.affine(channels, spread, dtype)
        node = ir.Conv2D(name, (source,), name, w, window, groups, None, rule)
        return self.add(node, self.shape(source, window, channels), dtype)

    def binary_conv(
        self,
        name: str,
        source: str,
        channels: int,
        dtype: str,
        window: ir.Window = SAME3,
        pad_value: int = 1,
        groups: int = 1,
    ) -> str:
        c_in = self.tensors[source].channels
        w = self.rng.choice(np.array([-1, 1], np.int8), (*window.kernel, c_in // groups, channels))
        spread = int(2 * np.sqrt(w[..., 0].size))
        rule = self.threshold(channels, spread // 2) if dtype == ir.BITS else self.affine(channels, spread, dtype)
        node = ir.BinaryConv2D(name, (source,), name, w, window, pad_value, groups, None, rule)
        return self.add(node, self.shape(source, window, channels), dtype)

    def binarize(self, name: str, source: str) -> str:
        tensor = self.tensors[source]
        rule = self.threshold(tensor.channels, ir.TYPE_RANGE[tensor.dtype][1] // 4)
        return self.add(ir.Binarize(name, (source,), name, rule), tensor.shape, ir.BITS)

    def requantize(self, name: str, source: str, dtype: str) -> str:
        tensor = self.tensors[source]
        rule = self.affine(tensor.channels, ir.TYPE_RANGE[tensor.dtype][1], dtype, relu=True)
        return self.add(ir.Requantize(name, (source,), name, rule), tensor.shape, dtype)

    def plus(self, name: str, a: str, b: str) -> str:
        tensor = self.tensors[a]
        return self.add(ir.Add(name, (a, b), name, *ir.TYPE_RANGE[tensor.dtype]), tensor.shape, tensor.dtype)

    def max_pool(self, name: str, source: str, window: ir.Window) -> str:
        tensor = self.tensors[source]
        node = ir.MaxPool(name, (source,), name, window)
        return self.add(node, self.shape(source, window, tensor.channels), tensor.dtype)

    def average(self, name: str, source: str, window: ir.Window | None = None) -> str:
        tensor = self.tensors[source]
        count = int(np.prod(window.kernel if window else tensor.shape[:2]))
        rule = ir.Affine(
            np.full(tensor.channels, round(2**30 / count)),
            np.full(tensor.channels, 2**29),
            30,
            *ir.TYPE_RANGE[tensor.dtype],
        )
        if window is None:
            return self.add(ir.GlobalAveragePool(name, (source,), name, rule), (tensor.channels,), tensor.dtype)
        node = ir.AveragePool(name, (source,), name, window, rule)
        return self.add(node, self.shape(source, window, tensor.channels), tensor.dtype)

    def flatten(self, name: str, source: str) -> str:
        tensor = self.tensors[source]
        return self.add(ir.Flatten(name, (source,), name), (tensor.size,), tensor.dtype)

    def dense(self, name: str, source: str, classes: int) -> str:
        w = self.rng.integers(-127, 128, (self.tensors[source].size, classes)).astype(np.int8)
        bias = self.rng.integers(-(2**20), 2**20, classes).astype(np.int32)
        return self.add(ir.Dense(name, (source,), name, w, bias), (classes,), ir.S32)

    def finish(self, name: str, cut: str = "", features: str = "") -> tuple[ir.Graph, LatentNodes | None]:
        """The graph, and the nodes of the cut if there is one."""
        last = self.nodes[-1].output
        classes = self.tensors[last].channels
        latent = head = nodes = None
        if cut:
            tensor = self.tensors[cut]
            c, (lo, hi) = tensor.channels, ir.TYPE_RANGE[tensor.dtype]
            rule = ir.Threshold(self.rng.integers(lo // 4, hi // 4, c).astype(np.int32), np.zeros(c, np.int8))
            low, high = self.rng.integers(lo, 0, c).astype(np.int16), self.rng.integers(0, hi, c).astype(np.int16)
            nodes = (ir.Binarize("pack", (cut,), "latent", rule), ir.Unpack("unpack", ("latent",), cut, low, high))
            latent = ir.Latent(cut, (0.0,) * c, (-1.0,) * c, (1.0,) * c)
            head = ir.HeadInput(features, 0.0, 1.0, 10)
        meta = ir.ModelMeta(
            name, tuple(f"c{i}" for i in range(classes)), tuple(range(classes)), 1.0, 0.0, latent=latent, head=head
        )
        graph = ir.Graph(tuple(self.nodes), self.tensors, "image", last, meta)
        ir.verify(graph)
        return graph, nodes


def small() -> tuple[ir.Graph, LatentNodes | None]:
    """Few weights, a residual block, a cut before it: the graph whose C is kept in the repository."""
    b = Builder((4, 4, 1), seed=1)
    stem = b.conv("stem", b.quantize("input"), 2, ir.S8)
    block = b.binary_conv("block", b.binarize("sign", stem), 2, ir.S8)
    b.dense("logits", b.average("pool", b.plus("sum", stem, block)), 3)
    return b.finish("small", cut="stem", features="pool")


def everything() -> tuple[ir.Graph, LatentNodes | None]:
    """Every op, both stream types, both paddings, groups, dilation; a cut in the middle and a tail behind it."""
    b = Builder((13, 11, 3), seed=2)
    x = b.conv("stem", b.quantize("input"), 33, ir.S16, ir.Window((3, 3), (2, 2), (0, 0, 1, 1)))
    y = b.binary_conv("wide", b.binarize("sign1", x), 33, ir.S16, ir.Window((3, 3), (1, 1), (2, 2, 2, 2), (2, 2)), 0)
    x = b.plus("sum1", x, y)
    bits = b.binary_conv("grouped", b.binarize("sign2", x), 66, ir.BITS, groups=3)
    bits = b.binary_conv("chained", bits, 64, ir.BITS, pad_value=0)
    bits = b.max_pool("bits_pool", bits, ir.Window((3, 3), (1, 1), (1, 1, 1, 1)))
    x = b.binary_conv("to_stream", bits, 36, ir.S8, ir.Window((1, 1)))
    x = b.max_pool("pool", x, ir.Window((2, 2), (2, 2)))
    x = b.requantize("rescale", x, ir.S16)
    cut = x
    bits = b.conv("depthwise", x, 36, ir.BITS, SAME3, groups=36)
    y = b.binary_conv("back", bits, 36, ir.S16)
    x = b.plus("sum2", x, y)
    x = b.conv("narrow", b.requantize("to_s8", x, ir.S8), 16, ir.S8, ir.Window((1, 1)))
    x = b.average("average", x, ir.Window((2, 2), (1, 1)))
    x = b.flatten("flat", x)
    b.dense("logits", x, 7)
    return b.finish("everything", cut=cut, features="flat")


def random_graph(seed: int) -> tuple[ir.Graph, LatentNodes | None]:
    """A random network: ops, types and geometry drawn from `seed`; shortcuts to older tensors; often a cut."""
    rng = np.random.default_rng(seed)
    b = Builder((int(rng.integers(3, 12)), int(rng.integers(3, 12)), int(rng.integers(1, 5))), seed)
    streams = [b.conv("stem", b.quantize("input"), int(rng.integers(1, 40)), _stream(rng), _window(rng))]
    for i in range(int(rng.integers(2, 9))):
        streams.append(_random_layer(b, rng, streams[-1], f"l{i}"))
        for old in streams[:-2]:
            same = (
                b.tensors[old].shape == b.tensors[streams[-1]].shape
                and b.tensors[old].dtype == b.tensors[streams[-1]].dtype
            )
            if same and rng.integers(2):
                streams.append(b.plus(f"l{i}_sum", *rng.permutation([old, streams[-1]])))
                break
    small = b.tensors[streams[-1]].size < 500  # more could leave the 32 bits of the scores
    last = b.flatten("flat", streams[-1]) if small and rng.integers(2) else b.average("pool", streams[-1])
    b.dense("logits", last, 3)
    cuts = [name for name in streams if _all_through(b, name)] + ([last] if last == "pool" else [])
    return b.finish("random", *((str(rng.choice(cuts)), last) if cuts and rng.integers(4) else ()))


def _all_through(b: Builder, cut: str) -> bool:
    """No tensor from before `cut` is read behind it."""
    start = next(i for i, node in enumerate(b.nodes) if node.output == cut) + 1
    early = {node.output for node in b.nodes[:start]} - {cut}
    return not any(name in early for node in b.nodes[start:] for name in node.inputs)


def _stream(rng: np.random.Generator) -> str:
    return str(rng.choice([ir.S8, ir.S16]))


def _window(rng: np.random.Generator) -> ir.Window:
    k, stride = int(rng.choice([1, 2, 3, 3])), int(rng.choice([1, 1, 1, 2]))
    return ir.Window((k, k), (stride, stride), ((k - 1) // 2, (k - 1) // 2, k // 2, k // 2))


def _random_layer(b: Builder, rng: np.random.Generator, x: str, name: str) -> str:
    """A layer from stream to stream: integer convolution, binary convolutions with bits between, pool, rescale."""
    kind, channels = int(rng.integers(5)), int(rng.choice([b.tensors[x].channels] * 2 + [rng.integers(1, 70)]))
    if kind == 0:
        return b.conv(name, x, channels, _stream(rng), _window(rng))
    if kind == 1:
        size = b.tensors[x].shape[:2]
        return b.max_pool(name, x, ir.Window((2, 2), (2, 2))) if min(size) >= 2 else b.requantize(name, x, _stream(rng))
    if kind == 2:
        return b.requantize(name, x, _stream(rng))
    sign = f"{name}_sign"
    bits = b.conv(sign, x, channels, ir.BITS, _window(rng)) if kind == 3 else b.binarize(sign, x)
    if rng.integers(2):
        bits = b.binary_conv(f"{name}_inner", bits, channels, ir.BITS, _window(rng), int(rng.integers(2)))
    return b.binary_conv(name, bits, channels, _stream(rng), _window(rng), int(rng.integers(2)))
