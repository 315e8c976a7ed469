# SPDX-License-Identifier: Apache-2.0
"""The trainable tail in float64, with the same straight-through estimators: what the integers stand for."""

from __future__ import annotations

import numpy as np

from bnngen.lower.tail import TailBlock, TailSpec

Array = np.ndarray


def convolve(signs: Array, kernel: Array, outside: float) -> Array:
    """3x3 convolution, stride 1, of [H, W, C] with [out, 3, 3, in], pixel by pixel and tap by tap."""
    height, width, _ = signs.shape
    padded = np.pad(signs, ((1, 1), (1, 1), (0, 0)), constant_values=outside)
    out = np.zeros((height, width, len(kernel)))
    for row in range(3):
        for column in range(3):
            out += padded[row : row + height, column : column + width] @ kernel[:, row, column].T
    return out


class FloatTail:
    """Real parameters; `forward` keeps what `backward` needs."""

    def __init__(self, spec: TailSpec, latents: list[Array], vectors: list[dict[str, Array]]) -> None:
        self.spec, self.latents, self.vectors = spec, latents, vectors

    def forward(self, x: Array) -> Array:
        """Return features of the real stream at the cut."""
        self.kept: list[dict[str, Array]] = []
        for block, latent, v in zip(self.spec.blocks, self.latents, self.vectors, strict=True):
            a = x + v.get("shift", 0.0)
            signs = np.where(a >= 0, 1.0, -1.0)
            acc = convolve(signs, np.where(latent >= 0, 1.0, -1.0), block.pad)
            y = np.maximum(acc, 0) if block.relu else acc
            x = x + y * v["scale"] + v["bias"]
            u = x + v.get("before", 0.0)
            if block.after is not None:
                x = np.where(u < 0, u * v["slope"], u) + v["behind"]
            self.kept.append({"a": a, "signs": signs, "acc": acc, "u": u})
        self.last = x
        return (np.maximum(x, 0) if self.spec.relu else x).mean((0, 1))

    def backward(self, dx: Array) -> tuple[list[Array], list[dict[str, Array]]]:
        """Return gradients of the kernels and of the vectors."""
        g = np.broadcast_to(dx / (self.spec.height * self.spec.width), self.last.shape)
        g = np.where(self.last > 0, g, 0) if self.spec.relu else g
        kernels, vectors = [], []
        for b in reversed(range(len(self.spec.blocks))):
            kernel, named, g = self._block(b, self.spec.blocks[b], g)
            kernels.insert(0, kernel)
            vectors.insert(0, named)
        return kernels, vectors

    def _block(self, b: int, block: TailBlock, g: Array) -> tuple[Array, dict[str, Array], Array]:
        v, kept, named = self.vectors[b], self.kept[b], {}
        if block.after is not None:
            named["behind"] = g.sum((0, 1))
            named["slope"] = (g * np.minimum(kept["u"], 0)).sum((0, 1))
            g = np.where(kept["u"] < 0, g * v["slope"], g)
            named["before"] = g.sum((0, 1))
        y = np.maximum(kept["acc"], 0) if block.relu else kept["acc"]
        named["bias"], named["scale"] = g.sum((0, 1)), (g * y).sum((0, 1))
        dy = g * v["scale"] * ((kept["acc"] > 0) if block.relu else 1)
        height, width, _ = dy.shape
        padded = np.pad(kept["signs"], ((1, 1), (1, 1), (0, 0)), constant_values=block.pad)
        kernel = np.zeros_like(self.latents[b], np.float64)
        spread = np.zeros((height + 2, width + 2, dy.shape[2]))
        for row in range(3):
            for column in range(3):
                part = padded[row : row + height, column : column + width]
                kernel[:, row, column] = np.einsum("yxo,yxi->oi", dy, part)
                signs = np.where(self.latents[b][:, row, column] >= 0, 1.0, -1.0)
                spread[row : row + height, column : column + width] += dy @ signs
        da = np.where(np.abs(kept["a"]) <= 1, spread[1:-1, 1:-1], 0)
        if block.shift is not None:
            named["shift"] = da.sum((0, 1))
        return kernel, named, g + da
