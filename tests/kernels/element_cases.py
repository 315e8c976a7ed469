# SPDX-License-Identifier: Apache-2.0
"""Cases of the element-wise functions and of what moves channels: odd widths, extremes, every type on each side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bnngen.lower.shapes import HIGH, NARROW, WIDE, DenseShape, MapShape, MoveShape, MulShape
from tests.kernels import definition as d
from tests.kernels.cases import BITS, RANGE, S8, S16, STORAGE, Case, draw, random_affine

CHANNELS = (1, 3, 31, 32, 33, 57, 64)
TYPES = ((S8, S8), (S8, S16), (S16, S8), (S16, S16))
ARITHMETIC = (WIDE, NARROW, HIGH)


def element_cases() -> Iterator[Case]:
    """mul, piecewise, steps, lookup, scores."""
    for number, channels in enumerate(CHANNELS):
        for turn, (in_type, out_type) in enumerate(TYPES):
            shape = MapShape(3, 2, channels, in_type, out_type, ARITHMETIC[(number + turn) % 3])
            for fill in ("random", "lowest", "highest", "alternating"):
                rng = np.random.default_rng(100 * number + turn)
                yield from _products(rng, shape, fill)
                yield from _slopes(rng, shape, fill)
                yield from _quantizers(rng, shape, fill)
                yield from _tables(rng, shape, fill)
                yield from _scores(rng, shape, fill)


def _may_share(case: Case, inputs: tuple[int, ...]) -> Iterator[Case]:
    """The case, and the same with the output over each of those inputs."""
    yield case
    for index in inputs:
        yield replace(case, name=f"over input {index} {case.name}", shared=index)


def _products(rng: np.random.Generator, shape: MapShape, fill: str) -> Iterator[Case]:
    b_type = (S16, S8)[shape.channels % 2]
    dims = (shape.rows, shape.width, shape.channels)
    for broadcast in (0, 1):
        a = draw(rng, dims, RANGE[shape.in_type], fill)
        b = draw(rng, dims[2:] if broadcast else dims, RANGE[b_type], "lowest" if fill == "lowest" else "random")
        rule = random_affine(rng, shape.channels, int(np.abs(a * b).max()), shape.out_type, shape.arithmetic)
        full = MulShape(*dims, shape.in_type, b_type, broadcast, shape.out_type, shape.arithmetic)
        args = {"a": d.to_memory(a, STORAGE[shape.in_type]), "b": d.to_memory(b, STORAGE[b_type])}
        expected = d.to_memory(d.affine(a * b, rule), STORAGE[shape.out_type])
        alike = [0] * (shape.in_type == shape.out_type) + [1] * (b_type == shape.out_type and not broadcast)
        yield from _may_share(Case(f"{fill} {full}", "mul", full, args, expected, affine=rule), tuple(alike))


def _slopes(rng: np.random.Generator, shape: MapShape, fill: str) -> Iterator[Case]:
    lo, hi = RANGE[shape.in_type]
    x = draw(rng, (shape.rows, shape.width, shape.channels), (lo, hi), fill)
    knot = rng.choice(x.reshape(-1), shape.channels)  # the knot itself occurs, and belongs to "above"
    knot[1::4], knot[2::4] = lo, hi + 1  # one side never
    rule = random_affine(rng, 2 * shape.channels, -lo, shape.out_type, shape.arithmetic)
    rule = replace(rule, acc_lo=-(2**31), acc_hi=2**31 - 1)
    args = {"in": d.to_memory(x, STORAGE[shape.in_type]), "knot": knot.astype("<i4").tobytes()}
    expected = d.to_memory(d.piecewise(x, knot, rule), STORAGE[shape.out_type])
    case = Case(f"{fill} {shape}", "piecewise", shape, args, expected, affine=rule)
    yield from _may_share(case, (0,) if shape.in_type == shape.out_type else ())


def _quantizers(rng: np.random.Generator, shape: MapShape, fill: str) -> Iterator[Case]:
    lo, hi = RANGE[shape.in_type]
    x = draw(rng, (shape.rows, shape.width, shape.channels), (lo, hi), fill)
    cuts = int(rng.choice([1, 2, 3, 15]))
    level = np.sort(rng.choice([*x.reshape(-1), -(2**31), 2**31 - 1], (shape.channels, cuts)), axis=1)
    down, first = rng.integers(0, 2, shape.channels), int(rng.choice([-128, -1, 0, 127 - cuts]))
    args = {
        "in": d.to_memory(x, STORAGE[shape.in_type]),
        "level": level.astype("<i4").tobytes(),
        "down": down.astype("i1").tobytes(),
        "cuts": cuts,
        "first": first,
    }
    expected = d.to_memory(d.steps(x, level, down, first), STORAGE[shape.out_type])
    full = replace(shape, arithmetic=0)
    case = Case(f"{fill} {cuts} cuts {full}", "steps", full, args, expected)
    yield from _may_share(case, (0,) if shape.in_type == shape.out_type else ())


def _tables(rng: np.random.Generator, shape: MapShape, fill: str) -> Iterator[Case]:
    x = draw(rng, (shape.rows, shape.width, shape.channels), RANGE[shape.in_type], fill)
    kind = STORAGE[shape.out_type]
    table = draw(rng, (256 if shape.in_type == S8 else 257,), RANGE[shape.out_type], fill)
    args = {"in": d.to_memory(x, STORAGE[shape.in_type]), "table": d.to_memory(table, kind)}
    full = replace(shape, arithmetic=0)
    case = Case(f"{fill} {full}", "lookup", full, args, d.to_memory(d.lookup(x, table), kind))
    yield from _may_share(case, (0,) if shape.in_type == shape.out_type else ())


def _scores(rng: np.random.Generator, shape: MapShape, fill: str) -> Iterator[Case]:
    x = draw(rng, (shape.channels,), RANGE[shape.in_type], fill)
    wide = random_affine(rng, shape.channels, -RANGE[shape.in_type][0], shape.out_type, shape.arithmetic)
    rule = replace(wide, lo=-(2**31), hi=2**31 - 1)
    full = DenseShape(shape.channels, shape.channels, shape.in_type, shape.arithmetic)
    args = {"in": d.to_memory(x, STORAGE[shape.in_type])}
    yield Case(f"{fill} {full}", "scores", full, args, d.affine(x, rule).astype("<i4").tobytes(), affine=rule)


# ------------------------------------------------------------------------------------------------- moves


def move_cases() -> Iterator[Case]:
    """concat, bconcat, channels, bchannels, bflatten, thermometer, bitplanes."""
    lists = ((1,), (32, 64), (31, 1), (33, 57), (64, 64, 32), (1, 3, 31), (31, 31, 31), (3, 32, 33, 64), (57, 7, 1))
    lists += ((1, 1, 1, 1, 1), (64, 31, 57, 33), (5, 129))
    for number, counts in enumerate(lists):
        for kind in (BITS, S8, S16):
            yield _concat(np.random.default_rng(number), counts, kind)
    for number, channels in enumerate(CHANNELS):
        rng = np.random.default_rng(number)
        for out_c in CHANNELS[number::-3] + (channels,):
            for kind in (BITS, S8, S16):
                yield _selection(rng, channels, out_c, kind)
        for pixels in (1, 2, 7):
            yield _flatten(rng, pixels, channels)
        for fill in ("random", "lowest", "highest", "one"):
            yield from _encodings(rng, channels, fill)


def _memory(values: np.ndarray, kind: int) -> bytes:
    return d.to_memory(values, STORAGE[kind])


def _concat(rng: np.random.Generator, counts: tuple[int, ...], kind: int) -> Case:
    parts = [draw(rng, (3, 2, count), RANGE[kind], "random") for count in counts]
    shape = MoveShape(3, 2, sum(counts), sum(counts), len(counts), kind)
    args = {"inputs": [_memory(part, kind) for part in parts], "counts": np.array(counts, "<i4").tobytes()}
    kernel = "bconcat" if kind == BITS else "concat"
    return Case(f"{counts} {shape}", kernel, shape, args, _memory(np.concatenate(parts, axis=2), kind))


def _selection(rng: np.random.Generator, channels: int, out_c: int, kind: int) -> Case:
    x = draw(rng, (3, 2, channels), RANGE[kind], "random")
    index = rng.integers(0 if kind == BITS else -1, channels, out_c)
    index[-1] = channels - 1
    picked = np.where(index < 0, 0, x[..., np.maximum(index, 0)])
    shape = MoveShape(3, 2, channels, out_c, 1, kind)
    args = {"in": _memory(x, kind), "index": index.astype("<i4").tobytes()}
    return Case(str(shape), "bchannels" if kind == BITS else "channels", shape, args, _memory(picked, kind))


def _flatten(rng: np.random.Generator, pixels: int, channels: int) -> Case:
    x = draw(rng, (pixels, channels), RANGE[BITS], "random")
    shape = MoveShape(1, pixels, channels, pixels * channels, 1, BITS)
    return Case(str(shape), "bflatten", shape, {"in": _memory(x, BITS)}, _memory(x.reshape(1, -1), BITS))


def _encodings(rng: np.random.Generator, channels: int, fill: str) -> Iterator[Case]:
    image_c = min(channels, 4)
    x = draw(rng, (3, 2, image_c), (0, 255), fill)
    source = rng.integers(0, image_c, channels)
    for kernel, values in (("thermometer", [0, 1, 127, 128, 255, 256, *x.reshape(-1)]), ("bitplanes", range(9))):
        value = rng.choice(list(values), channels)
        picked = x[..., source]
        plus = picked >= value if kernel == "thermometer" else picked // 2**value % 2 == 1
        shape = MoveShape(3, 2, image_c, channels, 1, BITS)
        args = {"in": _memory_u8(x), "source": source.astype("<i2").tobytes(), "value": value.astype("<i2").tobytes()}
        yield Case(f"{fill} {shape}", kernel, shape, args, _memory(np.where(plus, 1, -1), BITS))


def _memory_u8(values: np.ndarray) -> bytes:
    return d.to_memory(values, "u1")
