# SPDX-License-Identifier: Apache-2.0
"""NumPy twin of the trainable tail: the same bits as runtime_c/learn/tail*.c after every call.

Written from docs/numerics.md, section 6, whose symbols it uses. It shares no code and no constants with the C or with
lower/tail_constants.py, and favours whole arrays where the C has loops. Inside it kernels are [C, 3, 3, C] (out, row,
column, in), as a model has them; only `items` knows how the device lays them out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnngen.continual.twin_replay import Pcg32
from bnngen.continual.twin_tail_parts import (
    SLOPE_BITS,
    SLOPE_LIMIT,
    STEP_BITS,
    STREAM_LIMIT,
    VECTOR_BITS,
    VECTOR_LIMIT,
    FilterSum,
    TailNumbers,
    VectorSum,
    block_float,
    draws,
    fixed,
    largest,
    product_shift,
    shifted,
)
from bnngen.lower.tail import TailBlock, TailSpec
from bnngen.lower.tail_constants import TailConfig

Array = np.ndarray
FULL_RATE = 65536
SLOPE_KEPT = 12  # fraction bits that slopes keep in a gradient


@dataclass
class TwinBlock:
    """Parameters of one block: latent int64 [C, 3, 3, C], vectors by name int64 [C]."""

    latent: Array
    vectors: dict[str, Array]

    def copy(self) -> TwinBlock:
        """Return a copy that shares nothing."""
        return TwinBlock(self.latent.copy(), {name: v.copy() for name, v in self.vectors.items()})


@dataclass
class Trace:
    """What one block's forward pass leaves for its backward pass; all [H, W, C] but windows [H, W, 3, 3, C]."""

    windows: Array
    mask: Array  # straight-through: |a| <= 1
    acc: Array
    u: Array | None


