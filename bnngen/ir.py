# SPDX-License-Identifier: Apache-2.0
"""The graph that everything between the frontend and the lowering speaks: a small closed set of typed ops.

A `Graph` is a list of nodes in execution order over named tensors. It exists at two stages:

    float    as imported: what the Keras model means; f32 tensors, and bits after each Sign
    integer  after `passes`: what the device computes; u8, bits, s8, s16 and s32 tensors only

Both can be executed by `interp.py`. Shapes carry no batch axis: [H, W, C] for maps, [C] for vectors.
Weights are [k_h, k_w, c_in / groups, c_out] (maps) and [c_in, c_out] (dense). A binary tensor or weight
holds +1 and -1; how it is packed is the business of `lower`. Arithmetic: docs/numerics.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

import numpy as np

from bnngen.errors import ModelError

Array = np.ndarray
FLOAT, BITS, U8, S8, S16, S32 = "f32", "bits", "u8", "s8", "s16", "s32"
STREAM_TYPES = (S8, S16)
TYPE_RANGE = {U8: (0, 255), S8: (-128, 127), S16: (-32768, 32767), S32: (-(2**31), 2**31 - 1)}


@dataclass(frozen=True)
class Tensor:
    """A named value.

    `scale` is set on integer tensors: real value = scale * stored integer, one scale for all channels or a
    tuple of one for each. A scale is never negative; 0 means that the channel's real value is always 0.
    `offset`, one or one a channel too, is not 0 for some 8-bit tensors: real value = scale * (stored integer + offset).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = FLOAT
    scale: float | tuple[float, ...] | None = None
    offset: float | tuple[float, ...] = 0.0

    @property
    def channels(self) -> int:
        return self.shape[-1]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def scales(self) -> Array:
        """The scale of every channel, float64 [C]; 1 where none is set."""
        return np.broadcast_to(np.float64(1.0 if self.scale is None else self.scale), (self.channels,))

    @property
    def offsets(self) -> Array:
        """The offset of every channel in steps, float64 [C]."""
        return np.broadcast_to(np.float64(self.offset), (self.channels,))

    @property
    def uniform_scale(self) -> float:
        """The one scale of all channels; 1 where none is set. Raises ModelError where they differ."""
        scales = self.scales
        if not (scales == scales[0]).all():
            raise ModelError(f"tensor {self.name} has one scale for each channel, a single one is needed")
        return float(scales[0])


# --------------------------------------------------------------------------------------------- ops


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
class Affine:
    """Integer epilogue: q = clamp((clamp(acc, acc_lo, acc_hi) * mult[c] + bias[c]) >> shift, lo, hi).

    `>>` is the arithmetic shift (floor); the rounding half is already inside `bias`. mult is int32 and
    bias int64, one per output channel; the products are exact (docs/numerics.md, "Affine").
    """

    mult: Array
    bias: Array
    shift: int
    lo: int
    hi: int
    acc_lo: int = -(2**31)
    acc_hi: int = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Threshold:
    """Binary epilogue: the output bit is 1 (value -1) exactly when (acc < level[c]) differs from flip[c]."""

    level: Array
    flip: Array


@dataclass(frozen=True, eq=False)
class Piecewise:
    """Two affine rules joined at a knot: below it `below`, from it on `above` (docs/numerics.md, "Piecewise").

    q = clamp((x * mult[c] + bias[c]) >> shift, lo, hi) with the mult and bias of `below` where x < knot[c], of
    `above` elsewhere. Both rules have the same shift, lo and hi, and no limits on the accumulator.
    """

    knot: Array
    below: Affine
    above: Affine


@dataclass(frozen=True, eq=False)
class Steps:
    """Quantizer of several levels: q = first + the number of cuts passed (docs/numerics.md, "Steps").

    level: integers [C, n], ascending in each row. Passed is every cut with acc >= level[c][i]; where down[c] is 1 the
    chain falls with the accumulator, and passed is every cut with acc < level[c][i].
    """

    level: Array
    down: Array
    first: int


