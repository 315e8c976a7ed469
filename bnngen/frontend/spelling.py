# SPDX-License-Identifier: Apache-2.0
"""How a binary network is spelled in ONNX: versions, names, and the model-local functions.

The exporter writes this and the frontend reads it; neither knows more of the other. The functions are built
from standard operators alone, so that any ONNX runtime executes the file as it is (docs/adr/0002). Maps are
[N, C, H, W], vectors [N, C]. Of domain `bnngen`:

    Sign(x)                                       +1 where x >= 0, otherwise -1
    BinaryConv2D(x, w; pads, pad_value, strides, dilations, group)    w int8 [O, I / group, kH, kW], +1 and -1
    LatentConv2D(x, w; as BinaryConv2D)           the same of w's signs: +1 where w >= 0, otherwise -1; w in -127..127
    Ternary(x; threshold)                         sign(sign(x + threshold) + sign(x - threshold)): -1, 0 or 1
    Heaviside(x)                                  1 where x > 0, otherwise 0
    UniformQuantize(x; steps)                     round(clip(x, 0, 1) * steps) / steps, ties to even
    DPRelu(x, negative, positive)                 x * negative where x < 0, otherwise x * positive; slopes [C, 1, 1],
                                                  or [C] for a vector
    Swish(x)                                      x * sigmoid(x)
    Thermometer(x; scale, offset, source, value)  output channel c: +1 where pixel of channel source[c] >= value[c]
    BitPlanes(x; scale, offset, source, value)    output channel c: +1 where bit value[c] of that pixel is 1

The last two read the image, pixel = round((x - offset) / scale). Attributes: pads (top, left, bottom, right),
strides, dilations, source, value are ints, group is an int, the others floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import onnx
from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper

OPSET = 17
IR_VERSION = 8  # the first that has model-local functions
DOMAIN = "bnngen"
DOMAIN_VERSION = 1

METADATA_KEY = "bnngen"
METADATA_SCHEMA = 2

INPUT = "image"
OUTPUT = "scores"

TO_NCHW = (0, 3, 1, 2)
TO_NHWC = (0, 2, 3, 1)


def opset_imports() -> list[onnx.OperatorSetIdProto]:
    """Return the operator sets that a file declares."""
    return [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]


def functions(names: Iterable[str] | None = None) -> list[FunctionProto]:
    """Return the functions of those names, sorted by name; None is all of them.

    A file carries the ones that it uses; the frontend refuses a file in which one differs.
    """
    chosen = sorted(FUNCTIONS) if names is None else sorted(set(names))
    return [FUNCTIONS[name]() for name in chosen]


def _sign() -> FunctionProto:
    """ONNX's own Sign gives 0 for 0, hence the comparison."""
    nodes = [
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Constant", [], ["plus"], value_float=1.0),
        helper.make_node("Constant", [], ["minus"], value_float=-1.0),
        helper.make_node("GreaterOrEqual", ["x", "zero"], ["is_plus"]),
        helper.make_node("Where", ["is_plus", "plus", "minus"], ["y"]),
    ]
    return _function("Sign", ["x"], nodes)


def _binary_conv2d() -> FunctionProto:
    """y = Conv(Pad(x, pads, pad_value), w), x [N, I, H, W] and w int8 [O, I/group, kH, kW], both +1 and -1."""
    return _convolution("BinaryConv2D", [helper.make_node("Cast", ["w"], ["weights"], to=TensorProto.FLOAT)])


