# SPDX-License-Identifier: Apache-2.0
"""How a binary network is spelled in ONNX: versions, names, and the two model-local functions.

The exporter writes this and the frontend reads it; neither knows more of the other. The functions are built
from standard operators alone, so that any ONNX runtime executes the file as it is (docs/adr/0002).
"""

from __future__ import annotations

import onnx
from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper

OPSET = 17
IR_VERSION = 8  # the first that has model-local functions
DOMAIN = "bnngen"
DOMAIN_VERSION = 1

METADATA_KEY = "bnngen"
METADATA_SCHEMA = 1

INPUT = "image"
OUTPUT = "scores"

TO_NCHW = (0, 3, 1, 2)
TO_NHWC = (0, 2, 3, 1)


def opset_imports() -> list[onnx.OperatorSetIdProto]:
    """Return the operator sets that a file declares."""
    return [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]


def functions() -> list[FunctionProto]:
    """Return the functions that every file carries; the frontend refuses a file in which they differ."""
    return [_sign(), _binary_conv2d()]


def _sign() -> FunctionProto:
    """y = +1 where x >= 0, otherwise -1. ONNX's own Sign gives 0 for 0, hence the comparison."""
    nodes = [
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Constant", [], ["plus"], value_float=1.0),
        helper.make_node("Constant", [], ["minus"], value_float=-1.0),
        helper.make_node("GreaterOrEqual", ["x", "zero"], ["is_plus"]),
        helper.make_node("Where", ["is_plus", "plus", "minus"], ["y"]),
    ]
    return helper.make_function(DOMAIN, "Sign", ["x"], ["y"], nodes, [helper.make_opsetid("", OPSET)])


def _binary_conv2d() -> FunctionProto:
    """y = Conv(Pad(x, pads, pad_value), w), x [N, I, H, W] and w int8 [O, I/group, kH, kW], both +1 and -1.

    pads is (top, left, bottom, right), as in ir.Window; Pad wants the begins of all axes, then the ends.
    """
    nodes = [
        helper.make_node("Cast", ["w"], ["weights"], to=TensorProto.FLOAT),
        _parameter("pads", "image_pads", "value_ints", AttributeProto.INTS),
        _parameter("pad_value", "fill", "value_float", AttributeProto.FLOAT),
        helper.make_node("Constant", [], ["none"], value_ints=[0, 0]),
        helper.make_node("Split", ["image_pads"], ["begin", "end"], axis=0),
        helper.make_node("Concat", ["none", "begin", "none", "end"], ["all_pads"], axis=0),
        helper.make_node("Pad", ["x", "all_pads", "fill"], ["padded"]),
        helper.make_node("Conv", ["padded", "weights"], ["y"]),
    ]
    for name, kind in (
        ("strides", AttributeProto.INTS),
        ("dilations", AttributeProto.INTS),
        ("group", AttributeProto.INT),
    ):
        _refer(nodes[-1], name, name, kind)
    attributes = ["pad_value", "pads", "strides", "dilations", "group"]
    return helper.make_function(
        DOMAIN,
        "BinaryConv2D",
        ["x", "w"],
        ["y"],
        nodes,
        [helper.make_opsetid("", OPSET)],
        attributes=attributes,
    )


def _parameter(attribute: str, output: str, field: str, kind: int) -> NodeProto:
    """Return a Constant whose value is an attribute of the function call."""
    node = helper.make_node("Constant", [], [output])
    _refer(node, field, attribute, kind)
    return node


def _refer(node: NodeProto, field: str, attribute: str, kind: int) -> None:
    """Set `field` of the node to the function's attribute of that name."""
    reference = node.attribute.add()
    reference.name, reference.ref_attr_name, reference.type = field, attribute, kind
