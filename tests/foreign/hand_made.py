# SPDX-License-Identifier: Apache-2.0
"""Writes small ONNX files node by node: spellings that no tool at hand produces, and QONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

QONNX = "qonnx.custom_op.general"
SHAPE = (3, 10, 10)  # channels first


class Hand:
    """A graph in the making, of input x [N, *shape]. Weights come from one generator: the same file every time."""

    def __init__(self, shape: tuple[int, ...] = SHAPE, seed: int = 7) -> None:
        self.shape = shape
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, value: object, kind: type = np.float32) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def weights(self, *shape: int) -> str:
        return self.constant(self.rng.uniform(-1, 1, shape))

    def signs(self, *shape: int, scale: object = 1.0) -> str:
        return self.constant(np.sign(self.rng.uniform(-1, 1, shape)) * np.asarray(scale))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: object) -> str:
        output = f"{kind.lower()}_{len(self.nodes)}"
        name = f"net/{output}/{kind}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name, domain=domain, **attributes))
        return output

    def sign(self, x: str) -> str:
        """Larq's sign."""
        return self.op("Sign", self.op("Add", self.op("Sign", x), self.constant(0.1)))

    def norm(self, x: str, channels: int) -> str:
        parts = [self.rng.uniform(0.5, 2, channels) * self.rng.choice([-1, 1], channels),
                 *self.rng.normal(0, 0.5, (2, channels)), self.rng.uniform(0.5, 2, channels)]
        return self.op("BatchNormalization", x, *(self.constant(part) for part in parts))

    def stem(self, channels: int = 16) -> str:
        return self.norm(self.op("Conv", "x", self.weights(channels, self.shape[0], 3, 3), pads=[1, 1, 1, 1]), channels)

    def head(self, x: str, channels: int, classes: int = 4) -> str:
        pooled = self.op("Flatten", self.op("GlobalAveragePool", x))
        return self.op("Gemm", pooled, self.weights(classes, channels), self.weights(classes), transB=1)

    def save(self, path: Path, output: str, batch: int | str = "N") -> Path:
        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *self.shape])
        scores = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "hand_made", [image], [scores], self.initializers)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
        return path


def bipolar(hand: Hand, x: str, scale: object = 1.0) -> str:
    return hand.op("BipolarQuant", x, hand.constant(scale), domain=QONNX)


def quant(hand: Hand, x: str, scale: object, bits: float, **attributes: object) -> str:
    attributes = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **attributes}
    zero, width = hand.constant(0.0), hand.constant(bits)
    return hand.op("Quant", x, hand.constant(scale), zero, width, domain=QONNX, **attributes)


def brevitas_like(hand: Hand) -> str:
    """What Brevitas writes of a small binary network: all quantizers explicit, weights too, channels first."""
    x = quant(hand, "x", 1 / 128, 8)
    x = hand.op("Conv", x, bipolar(hand, hand.weights(16, 3, 3, 3), 0.25), pads=[1, 1, 1, 1])
    x = bipolar(hand, hand.norm(x, 16))
    x = hand.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = hand.op("Conv", x, bipolar(hand, hand.weights(32, 16, 3, 3), hand.rng.uniform(0.1, 1, (32, 1, 1, 1))),
                pads=[1, 1, 1, 1])
    x = bipolar(hand, hand.norm(x, 32), 0.5)
    x = hand.op("Conv", x, bipolar(hand, hand.weights(8, 32, 3, 3)))
    x = quant(hand, hand.op("Relu", hand.norm(x, 8)), 0.125, 4, signed=0)
    x = hand.op("Reshape", x, hand.constant([-1, 72], np.int64))
    x = hand.op("MatMul", x, bipolar(hand, hand.weights(72, 24), 0.125))
    x = bipolar(hand, hand.norm(x, 24), 2.0)
    x = hand.op("Gemm", x, quant(hand, hand.weights(12, 24), 0.125, 4, narrow=1), transB=1)
    x = quant(hand, hand.norm(x, 12), 0.25, 3, narrow=1)
    x = hand.op("MatMul", x, quant(hand, hand.weights(12, 4), 0.25, 2, narrow=1))
    return hand.op("Mul", x, hand.constant(0.5))
