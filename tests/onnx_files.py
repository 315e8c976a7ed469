# SPDX-License-Identifier: Apache-2.0
"""A small model.onnx with one of everything, built with onnx.helper: neither Keras nor onnxruntime takes part."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bnngen.frontend import spelling

RNG = np.random.default_rng(0)
KERNEL = {"pads": [0, 0, 1, 1], "strides": [2, 2], "dilations": [1, 1]}
WEIGHTS = {
    "stem/kernel": RNG.normal(0, 1, (4, 2, 3, 3)).astype(np.float32),
    "stem/bias": RNG.normal(0, 1, 4).astype(np.float32),
    "conv/kernel": RNG.choice([-1, 1], (6, 2, 3, 3)).astype(np.int8),
    "conv/kernel_scale": RNG.uniform(0.1, 1, (1, 6, 1, 1)).astype(np.float32),
    "conv/bias": RNG.normal(0, 1, (1, 6, 1, 1)).astype(np.float32),
    **{f"bn/{part}": RNG.uniform(0.5, 2, 6).astype(np.float32) for part in ("gamma", "beta", "mean", "variance")},
    "flat/shape": np.array([-1, 6], np.int64),
    "hidden/kernel": RNG.normal(0, 1, (6, 5)).astype(np.float32),
    "logits/kernel": RNG.normal(0, 1, (5, 3)).astype(np.float32),
    "logits/bias": RNG.normal(0, 1, 3).astype(np.float32),
}
RANGE = {"lo": [-1.5], "hi": [2], "clip": []}  # one entry stands for all channels


def node(op: str, inputs: str, output: str, name: str = "", **attributes: object) -> onnx.NodeProto:
    domain, _, op = op.rpartition(".")
    return helper.make_node(op, inputs.split(), [output], name or output, domain=domain, **attributes)


def small_nodes() -> list[onnx.NodeProto]:
    """One of everything: image [8, 8, 2] -> 3 scores."""
    return [
        node("Transpose", "image", "image/nchw", perm=[0, 3, 1, 2]),
        node("Conv", "image/nchw stem/kernel stem/bias", "stem", **KERNEL, group=1),
        node("bnngen.Sign", "stem", "conv/sign"),
        node(
            "bnngen.BinaryConv2D",
            "conv/sign conv/kernel",
            "conv/out",
            "conv",
            **KERNEL,
            group=2,
            pad_value=0.0,
        ),
        node("Mul", "conv/out conv/kernel_scale", "conv/scale"),
        node("Add", "conv/scale conv/bias", "conv", "conv/add_bias"),
        node("BatchNormalization", "conv bn/gamma bn/beta bn/mean bn/variance", "bn", epsilon=1e-3),
        node("Relu", "bn", "relu"),
        node("Add", "bn relu", "sum"),
        node("MaxPool", "sum", "max", kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("AveragePool", "max", "mean", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0]),
        node("GlobalAveragePool", "mean", "pool/out", "pool"),
        node("Flatten", "pool/out", "pool", "pool/flatten", axis=1),
        node("Transpose", "mean", "flat/nhwc", perm=[0, 2, 3, 1]),
        node("Reshape", "flat/nhwc flat/shape", "flat"),
        node("Add", "pool flat", "both"),
        node("Gemm", "both hidden/kernel", "hidden"),
        node("Gemm", "hidden logits/kernel logits/bias", "scores", "logits"),
    ]


def metadata(**changes: object) -> dict:
    ranges = [
        "image",
        "stem",
        "conv",
        "bn",
        "relu",
        "sum",
        "max",
        "mean",
        "pool",
        "flat",
        "both",
        "hidden",
        "scores",
    ]
    five = [0.0] * 5
    return {
        "schema": 2,
        "name": "small",
        "classes": ["a", "b", "c", "d"],
        "trained_classes": [2, 0, 1],
        "input": {"scale": 0.5, "offset": -1.0},
        "ranges": {name: RANGE for name in [*ranges, "pool/out"]},
        "latent": {"tensor": "hidden", "threshold": five, "low": five, "high": [1.0] * 5},
        "head": {"tensor": "hidden", "lo": 0, "hi": 3.5, "capacity": 10},
        "source": {"tool": "test"},
        **changes,
    }


def make_model(
    nodes: list[onnx.NodeProto] | None = None, meta: dict | str | None = None, **weights: np.ndarray
) -> onnx.ModelProto:
    """weights: replacements, the slash of a name written as two underscores."""
    changed = WEIGHTS | {name.replace("__", "/"): array for name, array in weights.items()}
    graph = helper.make_graph(
        small_nodes() if nodes is None else nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 8, 8, 2])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in changed.items()],
    )
    model = helper.make_model(graph, opset_imports=spelling.opset_imports(), functions=spelling.functions(),
                              ir_version=spelling.IR_VERSION)  # fmt: skip
    meta = metadata() if meta is None else meta
    helper.set_model_props(model, {"bnngen": meta if isinstance(meta, str) else json.dumps(meta)})
    return model


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def with_ranges(*names: str) -> dict:
    meta = metadata()
    return metadata(ranges=meta["ranges"] | dict.fromkeys(names, RANGE))
