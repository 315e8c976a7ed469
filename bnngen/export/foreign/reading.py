# SPDX-License-Identifier: Apache-2.0
"""Reads a foreign ONNX file: checks its ends, folds what does not depend on the image, and runs it in onnxruntime.

Shapes and constants come from one run of the file itself over an arbitrary image: no other inference agrees with the
runtime as surely, and constant subgraphs (transposed weights, shapes put together at run time) need no evaluator.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
from onnx import TensorProto, numpy_helper

from bnngen.errors import ModelError, UsageError
from bnngen.export.foreign import qonnx
from bnngen.export.foreign.net import node_error
from bnngen.frontend import spelling

PROBE_BATCH = 2  # tells the batch axis from axes of one
BATCH = 64
STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class ForeignFile:
    """A file as read. model: in standard operators; shapes: with batch axis, of every tensor that was computed.

    constants: every tensor that does not depend on the image. shape: of the input, without the batch axis; batch: the
    fixed size of the batch, 0 where it is free. rewritten: QONNX nodes were written out in standard ones.
    """

    path: Path
    model: onnx.ModelProto
    input: str
    output: str
    shape: tuple[int, ...]
    batch: int
    shapes: dict[str, tuple[int, ...]]
    constants: dict[str, np.ndarray]
    rewritten: bool

    def run(self, images: np.ndarray, tensor: str) -> Iterator[np.ndarray]:
        """Yield a tensor's value for batches of images, which have the file's own axes, float32."""
        session = _session(self.model, [tensor])
        step = self.batch or BATCH
        for start in range(0, len(images), step):
            part = images[start : start + step]
            filled = np.concatenate([part, np.repeat(part[-1:], step - len(part), axis=0)]) if self.batch else part
            yield session.run([tensor], {self.input: filled})[0][: len(part)]


def read_file(path: Path) -> ForeignFile:
    """Return the file. Raises UsageError for no file, ModelError for one that is not understood."""
    model = _load(path)
    graph = model.graph
    given = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in given]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ModelError(
            f"the file has {len(inputs)} inputs and {len(graph.output)} outputs",
            where=str(path),
            why="one image in, one vector of scores out is what is translated",
            fix="export the part of the model that has one input and one output",
        )
    shape, batch = _input_shape(inputs[0], path)
    rewritten = qonnx.to_standard(model, _plain_constants(model))
    _check_operators(model)
    for value in graph.value_info[:]:  # sizes written by another tool, maybe for another batch
        graph.value_info.remove(value)
    shapes, constants = _probe(model, inputs[0].name, (batch or PROBE_BATCH, *shape), path)
    return ForeignFile(path, model, inputs[0].name, graph.output[0].name, shape, batch, shapes, constants, rewritten)


def _load(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise UsageError(f"there is no file {path}", fix="name an ONNX file")
    try:
        model = onnx.load(path)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the weights of {path.name} are missing", where=str(path), why=str(error).splitlines()[0],
                         fix="they lie in a file of their own: put it beside the ONNX file under the name it had "
                         "when both were written, or write the model as one file") from error
    except Exception as error:  # protobuf and onnx have no common base
        raise ModelError(f"{path.name} is not an ONNX file", where=str(path),
                         why=(str(error).splitlines() or [type(error).__name__])[0],
                         fix="write it again with tf2onnx or torch.onnx") from error
    if any(entry.key == spelling.METADATA_KEY for entry in model.metadata_props):
        raise ModelError(f"{path.name} was written by bnngen", where=str(path), why="there is nothing to translate",
                         fix=f"bnngen build {path.name}")
    if not model.graph.node:
        raise ModelError(f"{path.name} has no nodes", where=str(path), fix="write it again with tf2onnx or torch.onnx")
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _input_shape(value: onnx.ValueInfoProto, path: Path) -> tuple[tuple[int, ...], int]:
    """Return the input's shape without the batch axis, and the batch size, 0 where it is free."""
    kind = value.type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim]
    is_float = kind.elem_type == TensorProto.FLOAT
    if not is_float or len(dims) not in (3, 4) or not all(size > 0 for size in dims[1:]):
        names = ", ".join(str(dim.dim_value or dim.dim_param or "?") for dim in kind.shape.dim)
        raise ModelError(
            f"the input {value.name} is {TensorProto.DataType.Name(kind.elem_type).lower()} [{names}]",
            where=str(path),
            why="an image is float, [N, H, W, C] or [N, C, H, W], a sequence [N, L, C] or [N, C, L], with fixed sizes",
            fix=_input_fix(is_float, len(dims)),
        )
    return tuple(dims[1:]), max(dims[0], 0)