Epilogue = Affine | Threshold | Piecewise | Steps


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
    [c_out] multiplies the result in the float stage (magnitude-aware kernels); None means 1.
    """

    weights: Array
    window: Window
    pad_value: int = 1
    groups: int = 1
    kernel_scale: Array | None = None
    epilogue: Epilogue | None = None


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


# ------------------------------------------------------------------------------------------- graph


@dataclass(frozen=True)
class Latent:
    """How the tensor at the cut becomes 1-bit latents, per channel, in real units (docs/numerics.md).

    An element below `threshold` is stored as bit 1 and read back as `low`, any other as bit 0, `high`.
    """

    tensor: str
    threshold: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class HeadInput:
    """Where the learned head is attached: the feature tensor, its calibrated range, most classes."""

    tensor: str
    lo: float
    hi: float
    capacity: int


@dataclass(frozen=True)
class ChannelRange:
    """What calibration saw of a real-valued tensor. Each field has one entry a channel, or one for all of them.

    lo, hi: smallest and largest value. clip: the absolute value at which an 8-bit tensor may saturate, as the
    calibration method chose it; empty where it chose none.
    """

    lo: tuple[float, ...]
    hi: tuple[float, ...]
    clip: tuple[float, ...] = ()

    @property
    def reach(self) -> Array:
        """The largest absolute value, float64, one entry a channel or one for all."""
        return np.maximum(np.abs(np.float64(self.lo)), np.abs(np.float64(self.hi)))


@dataclass(frozen=True)
class ModelMeta:
    """What the ONNX file's metadata says beside the graph.

    input_scale, input_offset: real input = scale * pixel + offset, pixel in 0..255.
    ranges: tensor name -> what calibration saw of it, for every real-valued tensor.
    """

    name: str
    classes: tuple[str, ...]
    trained_classes: tuple[int, ...]
    input_scale: float
    input_offset: float
    ranges: dict[str, ChannelRange] = field(default_factory=dict)
    latent: Latent | None = None
    head: HeadInput | None = None
    source: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order, their tensors, one image in, one score vector out."""

    nodes: tuple[Node, ...]
    tensors: dict[str, Tensor]
    input: str
    output: str
    meta: ModelMeta

    def producer(self, tensor: str) -> Node | None:
        """Return the node that writes `tensor`; None for the graph's input."""
        return next((node for node in self.nodes if node.output == tensor), None)

    def consumers(self, tensor: str) -> list[Node]:
        """Return the nodes that read `tensor`, in execution order."""
        return [node for node in self.nodes if tensor in node.inputs]

    def of_type(self, *kinds: type[Node]) -> Iterator[Node]:
        """Yield the nodes of the given kinds in execution order."""
        return (node for node in self.nodes if isinstance(node, kinds))


def verify(graph: Graph) -> None:
    """Raise ModelError unless every tensor is written once, before it is read, and has a known type."""
    written = {graph.input}
    for node in graph.nodes:
        for name in node.inputs:
            if name not in written:
                raise ModelError(f"tensor {name} is read before it is written", where=f"layer {node.name}")
        if node.output in written:
            raise ModelError(f"tensor {node.output} is written twice", where=f"layer {node.name}")
        written.add(node.output)
    missing = written - set(graph.tensors)
    if missing or graph.output not in written:
        raise ModelError(f"tensors without a description: {sorted(missing) or graph.output}")


def is_integer(graph: Graph) -> bool:
    """True when no float tensor is left."""
    return all(tensor.dtype != FLOAT for tensor in graph.tensors.values())


def to_text(graph: Graph) -> str:
    """Print the graph one node a line, for people and for tests that compare text."""
    lines = [f"graph {graph.meta.name}({_tensor_text(graph.tensors[graph.input])})"]
    for node in graph.nodes:
        extra = [f"{f.name}={_value_text(getattr(node, f.name))}" for f in fields(node)[3:]]
        call = f"{type(node).__name__}({', '.join(node.inputs)})"
        text = " ".join(part for part in extra if not part.endswith("=None"))
        lines.append(f"  {_tensor_text(graph.tensors[node.output])} = {call} {text}".rstrip())
    return "\n".join([*lines, f"  return {graph.output}", ""])


def _tensor_text(tensor: Tensor) -> str:
    return f"{tensor.name}: {tensor.dtype}[{','.join(map(str, tensor.shape))}]"


def _value_text(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"<{value.dtype}{list(value.shape)}>"
    if isinstance(value, Window):
        return f"{value.kernel}/{value.stride} pads {value.pads} dilation {value.dilation}"
    if isinstance(value, Affine):
        return f"Affine(>>{value.shift} [{value.lo},{value.hi}])"
    if isinstance(value, Threshold | Piecewise | Steps):
        return type(value).__name__
    return str(value)
