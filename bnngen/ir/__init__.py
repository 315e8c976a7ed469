# SPDX-License-Identifier: Apache-2.0
"""The graph that everything between the frontend and the lowering speaks: a small closed set of typed ops.

A `Graph` is a list of nodes in execution order over named tensors. It exists at two stages:

    float    as imported: what the Keras model means; f32 tensors, and bits after each Sign
    integer  after `passes`: what the device computes; u8, bits, s8, s16 and s32 tensors only

Both can be executed by `interp.py`. Shapes carry no batch axis: [H, W, C] for maps, [C] for vectors.
Weights are [k_h, k_w, c_in / groups, c_out] (maps) and [c_in, c_out] (dense). A binary tensor or weight
holds +1 and -1; how it is packed is the business of `lower`. Arithmetic: docs/numerics.md.
"""

from bnngen.ir.epilogues import (
    Affine,
    Epilogue,
    Piecewise,
    Steps,
    Threshold,
)
from bnngen.ir.graph import (
    Graph,
    is_integer,
    to_text,
    verify,
)
from bnngen.ir.meta import (
    ChannelRange,
    HeadInput,
    HeadMap,
    Latent,
    ModelMeta,
)
from bnngen.ir.ops import (
    UNARY,
    Add,
    AveragePool,
    BatchNorm,
    Binarize,
    BinaryConv2D,
    Chain,
    Channels,
    Clip,
    Concat,
    Conv2D,
    Dense,
    Encode,
    Flatten,
    GlobalAveragePool,
    Levels,
    MaxPool,
    Mul,
    Node,
    PRelu,
    QuantizeInput,
    Requantize,
    Scores,
    Sign,
    Softmax,
    Unary,
    Unpack,
    Window,
)
from bnngen.ir.tensor import (
    BITS,
    FLOAT,
    S8,
    S16,
    S32,
    STREAM_TYPES,
    TYPE_RANGE,
    U8,
    Array,
    Tensor,
)

__all__ = [
    "Add",
    "Affine",
    "Array",
    "AveragePool",
    "BITS",
    "BatchNorm",
    "Binarize",
    "BinaryConv2D",
    "Chain",
    "ChannelRange",
    "Channels",
    "Clip",
    "Concat",
    "Conv2D",
    "Dense",
    "Encode",
    "Epilogue",
    "FLOAT",
    "Flatten",
    "GlobalAveragePool",
    "Graph",
    "HeadInput",
    "HeadMap",
    "Latent",
    "Levels",
    "MaxPool",
    "ModelMeta",
    "Mul",
    "Node",
    "PRelu",
    "Piecewise",
    "QuantizeInput",
    "Requantize",
    "S16",
    "S32",
    "S8",
    "STREAM_TYPES",
    "Scores",
    "Sign",
    "Softmax",
    "Steps",
    "TYPE_RANGE",
    "Tensor",
    "Threshold",
    "U8",
    "UNARY",
    "Unary",
    "Unpack",
    "Window",
    "is_integer",
    "to_text",
    "verify",
]
