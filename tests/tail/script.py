# SPDX-License-Identifier: Apache-2.0
"""Random tails, and scripts of calls for the C harness and the twin: one line of checksums a call from each."""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnngen.continual.twin_replay import Pcg32
from bnngen.continual.twin_tail import TwinTail
from bnngen.lower.tail import TailAfter, TailBlock, TailSpec
from bnngen.lower.tail_constants import RULES, TailConfig, tail_buffers, tail_constants
from tests.learn.script import RUNTIME, WARNINGS

HERE = Path(__file__).parent
PLATFORM = HERE.parent / "learn"
SOURCES = [*sorted((RUNTIME / "learn").glob("tail*.c")), HERE / "harness.c"]
OPS = {"forward": 1, "replay": 2, "backward": 3, "clear": 4, "update": 5, "prepare": 6, "commit": 7}
OPS |= {"restore": 8, "set_rate": 9, "damage": 10}
QUIET = 256
Call = tuple[str, int, np.ndarray | None]  # name; training, exponent or place; cut, latent, dx or number


@dataclass(frozen=True)
class Shape:
    """What distinguishes one tail from another."""

    channels: int
    height: int
    width: int
    blocks: int = 1
    pad: int = 0
    relu: bool = False
    shift: bool = False
    after: bool = False
    last_relu: bool = False
    cut: str = "s16"


def random_tail(shape: Shape, seed: int, peak: float = 5.0) -> TailSpec:
    """Return a tail whose numbers have the sizes of a trained network's."""
    random = np.random.default_rng(seed)
    channels = shape.channels

    def normal(size: float) -> np.ndarray:
        return random.normal(0, size, channels)

    def block(number: int) -> TailBlock:
        latent = random.integers(-128, 128, (channels, 3, 3, channels)).astype(np.int8)
        after = TailAfter(normal(0.3), random.uniform(-0.2, 1.0, channels), normal(0.3)) if shape.after else None
        scale = normal(0.7 / np.sqrt(9 * channels))
        shift = normal(0.3) if shape.shift else None
        return TailBlock(f"block{number}", latent, shape.pad, shape.relu, scale, normal(0.2), shift, after)

    cut_scale = random.uniform(0.5, 1, channels) * peak / 127 if shape.cut == "s8" else np.full(channels, peak / 32767)
    return TailSpec(
        blocks=tuple(block(b) for b in range(shape.blocks)),
        height=shape.height,
        width=shape.width,
        channels=channels,
        relu=shape.last_relu,
        cut="cut",
        cut_dtype=shape.cut,
        cut_scale=cut_scale,
        low=-np.abs(normal(1.0)),
        high=np.abs(normal(1.0)),
        peak=peak,
        features="features",
    )


