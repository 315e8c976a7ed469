# SPDX-License-Identifier: Apache-2.0
"""Runs ONNX models with onnxruntime. Needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from bnngen.errors import ModelError
from bnngen.export.config import ModelInfo, check_images, real_images
from bnngen.frontend import spelling
from bnngen.frontend.metadata import read_meta
from bnngen.frontend.proto import check_dialect, read_model

BATCH = 64


def run_onnx(path: str | Path, x: np.ndarray) -> np.ndarray:
    """Return onnxruntime's scores, float32 [N, classes], for images x, uint8 [N, H, W, C].

    path: a file that `bnngen export` wrote.
    Raises UsageError, ModelError for the file and DataError for the images.
    """
    path = Path(path)
    model, _ = read_model(path)
    check_dialect(model, path)
    meta = read_meta(model)
    dims = model.graph.input[0].type.tensor_type.shape.dim if model.graph.input else ()
    check_images(x, tuple(dim.dim_value for dim in dims)[1:], "images")
    info = ModelInfo("", (), (), meta.input_scale, meta.input_offset)
    parts = [values[0] for values in run_batches(model, real_images(x, info), [spelling.OUTPUT])]
    return np.concatenate(parts) if parts else np.zeros((0, len(meta.trained_classes)), np.float32)


def run_batches(
    model: onnx.ModelProto, images: np.ndarray, tensors: Sequence[str], batch: int = BATCH
) -> Iterator[list[np.ndarray]]:
    """Yield the named tensors for one batch of images, float32 [N, H, W, C], after the other."""
    run = runner(model, tensors)
    for start in range(0, len(images), batch):
        yield run(images[start : start + batch])


def runner(model: onnx.ModelProto, tensors: Sequence[str]) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Return the function that computes the named tensors of images, float32 [N, H, W, C].

    One thread and no graph optimizations: fusing a convolution with its batch norm would round
    otherwise than the file says, and threads would round otherwise on another machine.
    """
    session = _session(_with_outputs(model, tensors))
    return lambda images: session.run(list(tensors), {spelling.INPUT: images})


def _with_outputs(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """Return a copy of the model whose outputs are the named tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    float32 = onnx.TensorProto.FLOAT
    copy.graph.output.extend(onnx.helper.make_tensor_value_info(name, float32, None) for name in tensors)
    return copy


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base of their own
        raise ModelError(
            "onnxruntime refuses the model", why=str(error).splitlines()[0], fix="export the model again"
        ) from error
