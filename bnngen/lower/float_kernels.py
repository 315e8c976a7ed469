# SPDX-License-Identifier: Apache-2.0
"""The registry of float32 kernels. Apart from `kernels.py`, whose variants are held to equal bits: these equal the
float graph up to rounding, and have one variant each (docs/adr/0009-float32-reference.md)."""

from __future__ import annotations

from bnngen import ir
from bnngen.lower import pack
from bnngen.lower.kernels import (
    BITS_IN,
    BITS_OUT,
    BITS_W,
    COUNTS,
    INDEX,
    LIST,
    PIXELS,
    REF,
    SCORES,
    STREAM_IN,
    Kernel,
    Variant,
)
from bnngen.lower.shapes import ConvShape, DenseShape, MapShape, MoveShape, MulShape, PoolShape, Shape


def _real(name: str) -> tuple[str, str]:
    return "const float *", name


IN, OUT = _real("in"), ("float *", "out")
A, B = ("const void *", "a"), ("const void *", "b")  # real or packed, as is STREAM_IN here


def _kernel(name: str, header: str, shape: type[Shape], *params: tuple[str, str], variant: Variant = REF) -> Kernel:
    return Kernel(f"float_{name}", f"float_{header}", shape, params, (variant,))


FLOAT_KERNELS: dict[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        _kernel("conv2d", "conv", ConvShape, STREAM_IN, _real("w"), _real("bias"), OUT,
                variant=Variant("ref", pack=pack.filters_first)),
        _kernel("bconv2d", "conv", ConvShape, BITS_IN, BITS_W, _real("scale"), OUT,
                variant=Variant("ref", pack=pack.binary_filters)),
        _kernel("image", "map", MapShape, PIXELS, _real("real"), OUT),
        _kernel("norm", "map", MapShape, STREAM_IN, _real("mean"), _real("inverse"), _real("beta"), OUT),
        _kernel("clip", "map", MapShape, STREAM_IN, _real("limits"), OUT),
        _kernel("prelu", "map", MapShape, STREAM_IN, _real("negative"), _real("positive"), OUT),
        _kernel("levels", "map", MapShape, STREAM_IN, _real("cuts"), _real("levels"), ("int32_t", "count"), OUT),
        _kernel("sign", "map", MapShape, IN, BITS_OUT),
        _kernel("add", "map", MulShape, A, B, OUT),
        _kernel("mul", "map", MulShape, A, B, OUT),
        _kernel("scores", "map", DenseShape, IN, SCORES),
        *(_kernel(kind, "unary", MapShape, STREAM_IN, OUT) for kind in ir.UNARY),
        _kernel("maxpool", "pool", PoolShape, IN, OUT),
        _kernel("avgpool", "pool", PoolShape, STREAM_IN, OUT),
        _kernel("concat", "move", MoveShape, LIST, COUNTS, OUT),
        _kernel("channels", "move", MoveShape, IN, INDEX, OUT),
    )
}  # fmt: skip