def calls_for(spec: TailSpec, seed: int, batches: int = 2, samples: int = 4) -> list[Call]:
    """Return an experience of minibatches, with inference in between, a commit, and one that is abandoned."""
    random = np.random.default_rng(seed)
    words = -(-spec.channels // 32)
    tail_bits = 2 ** (spec.channels - 32 * (words - 1)) - 1
    kind = np.int8 if spec.cut_dtype == "s8" else np.int16

    def cut() -> np.ndarray:
        info = np.iinfo(kind)
        return random.integers(info.min, info.max + 1, (spec.height, spec.width, spec.channels)).astype(kind)

    def latent() -> np.ndarray:
        packed = random.integers(0, 2**32, (spec.height, spec.width, words), dtype=np.uint32)
        packed[..., -1] &= np.uint32(tail_bits)
        return packed

    calls: list[Call] = [("forward", 0, cut()), ("prepare", 0, None)]
    for batch in range(batches):
        calls.append(("clear", 0, None))
        for _ in range(samples):
            exponent = int(random.integers(10, 34))  # samples that differ a thousandfold in their gradients
            dx = random.integers(-(2**16), 2**16, spec.channels).astype(np.int32)
            calls += [("replay", 1, latent()), ("backward", exponent, dx)]
        calls += [("update", 0, None), ("forward", batch % 2, cut()), ("replay", 0, latent())]
    calls += [("commit", 0, None), ("forward", 0, cut())]
    calls += [("set_rate", 20000, None), ("clear", 0, None), ("replay", 1, latent())]
    calls.append(("backward", 20, np.ones(spec.channels, np.int32)))
    return [*calls, ("update", 0, None), ("restore", 0, None), ("prepare", 0, None), ("forward", 1, cut())]


def encode(spec: TailSpec, config: TailConfig, calls: Sequence[Call], seed: int, quiet: bool = False) -> bytes:
    """Return the script: everything little-endian, each piece filled up to 8 bytes."""
    p = tail_constants(spec, config)
    numbers = [len(p.blocks), spec.height, spec.width, spec.channels, {"s8": 1, "s16": 2}[spec.cut_dtype]]
    numbers += [int(spec.relu), RULES.index(config.rule), config.q_bin, config.sum_bits]
    numbers += [p.exponent, p.g_max, p.cut_shift, p.pool_mult, p.pool_shift]
    numbers += [p.w_mult, p.w_shift, p.v_mult, p.v_shift, p.s_mult, p.s_shift]
    pieces = [struct.pack("<i", n) for n in numbers] + [p.cut_mult.tobytes(), p.low.tobytes(), p.high.tobytes()]
    for block in p.blocks:
        flags = [block.pad, int(block.relu), int("shift" in block.names), int("slope" in block.names)]
        pieces += [struct.pack("<i", n) for n in flags]
        pieces += [block.latent.tobytes(), struct.pack("<i", len(block.names)), block.vectors.tobytes()]
    pieces += [struct.pack("<i", size) for _, size, _, _ in tail_buffers(spec, config)]
    pieces.append(struct.pack("<Q", Pcg32(seed).state))
    for number, (name, value, data) in enumerate(calls):
        silent = quiet and number < len(calls) - 1
        pieces.append(struct.pack("<i", OPS[name] + (QUIET if silent else 0)))
        if name in ("forward", "replay", "backward"):
            pieces += [struct.pack("<i", value), data.tobytes()]
        elif name == "set_rate":
            pieces.append(struct.pack("<i", value))
        elif name == "damage":  # place in the committed vectors, number
            pieces += [struct.pack("<i", value), struct.pack("<i", int(data[0]))]
    return b"".join(piece + bytes(-len(piece) % 8) for piece in pieces)


def twin_lines(spec: TailSpec, config: TailConfig, calls: Sequence[Call], seed: int) -> list[str]:
    """Return what the harness must print."""
    twin, rng = TwinTail(spec, config), Pcg32(seed)
    lines = []
    for name, value, data in calls:
        features = b""
        if name in ("forward", "replay"):
            features = getattr(twin, name)(data, bool(value)).astype("<i2").tobytes()
        elif name == "backward":
            twin.backward(data, value)
        elif name == "update":
            twin.update(rng)
        elif name == "set_rate":
            twin.set_rate(value)
        elif name != "restore":
            getattr(twin, name)()
        lines.append(report(twin, OPS[name], features, rng))
    return lines


def report(twin: TwinTail, op: int, features: bytes, rng: Pcg32) -> str:
    """Return one line, as harness.c prints it."""
    kind = "<i2" if twin.config.sum_bits == 16 else "<i4"
    sums = b"".join(f.total.transpose(3, 1, 2, 0).astype(kind).tobytes() for f in twin.filters)
    vectors = b"".join(v.total.astype("<i8").tobytes() for block in twin.sums for v in block.values())
    bounds = np.array([f.bound for f in twin.filters], "<i4").tobytes()
    exponents = np.array([f.exponent if f.bound else 0 for f in twin.filters], "<i4").tobytes()
    checks = [zlib.crc32(piece) for piece in (*twin.items(), sums, vectors, bounds, exponents)]
    fields = [op, zlib.crc32(features) if features else 0, *checks, rng.state % 2**32]
    return " ".join(f"{v:08x}" for v in fields)


def build(out: Path, compiler: Sequence[str], main: Sequence[str | Path]) -> Path:
    """Compile the tail and the harness with a platform's main; return the program."""
    paths = [f"-I{RUNTIME / 'include'}", f"-I{PLATFORM}", *map(str, SOURCES), *map(str, main)]
    subprocess.run([*compiler, *WARNINGS, *paths, "-o", str(out)], check=True, timeout=120)
    return out
