# SPDX-License-Identifier: Apache-2.0
"""The ONNX operators that the exporter writes, each with the function that checks a node and adds what it means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bnngen.errors import ModelError
from bnngen.frontend import convolutions, elements, moves, spelling
from bnngen.frontend.importer import Importer
from bnngen.frontend.proto import REEXPORT, Call

MANY = 1 << 10  # inputs of a Concat


@dataclass(frozen=True)
class Operator:
    """How an operator is read: the function, and its most inputs."""

    function: Callable[[Importer, Call], None]
    inputs: int = 1

    def read(self, importer: Importer, call: Call) -> None:
        """Add what the node means. Raises ModelError."""
        if len(call.inputs) > self.inputs:
            raise ModelError(f"the node has {len(call.inputs)} inputs", where=call.where, fix=REEXPORT)
        self.function(importer, call)


HARD_SIGMOID = {"alpha": float(np.float32(0.2)), "beta": 0.5}  # as Keras, and the defaults of ONNX

FUNCTIONS = {
    "Sign": Operator(elements.sign),
    "BinaryConv2D": Operator(convolutions.binary_conv2d, 2),
    "LatentConv2D": Operator(convolutions.latent_conv2d, 2),
    "Ternary": Operator(elements.ternary),
    "Heaviside": Operator(elements.heaviside),
    "UniformQuantize": Operator(elements.uniform_quantize),
    "DPRelu": Operator(elements.dp_relu, 3),
    "Swish": Operator(elements.unary("swish")),
    "Thermometer": Operator(moves.thermometer),
    "BitPlanes": Operator(moves.bit_planes),
}

OPERATORS = {
    **{f"{spelling.DOMAIN}.{name}": operator for name, operator in FUNCTIONS.items()},
    "Conv": Operator(convolutions.conv, 3),
    "Gemm": Operator(convolutions.gemm, 3),
    "BatchNormalization": Operator(convolutions.batch_norm, 5),
    "MaxPool": Operator(convolutions.max_pool),
    "AveragePool": Operator(convolutions.average_pool),
    "GlobalAveragePool": Operator(convolutions.global_average_pool),
    "Mul": Operator(elements.mul, 2),
    "Add": Operator(elements.add, 2),
    "Relu": Operator(elements.relu),
    "Clip": Operator(elements.clip, 3),
    "PRelu": Operator(elements.p_relu, 2),
    "Sigmoid": Operator(elements.unary("sigmoid")),
    "Tanh": Operator(elements.unary("tanh")),
    "HardSigmoid": Operator(elements.unary("hard_sigmoid", HARD_SIGMOID)),
    "HardSwish": Operator(elements.unary("hard_swish")),
    "Elu": Operator(elements.unary("elu", {"alpha": 1.0})),
    "Concat": Operator(moves.concat, MANY),
    "Gather": Operator(moves.gather, 2),
    "Pad": Operator(moves.pad, 3),
    "Transpose": Operator(moves.transpose),
    "Reshape": Operator(moves.reshape, 2),
    "Flatten": Operator(moves.flatten),
}
