# SPDX-License-Identifier: Apache-2.0
"""QONNX operators written out in standard ONNX, so that onnxruntime can run the file and one set of patterns suffices.

Definitions: QONNX 1.0, qonnx.custom_op.general (bipolar_quant, intquant, multithreshold). docs/other-onnx.md says how
these expansions were compared with the `qonnx` package.

    BipolarQuant(x, scale)               scale where x >= 0, otherwise -scale
    Quant(x, scale, zeropt, bitwidth)    (round(clip(x / scale + zeropt, least, most)) - zeropt) * scale; zeropt 0 here
    MultiThreshold(x, t [C, 1])          out_bias + out_scale * (x >= t[c])
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from bnngen.export.foreign.net import node_error

DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general", "qonnx.custom_op.channels_last")
MOST_BITS = 8


@dataclass
class Expansion:
    """The standard nodes of one QONNX node. constants: values of the file's tensors that do not depend on the image."""

    node: NodeProto
    constants: dict[str, np.ndarray]
    nodes: list[NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, part: str, value: np.ndarray | float) -> str:
        """Add an initializer; return its name."""
        name = f"{self.node.output[0]}/{part}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def step(self, op: str, inputs: list[str], part: str, **attributes: object) -> str:
        """Append a node; return its output. part "" is the last one, which writes the QONNX node's output."""
        output = f"{self.node.output[0]}/{part}" if part else self.node.output[0]
        name = f"{self.node.name or self.node.output[0]}/{part or 'out'}"
        self.nodes.append(helper.make_node(op, inputs, [output], name, **attributes))
        return output

    def known(self, index: int, what: str) -> np.ndarray:
        """Return the value of a constant input. Raises ModelError for a computed one."""
        name = self.node.input[index] if index < len(self.node.input) else ""
        if name not in self.constants:
            raise node_error(self.node, f"its {what} is not a constant", f"{what} as an initializer or a Constant")
        return self.constants[name].astype(np.float64)

    def attribute(self, name: str, default: object) -> object:
        """Return an attribute's value, strings decoded."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default


def to_standard(model: onnx.ModelProto, constants: dict[str, np.ndarray]) -> bool:
    """Replace the QONNX nodes of a model by standard ones, in place; return whether there were any.

    Raises ModelError for a node that has no such form.
    """
    nodes, found = [], False
    for node in model.graph.node:
        if node.domain not in DOMAINS:
            nodes.append(node)
            continue
        expand = EXPANSIONS.get(node.op_type)
        if expand is None:
            raise node_error(node, f"{node.op_type} of QONNX is not recognised", ", ".join(sorted(EXPANSIONS)))
        found, expansion = True, Expansion(node, constants)
        expand(expansion)
        nodes.extend(expansion.nodes)
        model.graph.initializer.extend(expansion.initializers)
    if found:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return found


def _bipolar_quant(e: Expansion) -> None:
    scale = e.known(1, "scale")
    if not (scale > 0).all():
        raise node_error(e.node, "a scale is not positive", "BipolarQuant(x, scale > 0)")
    _sign(e, e.node.input[0])
    e.step("Mul", [f"{e.node.output[0]}/sign", e.constant("scale", scale)], "")


def _sign(e: Expansion, x: str) -> None:
    """Larq's spelling of a sign that is +1 for 0; the last output is called sign."""
    first = e.step("Sign", [x], "first")
    lifted = e.step("Add", [first, e.constant("lift", 0.1)], "lifted")
    e.step("Sign", [lifted], "sign")


def _quant(e: Expansion) -> None:
    scale, zero, bits = (e.known(i, what) for i, what in ((1, "scale"), (2, "zero point"), (3, "bit width")))
    mode = str(e.attribute("rounding_mode", "ROUND")).upper()
    if zero.any() or bits.size != 1 or not (scale > 0).all():
        raise node_error(e.node, "zero points, several bit widths or scales that are not positive are not supported",
                         "Quant(x, scale > 0, zero point 0, one bit width)")
    width = float(bits.flat[0])
    if width != int(width) or not 1 <= width <= MOST_BITS or mode not in ("ROUND", "HALF_EVEN"):
        raise node_error(e.node, f"{width:g} bits, rounding {mode}", f"1 to {MOST_BITS} bits, rounding mode ROUND")
    signed, narrow = bool(e.attribute("signed", 1)), bool(e.attribute("narrow", 1))
    if width == 1 and signed:
        _bipolar_quant(e)
        return
    least, most = integer_range(int(width), signed, narrow)
    if least == most:
        raise node_error(e.node, f"{int(width)} bits in narrow range have one value only", "narrow=0")
    factor = e.constant("scale", scale)
    divided = e.step("Div", [e.node.input[0], factor], "divided")
    clipped = e.step("Clip", [divided, e.constant("least", least), e.constant("most", most)], "clipped")
    e.step("Mul", [e.step("Round", [clipped], "rounded"), factor], "")


def integer_range(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    """Return the least and the most integer of a QONNX Quant node."""
    if signed:
        return -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1
    return 0, 2**bits - 1 - narrow


def _multi_threshold(e: Expansion) -> None:
    levels = e.known(1, "threshold array")
    if levels.ndim != 2 or levels.shape[1] != 1:
        raise node_error(e.node, f"thresholds {list(levels.shape)}", "one threshold a channel, [C, 1] or [1, 1]",
                         "keep BipolarQuant and Quant nodes, of which MultiThreshold is made")
    if e.attribute("data_layout", "") not in ("", "NCHW", "NC"):
        raise node_error(e.node, "channels last", "data_layout NCHW")
    scale, bias = float(e.attribute("out_scale", 1.0)), float(e.attribute("out_bias", 0.0))
    count = len(levels)  # a batch norm finds the channel axis whatever the rank; a single threshold is for all
    if count == 1:
        shifted = e.step("Sub", [e.node.input[0], e.constant("threshold", levels[0])], "shifted")
    else:
        parts = {"gamma": np.ones(count), "beta": np.zeros(count), "mean": levels[:, 0], "variance": np.ones(count)}
        shifted = e.step("BatchNormalization", [e.node.input[0], *(e.constant(k, v) for k, v in parts.items())],
                         "shifted", epsilon=0.0)
    _sign(e, shifted)  # s = 2 * (x >= t) - 1, so bias + scale * (s + 1) / 2
    scaled = e.step("Mul", [f"{e.node.output[0]}/sign", e.constant("half", scale / 2)], "scaled")
    e.step("Add", [scaled, e.constant("bias", bias + scale / 2)], "")


EXPANSIONS: dict[str, Callable[[Expansion], None]] = {
    "BipolarQuant": _bipolar_quant,
    "IntQuant": _quant,
    "MultiThreshold": _multi_threshold,
    "Quant": _quant,
}