def _latent_conv2d() -> FunctionProto:
    """BinaryConv2D of w's signs; w holds the weights that training left behind them (docs/adr/0012)."""
    nodes = [
        helper.make_node("Cast", ["w"], ["latent"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Constant", [], ["plus"], value_float=1.0),
        helper.make_node("Constant", [], ["minus"], value_float=-1.0),
        helper.make_node("GreaterOrEqual", ["latent", "zero"], ["is_plus"]),
        helper.make_node("Where", ["is_plus", "plus", "minus"], ["weights"]),
    ]
    return _convolution("LatentConv2D", nodes)


def _convolution(name: str, weights: Sequence[NodeProto]) -> FunctionProto:
    """Return the binary convolution whose `weights` are made by those nodes of w.

    pads is (top, left, bottom, right), as in ir.Window; Pad wants the begins of all axes, then the ends.
    """
    nodes = [
        *weights,
        _parameter("pads", "image_pads", "value_ints", AttributeProto.INTS),
        _parameter("pad_value", "fill", "value_float", AttributeProto.FLOAT),
        helper.make_node("Constant", [], ["none"], value_ints=[0, 0]),
        helper.make_node("Split", ["image_pads"], ["begin", "end"], axis=0),
        helper.make_node("Concat", ["none", "begin", "none", "end"], ["all_pads"], axis=0),
        helper.make_node("Pad", ["x", "all_pads", "fill"], ["padded"]),
        helper.make_node("Conv", ["padded", "weights"], ["y"]),
    ]
    for attribute, kind in (
        ("strides", AttributeProto.INTS),
        ("dilations", AttributeProto.INTS),
        ("group", AttributeProto.INT),
    ):
        _refer(nodes[-1], attribute, attribute, kind)
    return _function(name, ["x", "w"], nodes, ["pad_value", "pads", "strides", "dilations", "group"])


def _ternary() -> FunctionProto:
    """Zero exactly between the thresholds, both signs agreeing outside; at a threshold one of them is 0."""
    nodes = [
        _parameter("threshold", "t", "value_float", AttributeProto.FLOAT),
        helper.make_node("Add", ["x", "t"], ["above"]),
        helper.make_node("Sub", ["x", "t"], ["below"]),
        helper.make_node("Sign", ["above"], ["left"]),
        helper.make_node("Sign", ["below"], ["right"]),
        helper.make_node("Add", ["left", "right"], ["sum"]),
        helper.make_node("Sign", ["sum"], ["y"]),
    ]
    return _function("Ternary", ["x"], nodes, ["threshold"])


def _heaviside() -> FunctionProto:
    nodes = [
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Greater", ["x", "zero"], ["passed"]),
        helper.make_node("Cast", ["passed"], ["y"], to=TensorProto.FLOAT),
    ]
    return _function("Heaviside", ["x"], nodes)


def _uniform_quantize() -> FunctionProto:
    """ONNX's Round takes ties to even, as TensorFlow's does."""
    nodes = [
        _parameter("steps", "n", "value_float", AttributeProto.FLOAT),
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("Clip", ["x", "zero", "one"], ["clipped"]),
        helper.make_node("Mul", ["clipped", "n"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["code"]),
        helper.make_node("Div", ["code", "n"], ["y"]),
    ]
    return _function("UniformQuantize", ["x"], nodes, ["steps"])


def _dp_relu() -> FunctionProto:
    nodes = [
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Less", ["x", "zero"], ["is_negative"]),
        helper.make_node("Mul", ["x", "negative"], ["low"]),
        helper.make_node("Mul", ["x", "positive"], ["high"]),
        helper.make_node("Where", ["is_negative", "low", "high"], ["y"]),
    ]
    return _function("DPRelu", ["x", "negative", "positive"], nodes)


def _swish() -> FunctionProto:
    nodes = [helper.make_node("Sigmoid", ["x"], ["gate"]), helper.make_node("Mul", ["x", "gate"], ["y"])]
    return _function("Swish", ["x"], nodes)


def _thermometer() -> FunctionProto:
    nodes = [*_pixels(), helper.make_node("GreaterOrEqual", ["pixel", "values"], ["is_plus"]), *_plus_or_minus()]
    return _function("Thermometer", ["x"], nodes, ["scale", "offset", "source", "value"])


def _bit_planes() -> FunctionProto:
    """Bit v of a pixel is 1 where floor(pixel / 2^v) is odd."""
    nodes = [
        *_pixels(),
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Pow", ["two", "values"], ["weights"]),
        helper.make_node("Div", ["pixel", "weights"], ["quotients"]),
        helper.make_node("Floor", ["quotients"], ["shifted"]),
        helper.make_node("Mod", ["shifted", "two"], ["bit"], fmod=1),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Greater", ["bit", "half"], ["is_plus"]),
        *_plus_or_minus(),
    ]
    return _function("BitPlanes", ["x"], nodes, ["scale", "offset", "source", "value"])


def _pixels() -> list[NodeProto]:
    """`pixel` [N, C', H, W], channel c from channel source[c] of x, and `values` [C', 1, 1], both float."""
    return [
        _parameter("scale", "s", "value_float", AttributeProto.FLOAT),
        _parameter("offset", "o", "value_float", AttributeProto.FLOAT),
        _parameter("source", "channels", "value_ints", AttributeProto.INTS),
        _parameter("value", "integers", "value_ints", AttributeProto.INTS),
        helper.make_node("Sub", ["x", "o"], ["moved"]),
        helper.make_node("Div", ["moved", "s"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["rounded"]),
        helper.make_node("Gather", ["rounded", "channels"], ["pixel"], axis=1),
        helper.make_node("Cast", ["integers"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["column"], value_ints=[-1, 1, 1]),
        helper.make_node("Reshape", ["floats", "column"], ["values"]),
    ]


def _plus_or_minus() -> list[NodeProto]:
    return [
        helper.make_node("Constant", [], ["plus"], value_float=1.0),
        helper.make_node("Constant", [], ["minus"], value_float=-1.0),
        helper.make_node("Where", ["is_plus", "plus", "minus"], ["y"]),
    ]


def _function(
    name: str, inputs: Sequence[str], nodes: Sequence[NodeProto], attributes: Sequence[str] = ()
) -> FunctionProto:
    """Return the function `name` with the one output y."""
    imports = [helper.make_opsetid("", OPSET)]
    return helper.make_function(DOMAIN, name, inputs, ["y"], nodes, imports, attributes=attributes)


def _parameter(attribute: str, output: str, field: str, kind: int) -> NodeProto:
    """Return a Constant whose value is an attribute of the function call."""
    node = helper.make_node("Constant", [], [output])
    _refer(node, field, attribute, kind)
    return node


def _refer(node: NodeProto, field: str, attribute: str, kind: int) -> None:
    """Set `field` of the node to the function's attribute of that name."""
    reference = node.attribute.add()
    reference.name, reference.ref_attr_name, reference.type = field, attribute, kind


FUNCTIONS: dict[str, Callable[[], FunctionProto]] = {
    "Sign": _sign,
    "BinaryConv2D": _binary_conv2d,
    "LatentConv2D": _latent_conv2d,
    "Ternary": _ternary,
    "Heaviside": _heaviside,
    "UniformQuantize": _uniform_quantize,
    "DPRelu": _dp_relu,
    "Swish": _swish,
    "Thermometer": _thermometer,
    "BitPlanes": _bit_planes,
}
