# SPDX-License-Identifier: Apache-2.0
"""The ops: one dataclass each, its meaning in the docstring. The last five exist in the integer stage alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from bnngen.ir.epilogues import Affine, Epilogue, Piecewise, Steps, Threshold
from bnngen.ir.tensor import Array


@dataclass(frozen=True, eq=False)
class Node:
    """One operation. `name` is the layer's name in the user's model, and what messages speak of."""

    name: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window. `pads` is (top, left, bottom, right) in input pixels."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (out_h, out_w) of the window over an input of that size."""
        sizes = []
        for axis, size in enumerate((height, width)):
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            sizes.append((size + self.pads[axis] + self.pads[axis + 2] - reach) // self.stride[axis] + 1)
        return sizes[0], sizes[1]


@dataclass(frozen=True, eq=False)
class Conv2D(Node):
    """Convolution with real-valued weights. Float stage: of a real or a binary tensor, f32 weights and bias.
    Integer stage: of a stream, int8 weights and an epilogue. Positions outside the image are 0."""

    weights: Array
    window: Window
    groups: int = 1
    bias: Array | None = None
    epilogue: Epilogue | None = None


@dataclass(frozen=True, eq=False)
class BinaryConv2D(Node):
    """Convolution of a binary tensor with binary weights (int8 array of +1 and -1).

    `pad_value` is what is read outside the image: 1 (+1) or 0 (the tap does not count). `kernel_scale`
    [c_out] multiplies the result in the float stage (magnitude-aware kernels); None means 1. `latent`, int8 of the
    weights' shape, is what training kept behind their signs, 127 = 1.0 (docs/adr/0012): in the imported graph alone,
    and only in layers that a device may train.
    """

    weights: Array
    window: Window
    pad_value: int = 1
    groups: int = 1
    kernel_scale: Array | None = None
    epilogue: Epilogue | None = None
    latent: Array | None = field(default=None, metadata={"computes": False})


@dataclass(frozen=True, eq=False)
class Dense(Node):
    """[c_in] -> [c_out]. Integer stage: int8 weights, int32 bias, s32 output at one common scale."""

    weights: Array
    bias: Array | None = None


@dataclass(frozen=True, eq=False)
class BatchNorm(Node):
    """y = gamma * (x - mean) / sqrt(variance + epsilon) + beta, per channel; float stage only."""

    gamma: Array
    beta: Array
    mean: Array
    variance: Array
    epsilon: float


@dataclass(frozen=True, eq=False)
class Sign(Node):
    """x >= 0 gives +1, otherwise -1; sign(0) = +1. Float stage only: f32 -> bits."""


@dataclass(frozen=True, eq=False)
class Clip(Node):
    """min(max(x, lo), hi): ReLU as it stands, ReLU6, hard tanh. Float stage only."""

    lo: float = 0.0
    hi: float = float("inf")


@dataclass(frozen=True, eq=False)
class PRelu(Node):
    """x * negative[c] where x < 0, x * positive[c] elsewhere, f32 [C]; positive None is 1. Float stage only.

    With `positive` it is DPReLU; leaky ReLU has one slope for all channels.
    """

    negative: Array
    positive: Array | None = None


@dataclass(frozen=True, eq=False)
class Levels(Node):
    """A quantizer of more than two levels: y = step * (start + number of cuts passed). Float stage only.

    cuts: ascending, [n]. Cut i is passed where x >= cuts[i], or x > cuts[i] where closed[i] is 0. Ternary, heaviside
    and k-bit quantizers are of this form. The output is a real-valued tensor of few values.
    """

    cuts: Array
    closed: Array
    start: int
    step: float


@dataclass(frozen=True, eq=False)
class Unary(Node):
    """A smooth function of each element, by name in `UNARY`. Integer stage: a table of 256 entries for s8, of 257
    with linear interpolation for s16 (docs/numerics.md, "Tables"); input and output have one scale each."""

    kind: str
    table: Array | None = None


UNARY = ("sigmoid", "tanh", "hard_sigmoid", "swish", "hard_swish", "elu")


@dataclass(frozen=True, eq=False)
class Mul(Node):
    """Product of two tensors: of one shape, or a map [H, W, C] and a vector [C]. Integer stage: an epilogue on it."""

    epilogue: Affine | None = None


@dataclass(frozen=True, eq=False)
class Concat(Node):
    """The inputs' channels one behind the other; maps of one size, or vectors; all real or all binary."""


@dataclass(frozen=True, eq=False)
class Channels(Node):
    """Channel c of the output is channel index[c] of the input; -1 is 0 (real tensors only).

    Slices, splits, zero padding and shuffles of channels are of this form.
    """

    index: Array


@dataclass(frozen=True, eq=False)
class Encode(Node):
    """Pixels to bits, the first layer's input encoding: u8 image [H, W, C] -> bits [H, W, C'].

    Output channel c reads image channel source[c]. Thermometer (`planes` False): +1 where pixel >= value[c]. Bit planes
    (`planes` True): +1 where bit value[c] of the pixel is 1. The float stage recovers the pixel as
    round((x - offset) / scale).
    """

    source: Array
    value: Array
    planes: bool
    scale: float
    offset: float


@dataclass(frozen=True, eq=False)
class MaxPool(Node):
    """Largest value in the window; positions outside the image never win. On bits +1 wins."""

    window: Window


@dataclass(frozen=True, eq=False)
class AveragePool(Node):
    """Mean over the window; positions outside the image do not count.

    Integer stage: the epilogue is applied to sum * denominator / count, where count is the number of positions inside;
    denominator is a common multiple of all counts, and 0 where no window reaches outside: then to the sum itself.
    """

    window: Window
    epilogue: Affine | None = None
    denominator: int = 0


@dataclass(frozen=True, eq=False)
class GlobalAveragePool(Node):
    """[H, W, C] -> [C], the mean. Integer stage: epilogue applied to the sum."""

    epilogue: Affine | None = None


@dataclass(frozen=True, eq=False)
class Add(Node):
    """Sum of two tensors of one shape. Integer stage: equal scales, q = clamp(a + b, lo, hi)."""

    lo: int = -(2**31)
    hi: int = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Flatten(Node):
    """[H, W, C] -> [H * W * C] in that order; moves nothing."""


@dataclass(frozen=True, eq=False)
class Softmax(Node):
    """Float stage only; dropped, since it does not change which class wins."""


@dataclass(frozen=True, eq=False)
class Chain(Node):
    """Float stage, inside the passes only: nodes that become one kernel, each reading the one before.

    The first link may be anything that has an accumulator; the others are element-wise, and a Sign or Levels is last.
    """

    links: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class QuantizeInput(Node):
    """u8 pixels -> s8 or s16: the epilogue applied to the pixel. Integer stage only."""

    epilogue: Affine


@dataclass(frozen=True, eq=False)
class Requantize(Node):
    """s8 or s16 -> s8 or s16, per channel. Integer stage only."""

    epilogue: Affine | Piecewise | Steps


@dataclass(frozen=True, eq=False)
class Scores(Node):
    """s8 or s16 vector -> s32 scores, where the last layer is not a Dense. Integer stage only."""

    epilogue: Affine


@dataclass(frozen=True, eq=False)
class Binarize(Node):
    """s8 or s16 -> bits by a threshold per channel. Integer stage only."""

    epilogue: Threshold


@dataclass(frozen=True, eq=False)
class Unpack(Node):
    """bits -> s8 or s16: +1 becomes high[c], -1 becomes low[c]. Integer only.

    Rebuilds a replayed latent, and lets layers of the real-valued stream read a binary tensor (+1 and -1 as integers).
    """

    low: Array
    high: Array