def _input_fix(is_float: bool, rank: int) -> str:
    """Return what helps with an input that cannot be."""
    if not is_float:
        return "write the model with a float32 input, without the Cast behind it; pixels are scaled by --input-scale"
    if rank == 2:
        return "write the model with an input [N, 1, 1, C], or [N, 1, C], behind it the Flatten"
    return "export with a fixed input shape, for example tf2onnx --inputs image:0[1,224,224,3]"


def _check_operators(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.domain not in STANDARD:
            raise node_error(node, f"operators of domain {node.domain} are not recognised",
                             f"standard ONNX operators, or QONNX's {', '.join(sorted(qonnx.EXPANSIONS))}")
        if not onnx.defs.has(node.op_type):
            raise node_error(node, f"{node.op_type} is no operator of ONNX", "standard ONNX operators",
                             "the tool that wrote the file could not convert this layer: tf2onnx, for example, writes "
                             "PartitionedCall for a Conv2D with groups; split, convolve and concatenate instead")


def _plain_constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return initializers and the values of Constant nodes."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in STANDARD and len(node.attribute) == 1:
            value = onnx.helper.get_attribute_value(node.attribute[0])
            is_tensor = isinstance(value, TensorProto)
            values[node.output[0]] = numpy_helper.to_array(value) if is_tensor else np.asarray(value)
    return values


def _probe(
    model: onnx.ModelProto, name: str, shape: tuple[int, ...], path: Path
) -> tuple[dict[str, tuple[int, ...]], dict[str, np.ndarray]]:
    """Run the file over an arbitrary image; return the shapes of all tensors, and all that are constant."""
    image = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
    outputs = [output for node in model.graph.node for output in node.output if output]
    try:
        values = dict(zip(outputs, _session(model, outputs).run(outputs, {name: image}), strict=True))
    except ModelError:
        raise
    except Exception as error:  # onnxruntime's errors have no common base of their own
        raise _refused(path, error) from error
    fixed = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Shape", "Size", "Constant") or all(n in fixed for n in node.input if n):
            fixed.update(node.output)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    constants.update({key: value for key, value in values.items() if key in fixed})
    for key, value in constants.items():
        if value.dtype.kind == "f" and np.isnan(value).any():
            raise ModelError(f"constant {key} holds NaN", where=_reader_of(model, key, path),
                             why="nothing can be computed with it",
                             fix="train again with a smaller learning rate")
    return {name: shape, **{key: value.shape for key, value in values.items()}}, constants


def _reader_of(model: onnx.ModelProto, constant: str, path: Path) -> str:
    """Return the node that reads a constant, for an error; the file where none does."""
    node = next((node for node in model.graph.node if constant in node.input), None)
    return str(path) if node is None else f"node {node.name or node.output[0]} ({node.op_type}) of {path.name}"


def _session(model: onnx.ModelProto, outputs: list[str]) -> onnxruntime.InferenceSession:
    """One thread, no optimizations: the file is executed as it says."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base of their own
        raise _refused(Path(model.graph.name or "model"), error) from error


def _refused(path: Path, error: Exception) -> ModelError:
    return ModelError("onnxruntime refuses the file", where=str(path), why=str(error).splitlines()[0],
                      fix="check it with onnx.checker.check_model, and write it again")
