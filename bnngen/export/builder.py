# SPDX-License-Identifier: Apache-2.0
"""Collects ONNX nodes and weights while the layers of a model are walked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

import bnngen
from bnngen.frontend import spelling

SIGN = f"{spelling.DOMAIN}.Sign"
BINARY_CONV = f"{spelling.DOMAIN}.BinaryConv2D"
LATENT_CONV = "LatentConv2D"
TERNARY = f"{spelling.DOMAIN}.Ternary"
HEAVISIDE = f"{spelling.DOMAIN}.Heaviside"
UNIFORM_QUANTIZE = f"{spelling.DOMAIN}.UniformQuantize"
DP_RELU = f"{spelling.DOMAIN}.DPRelu"
SWISH = f"{spelling.DOMAIN}.Swish"
THERMOMETER = f"{spelling.DOMAIN}.Thermometer"
BIT_PLANES = f"{spelling.DOMAIN}.BitPlanes"
NO_PADS = (0, 0, 0, 0)

MAKE_BITS = ("Sign", "Thermometer", "BitPlanes")  # functions whose results are +1 and -1
MOVE_BITS = ("MaxPool", "Transpose", "Reshape", "Flatten", "Concat", "Gather")  # of bits they give bits


@dataclass(frozen=True)
class Value:
    """What a Keras tensor is in ONNX. shape: [H, W, C] of a map (stored channels first) or [C] of a vector.

    A sequence [L, C] is the map [L, 1, C]. binary: it holds +1 and -1; codes of a quantizer with more levels are real
    values. flat: Keras sees the map as its flattening; the name that the vector gets
    once a layer needs it as such. pads: zeros around it (top, left, bottom, right), which the next
    convolution takes.
    """

    tensor: str
    shape: tuple[int, ...]
    binary: bool = False
    flat: str = ""
    pads: tuple[int, int, int, int] = NO_PADS

    @property
    def is_map(self) -> bool:
        return len(self.shape) == 3


@dataclass(frozen=True)
class Step:
    """One ONNX node of a layer. part: its role, "" for the one that bears the layer's name.

    constants: further inputs, a name within the layer and an array for each. latent: of a binary convolution, what
    training kept behind the signs of its last constant, int8 of the same shape; None where that is not known.
    """

    part: str
    op: str
    constants: tuple[tuple[str, np.ndarray], ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    latent: np.ndarray | None = None


class GraphBuilder:
    """The ONNX graph so far. Tensors and nodes bear the names of the layers.

    shape: of one image, [H, W, C]; [L, C] becomes [L, 1, C]. real: the tensors that are real-valued, in order.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape if len(shape) == 3 else (shape[0], 1, shape[1])
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.real: list[str] = [spelling.INPUT]
        self._names = {spelling.INPUT, spelling.OUTPUT}
        self._node_names: set[str] = set()
        self._vectors: dict[str, Value] = {}
        self._points: dict[str, Value] = {}
        self._bits: set[str] = set()
        self._latents: dict[str, np.ndarray] = {}  # by the name of the constant that holds the signs

    def start(self) -> Value:
        """Enter the input and the transpose to channels first."""
        step = Step("nchw", "Transpose", attributes={"perm": spelling.TO_NCHW})
        return Value(self.chain(spelling.INPUT, [spelling.INPUT], [step], "image/nchw"), self.shape)

    def fresh(self, name: str) -> str:
        """Return `name`, or a variant of it that no tensor bears yet."""
        return _free(name, self._names)

    def chain(self, layer: str, inputs: Sequence[str], steps: Sequence[Step], output: str = "") -> str:
        """Append one node after the other; return the last output, named `output` or as the layer.

        inputs: of the first node, all computed ones. Outputs in between are named layer/part.
        """
        for step in steps:
            is_last = step is steps[-1]
            name = self.fresh((output or layer) if is_last else f"{layer}/{step.part or 'out'}")
            constants = [self._constant(f"{layer}/{part}", array) for part, array in step.constants]
            domain, _, op = step.op.rpartition(".")
            node_name = _free(f"{layer}/{step.part}" if step.part else layer, self._node_names)
            node = helper.make_node(op, [*inputs, *constants], [name], node_name, domain=domain, **step.attributes)
            self.nodes.append(node)
            if step.latent is not None:
                self._latents[constants[-1]] = step.latent
            self._note_kind(node, inputs)
            inputs = [name]
        return inputs[0]

    def is_binary(self, tensor: str) -> bool:
        """True for a tensor that holds +1 and -1."""
        return tensor in self._bits

    def _note_kind(self, node: NodeProto, computed: Sequence[str]) -> None:
        """Note whether the node's output is real or binary. computed: its inputs that are no constants."""
        makes = node.domain == spelling.DOMAIN and node.op_type in MAKE_BITS
        moves = node.op_type in MOVE_BITS and all(name in self._bits for name in computed)
        if makes or moves:
            self._bits.add(node.output[0])
        else:
            self.real.append(node.output[0])

    def vector(self, value: Value) -> Value:
        """Return the value as a vector [C] in the order height, width, channel; a map is flattened once."""
        if not value.is_map:
            return value
        if value.tensor not in self._vectors:
            size, name = int(np.prod(value.shape)), value.flat or f"{value.tensor}/vector"
            part = "flatten" if any(node.name == name for node in self.nodes) else ""
            steps = [
                Step("nhwc", "Transpose", attributes={"perm": spelling.TO_NHWC}),
                Step(part, "Reshape", (("shape", np.array([-1, size], np.int64)),)),
            ]
            if value.shape[:2] == (1, 1):
                steps = [Step("flatten", "Flatten", attributes={"axis": 1})]
            tensor = self.chain(name, [value.tensor], steps)
            self._vectors[value.tensor] = Value(tensor, (size,), value.binary)
        return self._vectors[value.tensor]

    def point(self, value: Value) -> Value:
        """Return a vector [C], or a map [1, 1, C], as the one pixel [N, C, 1, 1] that a product with a map takes."""
        value = self.vector(value)
        if value.tensor not in self._points:
            (channels,) = value.shape
            step = Step("point", "Reshape", (("point_shape", np.array([-1, channels, 1, 1], np.int64)),))
            tensor = self.chain(value.tensor, [value.tensor], [step], f"{value.tensor}/point")
            self._points[value.tensor] = Value(tensor, (1, 1, channels), value.binary)
        return self._points[value.tensor]

    def is_point(self, value: Value) -> bool:
        """True for a map of one pixel that was made from a vector."""
        return any(point.tensor == value.tensor for point in self._points.values())

    def resolved(self, value: Value) -> Value:
        """Return the vector of a flat map when some layer needed it, otherwise the value itself."""
        return self._vectors.get(value.tensor, value) if value.flat else value

    def finish(self, value: Value) -> Value:
        """Name the tensor of this value as the graph's output; return it."""
        node = next(node for node in self.nodes if node.output[0] == value.tensor)
        node.output[0] = spelling.OUTPUT
        self.real[self.real.index(value.tensor)] = spelling.OUTPUT
        return replace(value, tensor=spelling.OUTPUT)

    def keep_latents(self, cut: str) -> None:
        """Let the binary convolutions behind the tensor `cut` hold their latent weights in the place of the signs.

        cut: one that all behind it depends on alone. Layers whose latent weights nobody knows keep their signs.
        """
        first = next(i for i, node in enumerate(self.nodes) if node.output[0] == cut) + 1
        kept = {}
        for node in self.nodes[first:]:
            if node.op_type == "BinaryConv2D" and node.input[1] in self._latents:
                node.op_type = LATENT_CONV
                kept[node.input[1]] = self._latents[node.input[1]]
        for tensor in self.initializers:
            if tensor.name in kept:
                tensor.CopyFrom(numpy_helper.from_array(np.asarray(kept[tensor.name], order="C"), tensor.name))

    def model(self, name: str, classes: int) -> onnx.ModelProto:
        """Return the ONNX model, without metadata."""
        float32 = TensorProto.FLOAT
        used = {node.op_type for node in self.nodes if node.domain == spelling.DOMAIN}
        image = helper.make_tensor_value_info(spelling.INPUT, float32, ["N", *self.shape])
        scores = helper.make_tensor_value_info(spelling.OUTPUT, float32, ["N", classes])
        graph = helper.make_graph(self.nodes, name, [image], [scores], self.initializers)
        return helper.make_model(
            graph,
            opset_imports=spelling.opset_imports(),
            functions=spelling.functions(used),
            ir_version=spelling.IR_VERSION,
            producer_name="bnngen",
            producer_version=bnngen.__version__,
        )

    def _constant(self, name: str, array: np.ndarray) -> str:
        name = self.fresh(name)
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name


def _free(name: str, taken: set[str]) -> str:
    """Return `name`, or the first variant of it that is not taken, and take it."""
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate
