# SPDX-License-Identifier: Apache-2.0
"""The kernel registry: one table that feeds selection and tests; a benchmark can use it too.

To add a variant, write `runtime_c/kernels/<header>_<variant>.h` and a `Variant` line here; the tests then compare it
with the reference. Naming rule and variant table: runtime_c/README.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bnngen.lower import pack
from bnngen.lower.shapes import ConvShape, DenseShape, MapShape, MoveShape, MulShape, PoolShape, Shape, words


@dataclass(frozen=True)
class Variant:
    """One implementation of a kernel.

    features: what the target must have. suits: shapes that it can compute. pack: IR weights -> its own order.
    scratch: bytes that it needs, for one call, in the arena.
    """

    name: str
    features: frozenset[str] = frozenset()
    suits: Callable[[Shape], bool] = lambda shape: True
    pack: Callable[[np.ndarray], np.ndarray] | None = None
    scratch: Callable[[Shape], int] = lambda shape: 0


@dataclass(frozen=True)
class Kernel:
    """What a kernel is called with. params: (C type, name) after the shape; pointers into the arena too.

    The C function is bnn_<name>_<variant> in kernels/<header>_<variant>.h; it takes the shape first and the row
    range last. A call has as many tensors for the parameter LIST as its shape has `inputs`. variants: the best first,
    "ref" last.
    """

    name: str
    header: str
    shape: type[Shape]
    params: tuple[tuple[str, str], ...]
    variants: tuple[Variant, ...]

    def variant(self, name: str) -> Variant:
        """Return the variant of that name."""
        return next(variant for variant in self.variants if variant.name == name)


def ungrouped(s: ConvShape) -> bool:
    """Every output channel reads every input channel."""
    return s.groups == 1


def depthwise(s: ConvShape) -> bool:
    """Every output channel reads one input channel."""
    return s.groups == s.in_c > 1


def fills_a_vector(s: PoolShape) -> bool:
    """The channels are at least 128 bits."""
    return s.channels * s.in_type >= 16  # in_type of a stream is its size in bytes


def window_elements(s: ConvShape) -> int:
    """Stream values of a window, filled up to a multiple of 4."""
    return pack.round_up(s.k_h * s.k_w * s.in_c, 4)


def window_words(s: ConvShape) -> int:
    """32-bit words of a packed window."""
    return s.k_h * s.k_w * words(s.in_c)


AFFINE = ("const bnn_affine *", "affine")
LEVEL = ("const int32_t *", "level")
SCRATCH = ("void *", "scratch")
STREAM_IN, STREAM_OUT = ("const void *", "in"), ("void *", "out")
BITS_IN, BITS_OUT = ("const uint32_t *", "in"), ("uint32_t *", "out")
LIST = ("const void *const *", "inputs")
COUNTS, INDEX = ("const int32_t *", "counts"), ("const int32_t *", "index")
PIXELS, SCORES = ("const uint8_t *", "in"), ("int32_t *", "scores")
ENCODE = (PIXELS, ("const int16_t *", "source"), ("const int16_t *", "value"), BITS_OUT)
INT8_W, BITS_W = ("const int8_t *", "w"), ("const uint32_t *", "w")

REF = Variant("ref")
DENSE_REF = Variant("ref", pack=pack.filters_first)

# Variants of both kernels of a header: with affine epilogue and with threshold.
CONV_VARIANTS = (
    Variant("neon", frozenset({"neon"}), ungrouped, pack.octets, lambda s: 4 * 2 * window_elements(s)),
    Variant(
        "cm4",
        frozenset({"dsp"}),
        ungrouped,
        pack.smlad_quads,
        lambda s: 4 * pack.round_up(s.out_c, 4) + 2 * window_elements(s),
    ),
    Variant("depthwise", frozenset(), depthwise, pack.taps_first),
    Variant(
        "gather",
        frozenset(),
        ungrouped,
        pack.filters_of_16,
        lambda s: 2 * pack.round_up(s.k_h * s.k_w * s.in_c, 16),
    ),
    Variant("ref", pack=pack.filters_first),
)
BCONV_VARIANTS = (
    Variant("neon", frozenset({"neon"}), ungrouped, pack.binary_quads, lambda s: 5 * 16 * -(-window_words(s) // 4)),
    Variant("cm4", frozenset({"cm4"}), ungrouped, pack.binary_filters, lambda s: 4 * (s.out_c + window_words(s))),
    Variant("x64", frozenset({"x64"}), ungrouped, pack.binary_filters, lambda s: 4 * (s.out_c + window_words(s))),
    Variant("ref", pack=pack.binary_filters),
)

KERNELS: dict[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        Kernel("conv2d", "conv2d", ConvShape, (STREAM_IN, INT8_W, AFFINE, STREAM_OUT, SCRATCH), CONV_VARIANTS),
        Kernel("conv2d_sign", "conv2d", ConvShape, (STREAM_IN, INT8_W, LEVEL, BITS_OUT, SCRATCH), CONV_VARIANTS),
        Kernel("bconv2d", "bconv2d", ConvShape, (BITS_IN, BITS_W, AFFINE, STREAM_OUT, SCRATCH), BCONV_VARIANTS),
        Kernel("bconv2d_sign", "bconv2d", ConvShape, (BITS_IN, BITS_W, LEVEL, BITS_OUT, SCRATCH), BCONV_VARIANTS),
        Kernel("quantize_input", "map", MapShape, (PIXELS, AFFINE, STREAM_OUT), (REF,)),
        Kernel("requantize", "map", MapShape, (STREAM_IN, AFFINE, STREAM_OUT), (REF,)),
        Kernel("binarize", "map", MapShape, (STREAM_IN, LEVEL, ("const uint32_t *", "flip"), BITS_OUT), (REF,)),
        Kernel(
            "unpack",
            "map",
            MapShape,
            (BITS_IN, ("const int16_t *", "low"), ("const int16_t *", "high"), STREAM_OUT),
            (REF,),
        ),
        Kernel(
            "add",
            "map",
            MapShape,
            (("const void *", "a"), ("const void *", "b"), ("int32_t", "lo"), ("int32_t", "hi"), STREAM_OUT),
            (Variant("neon", frozenset({"neon"})), REF),
        ),
        Kernel(
            "maxpool",
            "pool",
            PoolShape,
            (STREAM_IN, STREAM_OUT),
            (Variant("neon", frozenset({"neon"}), fills_a_vector), REF),
        ),
        Kernel("bmaxpool", "pool", PoolShape, (BITS_IN, BITS_OUT), (REF,)),
        Kernel("avgpool", "pool", PoolShape, (STREAM_IN, AFFINE, STREAM_OUT), (REF,)),
        Kernel(
            "dense",
            "dense",
            DenseShape,
            (STREAM_IN, INT8_W, ("const int32_t *", "bias"), SCORES),
            (DENSE_REF,),
        ),
        Kernel("scores", "element", DenseShape, (STREAM_IN, AFFINE, SCORES), (REF,)),
        Kernel(
            "mul",
            "element",
            MulShape,
            (("const void *", "a"), ("const void *", "b"), AFFINE, STREAM_OUT),
            (REF,),
        ),
        Kernel(
            "piecewise", "element", MapShape, (STREAM_IN, ("const int32_t *", "knot"), AFFINE, STREAM_OUT), (REF,)
        ),
        Kernel(
            "steps",
            "element",
            MapShape,
            (STREAM_IN, LEVEL, ("const int8_t *", "down"), ("int32_t", "cuts"), ("int32_t", "first"), STREAM_OUT),
            (REF,),
        ),
        Kernel("lookup", "element", MapShape, (STREAM_IN, ("const void *", "table"), STREAM_OUT), (REF,)),
        Kernel("concat", "move", MoveShape, (LIST, COUNTS, STREAM_OUT), (REF,)),
        Kernel("bconcat", "move", MoveShape, (LIST, COUNTS, BITS_OUT), (REF,)),
        Kernel("channels", "move", MoveShape, (STREAM_IN, INDEX, STREAM_OUT), (REF,)),
        Kernel("bchannels", "move", MoveShape, (BITS_IN, INDEX, BITS_OUT), (REF,)),
        Kernel("bflatten", "move", MoveShape, (BITS_IN, BITS_OUT), (REF,)),
        Kernel("thermometer", "encode", MoveShape, ENCODE, (REF,)),
        Kernel("bitplanes", "encode", MoveShape, ENCODE, (REF,)),
    )
}