class TwinTail:
    """One tail; spec in real units, config its options."""

    def __init__(self, spec: TailSpec, config: TailConfig) -> None:
        self.spec, self.config = spec, config
        self.numbers = TailNumbers(spec, config)
        self.committed = [self._parameters(block) for block in spec.blocks]
        self.training = [block.copy() for block in self.committed]
        self.traces: list[Trace] = []
        self.alive: Array | None = None
        self.rate = FULL_RATE
        self.clear()

    def _parameters(self, block: TailBlock) -> TwinBlock:
        bits = self.numbers.x + VECTOR_BITS
        named = {"scale": block.scale, "bias": block.bias}
        if block.shift is not None:
            named["shift"] = block.shift
        if block.after is not None:
            named |= {"before": block.after.before, "slope": block.after.slope, "behind": block.after.behind}
        vectors = {
            name: fixed(v, SLOPE_BITS, SLOPE_LIMIT) if name == "slope" else fixed(v, bits, VECTOR_LIMIT)
            for name, v in named.items()
        }
        latent = np.clip(block.latent.astype(np.int64), -127, 127)
        return TwinBlock(latent * (258 if self.config.q_bin == 16 else 1), vectors)

    def prepare(self) -> None:
        """Start an experience: train a copy of the committed parameters."""
        self.training = [block.copy() for block in self.committed]

    def set_rate(self, rate: int) -> None:
        """Set the length of the steps to come, in 1/65536 of the configured rates."""
        self.rate = min(rate, FULL_RATE)

    def commit(self) -> None:
        """Keep what was trained."""
        self.committed = [block.copy() for block in self.training]

    def forward(self, cut: Array, training: bool) -> Array:
        """Return the features of a cut tensor, integers [H, W, C]."""
        n = self.numbers
        stream = shifted(cut.astype(np.int64) * n.cut_mult, n.cut_shift)
        return self._features(np.clip(stream, -STREAM_LIMIT, STREAM_LIMIT), training)

    def replay(self, latent: Array, training: bool) -> Array:
        """Return the features of a packed latent, uint32 [H * W * words]."""
        spec = self.spec
        words = latent.reshape(spec.height, spec.width, -1)
        bits = np.unpackbits(words.astype("<u4").view(np.uint8), axis=-1, bitorder="little")[..., : spec.channels]
        zero, one = self.numbers.levels
        return self._features(np.where(bits == 1, one, zero), training)

    def _features(self, stream: Array, training: bool) -> Array:
        self.traces = []
        for block, parameters in zip(self.spec.blocks, self.training if training else self.committed, strict=True):
            stream = self._block(block, parameters, stream)
        self.alive = stream > 0 if self.spec.relu else np.ones_like(stream, bool)
        size = self.spec.height * self.spec.width
        return (2 * np.where(self.alive, stream, 0).sum((0, 1)) + size) // (2 * size)

    def _block(self, block: TailBlock, parameters: TwinBlock, x: Array) -> Array:
        v = parameters.vectors
        a = (x << VECTOR_BITS) + v.get("shift", 0)
        windows = neighbourhoods(np.where(a >= 0, 1, -1), block.pad)
        acc = np.einsum("yxabi,oabi->yxo", windows, np.where(parameters.latent >= 0, 1, -1))
        y = np.maximum(acc, 0) if block.relu else acc
        out = clip(x + shifted(y * v["scale"] + v["bias"], VECTOR_BITS))
        u = None
        if block.after is not None:
            u = out + shifted(v["before"], VECTOR_BITS)
            curved = np.where(u < 0, shifted(u * v["slope"], SLOPE_BITS), u)
            out = clip(curved + shifted(v["behind"], VECTOR_BITS))
        self.traces.append(Trace(windows, np.abs(a) <= 1 << (self.numbers.x + VECTOR_BITS), acc, u))
        return out

    def clear(self) -> None:
        """Start a minibatch."""
        channels = self.spec.channels
        self.filters = [FilterSum(channels, self.config.sum_bits) for _ in self.spec.blocks]
        self.sums = [{name: VectorSum(channels) for name in block.vectors} for block in self.committed]

    def backward(self, dx: Array, exponent: int) -> None:
        """Add the share of the sample that replay(.., True) saw last; real gradient of a feature: dx * 2^-exponent."""
        n, spec = self.numbers, self.spec
        mult, shift = n.pool
        g, e = block_float(np.asarray(dx, np.int64) * mult, exponent + shift, n.gradient_limit)
        if not g.any():
            return
        g = np.where(self.alive, g, 0)
        for b in reversed(range(len(spec.blocks))):
            g, e = self._block_backward(b, g, e)

    def _block_backward(self, b: int, g: Array, e: int) -> tuple[Array, int]:
        n, block, trace = self.numbers, self.spec.blocks[b], self.traces[b]
        v, sums = self.training[b].vectors, self.sums[b]
        if block.after is not None:
            sums["behind"].add(g.sum((0, 1)), e)
            sums["slope"].add((g * np.minimum(trace.u, 0)).sum((0, 1)), e + n.x)
            sloped = shifted(g * v["slope"], SLOPE_BITS - SLOPE_KEPT)
            wide = np.where(trace.u < 0, sloped, g << SLOPE_KEPT)
            g, e = block_float(wide, e + SLOPE_KEPT, n.gradient_limit)
            sums["before"].add(g.sum((0, 1)), e)
        open_ = trace.acc > 0 if block.relu else np.ones_like(trace.acc, bool)
        sums["bias"].add(g.sum((0, 1)), e)
        sums["scale"].add((g * np.where(open_, trace.acc, 0)).sum((0, 1)), e)
        down = next(s for s in range(32) if largest(v["scale"]) >> s <= 32767)
        wide = np.where(open_, shifted(g * v["scale"], down), 0)
        dy, ey = block_float(wide, e + n.x + VECTOR_BITS - down, n.gradient_limit)
        self.filters[b].add(dy, ey, trace.windows)
        return self._through_signs(b, dy, ey, (g, e))

    def _through_signs(self, b: int, dy: Array, ey: int, short: tuple[Array, int]) -> tuple[Array, int]:
        """Return the gradient in front of the block, from that of its accumulators and that of its shortcut."""
        limit, trace = self.numbers.gradient_limit, self.traces[b]
        if b == 0 and "shift" not in self.sums[b]:
            return short
        signs = np.where(self.training[b].latent >= 0, 1, -1)
        da = np.where(trace.mask, gather(dy, signs), 0)
        d, ed = block_float(da, ey, limit)
        if "shift" in self.sums[b]:
            self.sums[b]["shift"].add(d.sum((0, 1)), ed)
        g, e = short
        if not d.any():
            return g, e
        if not g.any():
            return d, ed
        common = min(e, ed) + 8
        return block_float(shifted(g, e - common) + shifted(d, ed - common), common, limit)

    def update(self, rng: Pcg32) -> None:
        """Make one step with all parameters."""
        for block, filters, sums in zip(self.training, self.filters, self.sums, strict=True):
            if filters.bound > 0:
                block.latent = self._new_latent(block.latent, filters, rng)
            for name, total in sums.items():
                slope = name == "slope"
                mult, shift = self.numbers.slope_step if slope else self.numbers.vector_step
                step = total.step((mult * self.rate >> 16, shift))
                limit = SLOPE_LIMIT if slope else VECTOR_LIMIT
                block.vectors[name] = np.clip(block.vectors[name] - step, -limit, limit)

    def _new_latent(self, latent: Array, filters: FilterSum, rng: Pcg32) -> Array:
        mult, shift = self.numbers.latent_step
        mult = mult * self.rate >> 16
        if self.config.rule == "sgd":
            step = shifted(filters.total * mult, product_shift(shift + filters.exponent))
        else:
            factor = (mult << 31) // max(int(np.abs(filters.total).sum()), 1)
            step = shifted(filters.total * factor, product_shift(shift + 31))
        drawn = (draws(rng, latent.size) >> 16).reshape(latent.shape)  # in the device's order: in, row, column, out
        random = drawn.transpose(3, 1, 2, 0)
        limit = self.numbers.latent_limit
        return np.clip(((latent << STEP_BITS) - step + random) >> STEP_BITS, -limit, limit)

    def items(self) -> list[bytes]:
        """Return the state as the device holds it: latents and vectors, committed, then trained."""
        kind = "<i2" if self.config.q_bin == 16 else "i1"
        parts = []
        for blocks in (self.committed, self.training):
            parts.append(b"".join(b.latent.transpose(3, 1, 2, 0).astype(kind).tobytes() for b in blocks))
            parts.append(b"".join(v.astype("<i4").tobytes() for b in blocks for v in b.vectors.values()))
        return parts


def clip(stream: Array) -> Array:
    """Return values held in the stream's range."""
    return np.clip(stream, -STREAM_LIMIT, STREAM_LIMIT)


def neighbourhoods(signs: Array, outside: int) -> Array:
    """Return [H, W, 3, 3, C]: what each tap of each pixel reads; `outside` stands beyond the map."""
    padded = np.pad(signs, ((1, 1), (1, 1), (0, 0)), constant_values=outside)
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1)).transpose(0, 1, 3, 4, 2)


def gather(gradient: Array, signs: Array) -> Array:
    """Return the gradient of the map that a convolution with `signs` [out, 3, 3, in] read."""
    windows = neighbourhoods(gradient, 0)[:, :, ::-1, ::-1]  # the pixel that tap (a, b) moved by (a-1, b-1) came from
    return np.einsum("yxabo,oabi->yxi", windows, signs)
