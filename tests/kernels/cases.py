# SPDX-License-Identifier: Apache-2.0
"""Shapes at borders and inputs at extremes for every kernel, with the result that the definition demands.

Each list says what its shapes are for. Everything is drawn from one seed per case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from bnngen.lower.shapes import HIGH, NARROW, WIDE, ConvShape, DenseShape, MapShape, PoolShape, Shape
from tests.kernels import definition as d

BITS, S8, S16 = 0, 1, 2
STORAGE = {BITS: "bits", S8: "<i1", S16: "<i2"}
RANGE = {BITS: (-1, 1), S8: (-128, 127), S16: (-32768, 32767)}
CHANNELS = (1, 31, 32, 33, 63, 64, 127, 128, 129)  # around words, and around the 128 bits of a vector
FILLS = ("random", "lowest", "highest", "alternating", "one")


@dataclass(frozen=True, eq=False)
class Case:
    """One call of a kernel: inputs as bytes by parameter name, or integers, and the output's bytes.

    weights: in the order of the IR, for the variant to pack. shared: index of the input whose memory the
    output takes, or -1.
    """

    name: str
    kernel: str
    shape: Shape
    args: dict[str, bytes | int | list[bytes]]
    expected: bytes
    weights: np.ndarray | None = None
    affine: d.Affine | None = None
    shared: int = field(default=-1)


def conv_shape(in_c: int = 3, out_c: int = 5, **changes: int) -> ConvShape:
    """A 3x3 convolution with padding over a [5, 4] map, with `changes`; the output size follows."""
    values = dict(
        in_h=5,
        in_w=4,
        k_h=3,
        k_w=3,
        stride_h=1,
        stride_w=1,
        pad_top=1,
        pad_left=1,
        dilation_h=1,
        dilation_w=1,
        groups=1,
        pad_value=0,
        in_type=S8,
        out_type=S8,
        arithmetic=0,
        pad_bottom=1,
        pad_right=1,
    )
    values |= changes
    bottom, right = values.pop("pad_bottom"), values.pop("pad_right")
    reach_h = values["dilation_h"] * (values["k_h"] - 1) + 1
    reach_w = values["dilation_w"] * (values["k_w"] - 1) + 1
    out_h = (values["in_h"] + values["pad_top"] + bottom - reach_h) // values["stride_h"] + 1
    out_w = (values["in_w"] + values["pad_left"] + right - reach_w) // values["stride_w"] + 1
    return ConvShape(in_c=in_c, out_c=out_c, out_h=out_h, out_w=out_w, **values)


GEOMETRY = (
    dict(in_h=1, in_w=1, k_h=1, k_w=1, pad_top=0, pad_left=0, pad_bottom=0, pad_right=0),  # one pixel, one tap
    dict(in_h=1, in_w=1),  # all taps but one in the padding
    dict(stride_h=2, stride_w=2),
    dict(stride_h=7, stride_w=7),  # stride beyond the image: one output
    dict(stride_h=2, stride_w=3, pad_top=0, pad_left=0),  # "same" of an even image: padding below and right
    dict(dilation_h=2, dilation_w=2),
    dict(dilation_h=2, dilation_w=3, pad_left=3, pad_right=3, in_w=9),
    dict(k_h=2, k_w=2, pad_bottom=0, pad_right=0),
    dict(k_h=3, k_w=1, pad_left=0, pad_right=0),
    dict(k_h=1, k_w=3, pad_top=0, pad_bottom=0, in_w=11),  # rows longer than a tile of pixels
    dict(pad_top=3, pad_left=3, pad_bottom=3, pad_right=3),  # windows wholly outside the image
    dict(k_h=5, k_w=5, pad_top=2, pad_left=2, pad_bottom=2, pad_right=2),
)


def draw(rng: np.random.Generator, shape: tuple[int, ...], limits: tuple[int, int], fill: str) -> np.ndarray:
    """Integers of a range; for (-1, 1) only the two ends, as in a binary tensor."""
    lo, hi = limits
    binary = limits == (-1, 1)
    values = rng.choice([-1, 1], shape) if binary else rng.integers(lo, hi + 1, shape)
    flat = values.reshape(-1)
    if fill == "lowest":
        flat[:] = lo
    elif fill == "highest":
        flat[:] = hi
    elif fill == "alternating":
        flat[0::2], flat[1::2] = lo, hi
    elif fill == "one":
        flat[:] = hi if binary else 0
        flat[rng.integers(flat.size)] = lo
    return values.astype(np.int64)


def random_affine(rng: np.random.Generator, channels: int, bound: int, out_type: int, arithmetic: int) -> d.Affine:
    """An affine rule whose results spread over the output type; `bound` is the largest |accumulator|."""
    lo, hi = RANGE[out_type]
    acc_lo, acc_hi = (0, 2**31 - 1) if rng.integers(2) else (-(2**31), 2**31 - 1)
    top = max(1, 2**30 // max(bound, 1))
    if arithmetic == NARROW:
        most = min(top, 2**15)
        mult, room = rng.integers(-most, most + 1, channels), 2**31 - 1 - most * bound
        bias, shift = rng.integers(-room, room + 1, channels), int(rng.integers(0, 32))
    elif arithmetic == HIGH:
        shift = int(rng.integers(0, max(1, 31 - bound.bit_length())))
        spread = max(1, (bound << shift) // (4 * hi))  # the products reach a few times the range
        mult = rng.integers(-(2**31), 2**31, channels) // rng.choice([1, spread], channels)
        bias = rng.integers(-(2 * hi), 2 * hi, channels) * 2**32 + rng.integers(0, 2**32, channels)
    else:
        shift = int(rng.integers(20, 63))
        mult, bias = rng.integers(-(2**31), 2**31, channels), rng.integers(-(2**62), 2**62, channels)
        if shift <= 40:  # so that most results lie between lo and hi
            mult, bias = mult // max(1, 2 * top), rng.integers(-hi, hi + 1, channels) << shift
    low = max(lo, -2 * int(rng.integers(0, -lo + 1)))
    return d.Affine(mult, bias, shift, low, hi, acc_lo, acc_hi, arithmetic)


def levels(rng: np.random.Generator, acc: np.ndarray) -> np.ndarray:
    """A level per channel: a value that occurs (the border counts), always and never."""
    flat = acc.reshape(-1, acc.shape[-1])
    level = np.array([rng.choice(flat[:, c]) for c in range(flat.shape[1])])
    level[1::5], level[3::7] = flat.max() + 1, flat.min()
    return level


def conv_case(name: str, shape: ConvShape, fill: str, binary: bool, seed: int) -> list[Case]:
    """The case with affine epilogue, and the same with thresholds."""
    rng = np.random.default_rng(seed)
    x = draw(rng, (shape.in_h, shape.in_w, shape.in_c), RANGE[shape.in_type], fill)
    w_limits, w_fill = ((-1, 1), "random") if binary else ((-127, 127), "random")
    if fill in ("lowest", "highest"):
        w_fill = "highest"  # every product has the same sign: the largest accumulator
    w = draw(rng, (shape.k_h, shape.k_w, shape.in_c // shape.groups, shape.out_c), w_limits, w_fill).astype(np.int8)
    acc = d.conv(shape, x, w)
    assert np.abs(acc).max() < 2**31
    source = {"in": d.to_memory(x, STORAGE[shape.in_type])}
    rule = random_affine(rng, shape.out_c, int(np.abs(acc).max()), shape.out_type, shape.arithmetic)
    stem = "bconv2d" if binary else "conv2d"
    title = f"{name} {fill} {shape}"
    stream = Case(title, stem, shape, source, d.to_memory(d.affine(acc, rule), STORAGE[shape.out_type]), w, rule)
    level = levels(rng, acc)
    packed = Case(
        title,
        f"{stem}_sign",
        replace(shape, out_type=BITS, arithmetic=0),
        source | {"level": level.astype("<i4").tobytes()},
        d.to_memory(d.sign(acc, level), "bits"),
        w,
    )
    return [stream, packed]


def binary_cases() -> Iterator[Case]:
    """bconv2d and bconv2d_sign."""
    shapes = []
    for i, channels in enumerate(CHANNELS):
        for pad_value in (0, 1):
            out = CHANNELS[(i + 4 * pad_value) % len(CHANNELS)]
            shapes.append(("channels", conv_shape(channels, out, pad_value=pad_value)))
    for i, geometry in enumerate(GEOMETRY):
        for pad_value in (0, 1):
            shapes.append(("geometry", conv_shape(33 + i, 7, pad_value=pad_value, **geometry)))
    grouped = ((2, 66, 6), (3, 96, 33), (32, 32, 64), (2, 128, 128), (31, 31, 31), (33, 33, 66), (19, 57, 38))
    for groups, in_c, out_c in grouped:
        for pad_value in (0, 1):
            shapes.append(("groups", conv_shape(in_c, out_c, groups=groups, pad_value=pad_value)))
    deep = dict(in_h=6, in_w=5, k_h=5, k_w=5, pad_top=2, pad_left=2, pad_bottom=2, pad_right=2)
    shapes.append(("lanes flushed twice", conv_shape(352, 5, pad_value=1, **deep)))
    shapes.append(("lanes flushed twice", conv_shape(352, 5, pad_value=0, **deep)))
    for number, (name, shape) in enumerate(shapes):
        out_type, arithmetic = (S8, S16)[number % 2], number // 2 % 3
        full = replace(shape, in_type=BITS, out_type=out_type, arithmetic=arithmetic)
        fills = FILLS if name in ("lanes flushed twice", "channels") else ("random",)
        for fill in fills:
            yield from conv_case(name, full, fill, binary=True, seed=number)


def integer_cases() -> Iterator[Case]:
    """conv2d and conv2d_sign."""
    shapes = [
        ("channels", conv_shape(c, o))
        for c, o in ((1, 1), (2, 2), (3, 32), (4, 9), (5, 8), (7, 33), (8, 64), (31, 3), (33, 4), (57, 40))
    ]
    shapes += [("geometry", conv_shape(3 + i, 7, **geometry)) for i, geometry in enumerate(GEOMETRY)]
    shapes += [("groups", conv_shape(6, 4, groups=2)), ("groups", conv_shape(64, 6, groups=2))]
    for channels, multiple in ((2, 1), (3, 2), (9, 1), (31, 1), (32, 1), (33, 1), (57, 1), (64, 1), (33, 3)):
        shapes.append(("depthwise", conv_shape(channels, channels * multiple, groups=channels)))
    for geometry in GEOMETRY:
        shapes.append(("depthwise geometry", conv_shape(5, 5, groups=5, **geometry)))
    large = dict(k_h=12, k_w=12, pad_top=5, pad_left=5, pad_bottom=6, pad_right=6)
    shapes += [("large", conv_shape(2, 3, **large)), ("large", conv_shape(3, 3, groups=3, **large))]
    for number, (name, shape) in enumerate(shapes):
        for in_type in (S8, S16):
            full = replace(shape, in_type=in_type, out_type=(S16, S8)[number % 2], arithmetic=number // 2 % 3)
            for fill in FILLS if name in ("channels", "depthwise") else ("random",):
                yield from conv_case(name, full, fill, binary=False, seed=1000 + number)


def pool_cases() -> Iterator[Case]:
    """maxpool, bmaxpool, avgpool."""
    window = dict(
        k_h=2, k_w=2, stride_h=2, stride_w=2, pad_top=0, pad_left=0, dilation_h=1, dilation_w=1, denominator=0
    )
    overlapping = window | dict(k_h=3, k_w=3, pad_top=1, pad_left=1)
    dilated = window | dict(dilation_h=2, dilation_w=2, stride_h=1, stride_w=1)
    shapes = [(2, 2, window), (3, 3, overlapping), (3, 3, dilated), (1, 1, window | dict(k_h=5, k_w=5))]
    for number, (out_h, out_w, geometry) in enumerate(shapes):
        for channels in (1, 3, 32, 33):
            for in_type in (BITS, S8, S16):
                shape = PoolShape(5, 5, channels, out_h, out_w, in_type=in_type, out_type=in_type, **geometry)
                yield from _pool(shape, "random", seed=10 * number + channels)
    yield from _pool(PoolShape(5, 5, 33, 1, 1, in_type=S16, out_type=S16, **window), "lowest", seed=1)


def _pool(shape: PoolShape, fill: str, seed: int) -> Iterator[Case]:
    rng = np.random.default_rng(seed)
    x = draw(rng, (shape.in_h, shape.in_w, shape.channels), RANGE[shape.in_type], fill)
    kind = STORAGE[shape.in_type]
    args = {"in": d.to_memory(x, kind)}
    name = "bmaxpool" if shape.in_type == BITS else "maxpool"
    yield Case(f"{fill} {shape}", name, shape, args, d.to_memory(d.max_pool(shape, x), kind))
    if shape.in_type != BITS:
        total = d.sum_pool(shape, x)
        if shape.pad_top:
            counts = d.pool_counts(shape)
            shape = replace(shape, denominator=2 * int(np.lcm.reduce(counts.reshape(-1))))
            total = total * (shape.denominator // counts)
        for arithmetic in (WIDE, NARROW, HIGH):
            full = replace(shape, arithmetic=arithmetic, out_type=(S16, S8)[seed % 2])
            rule = random_affine(rng, shape.channels, int(np.abs(total).max()), full.out_type, arithmetic)
            expected = d.to_memory(d.affine(total, rule), STORAGE[full.out_type])
            yield Case(f"{fill} {full}", "avgpool", full, args, expected, affine=rule)


def map_cases() -> Iterator[Case]:
    """quantize_input, requantize, binarize, unpack, add."""
    for number, channels in enumerate((1, 3, *CHANNELS)):
        for in_type in (S8, S16):
            rng = np.random.default_rng(number)
            shape = MapShape(3, 2, channels, in_type, (S16, S8)[number % 2], number // 2 % 3)
            for fill in ("random", "lowest", "highest"):
                yield from _affine_maps(rng, shape, fill)
                yield from _bit_maps(rng, shape, fill)
                yield from _additions(rng, shape, fill)


def _affine_maps(rng: np.random.Generator, shape: MapShape, fill: str) -> Iterator[Case]:
    dims = (shape.rows, shape.width, shape.channels)
    for kernel, limits, kind in (
        ("quantize_input", (0, 255), "u1"),
        ("requantize", RANGE[shape.in_type], STORAGE[shape.in_type]),
    ):
        x = draw(rng, dims, limits, fill)
        rule = random_affine(rng, shape.channels, max(abs(v) for v in limits), shape.out_type, shape.arithmetic)
        expected = d.to_memory(d.affine(x, rule), STORAGE[shape.out_type])
        case = Case(f"{fill} {shape}", kernel, shape, {"in": d.to_memory(x, kind)}, expected, affine=rule)
        yield case
        if kernel == "requantize" and shape.in_type == shape.out_type:
            yield replace(case, name=f"in place {case.name}", shared=0)


def _bit_maps(rng: np.random.Generator, shape: MapShape, fill: str) -> Iterator[Case]:
    x = draw(rng, (shape.rows, shape.width, shape.channels), RANGE[shape.in_type], fill)
    level, flip = levels(rng, x), rng.integers(0, 2, shape.channels)
    signs = d.sign(x, level) * np.where(flip, -1, 1)
    args = {
        "in": d.to_memory(x, STORAGE[shape.in_type]),
        "level": level.astype("<i4").tobytes(),
        "flip": d.to_memory(np.where(flip, -1, 1), "bits"),
    }
    yield Case(
        f"{fill} {shape}", "binarize", replace(shape, out_type=BITS, arithmetic=0), args, d.to_memory(signs, "bits")
    )
    low, high = (draw(rng, (shape.channels,), RANGE[shape.out_type], "random") for _ in range(2))
    args = {"in": d.to_memory(signs, "bits"), "low": low.astype("<i2").tobytes(), "high": high.astype("<i2").tobytes()}
    expected = d.to_memory(np.where(signs < 0, low, high), STORAGE[shape.out_type])
    yield Case(f"{fill} {shape}", "unpack", replace(shape, in_type=BITS, arithmetic=0), args, expected)


def _additions(rng: np.random.Generator, shape: MapShape, fill: str) -> Iterator[Case]:
    shape = replace(shape, out_type=shape.in_type, arithmetic=0)
    a, b = (draw(rng, (shape.rows, shape.width, shape.channels), RANGE[shape.in_type], fill) for _ in range(2))
    kind, (lo, hi) = STORAGE[shape.in_type], RANGE[shape.in_type]
    lo = int(rng.choice([lo, 0]))  # 0: a ReLU behind the addition
    args = {"a": d.to_memory(a, kind), "b": d.to_memory(b, kind), "lo": lo, "hi": hi}
    case = Case(f"{fill} {shape}", "add", shape, args, d.to_memory(np.clip(a + b, lo, hi), kind))
    yield case
    yield replace(case, name=f"over a {case.name}", shared=0)
    yield replace(case, name=f"over b {case.name}", shared=1)


def dense_cases() -> Iterator[Case]:
    """dense."""
    for number, (in_c, out_c) in enumerate(((1, 1), (3, 10), (31, 2), (128, 10), (129, 33))):
        for in_type in (S8, S16):
            for fill in FILLS:
                rng = np.random.default_rng(number)
                x = draw(rng, (in_c,), RANGE[in_type], fill)
                w = draw(rng, (in_c, out_c), (-127, 127), "random" if fill == "random" else "highest")
                bias = rng.integers(-(2**24), 2**24, out_c)
                args = {"in": d.to_memory(x, STORAGE[in_type]), "bias": bias.astype("<i4").tobytes()}
                expected = (bias + x @ w).astype("<i4").tobytes()
                shape = DenseShape(in_c, out_c, in_type)
                yield Case(f"{fill} {shape}", "dense", shape, args, expected, w.astype(np.int8))
