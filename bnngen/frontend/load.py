# SPDX-License-Identifier: Apache-2.0
"""model.onnx -> Graph, float stage: shapes of our own reckoning, channels last, layout moves gone."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import onnx
from onnx import TensorProto

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.frontend import proto, spelling
from bnngen.frontend.importer import NHWC, VECTOR, Importer, Value
from bnngen.frontend.metadata import check_meta, read_meta
from bnngen.frontend.operators import OPERATORS

MAX_NODES = 10_000


def load_onnx(path: str | Path) -> ir.Graph:
    """Return the graph of an ONNX file that `bnngen export` wrote.

    Raises UsageError where there is no such file, ModelError for everything that the file may hold
    and this version cannot read: the message names the node, why, and what to do.
    """
    path = Path(path)
    model, digest = proto.read_model(path)
    graph = _load(model, path)
    source = {**graph.meta.source, "onnx_sha256": digest}
    return dataclasses.replace(graph, meta=dataclasses.replace(graph.meta, source=source))


def _load(model: onnx.ModelProto, path: Path) -> ir.Graph:
    proto.check_dialect(model, path)
    meta = read_meta(model)
    importer = _start(model.graph, meta)
    for position, node in enumerate(model.graph.node):
        call = proto.read_call(node, position)
        if call.op not in OPERATORS:
            raise _unsupported(call)
        OPERATORS[call.op].read(importer, call)
    output = _output(model.graph, importer)
    check_meta(meta, importer.tensors, output)
    real = {tensor.name for tensor in importer.tensors.values() if tensor.dtype == ir.FLOAT}
    meta = dataclasses.replace(meta, ranges={n: pair for n, pair in meta.ranges.items() if n in real})
    graph = ir.Graph(tuple(importer.nodes), importer.tensors, spelling.INPUT, output, meta)
    ir.verify(graph)
    return graph


def _start(graph: onnx.GraphProto, meta: ir.ModelMeta) -> Importer:
    """Return an importer that holds the graph's input and its constants."""
    if len(graph.node) > MAX_NODES:
        raise ModelError(f"the graph has {len(graph.node)} nodes; at most {MAX_NODES} are read")
    if [value.name for value in graph.input] != [spelling.INPUT]:
        raise ModelError(
            f"the graph's inputs are {[value.name for value in graph.input]}, not {spelling.INPUT} alone",
            why="one image goes in",
            fix=proto.REEXPORT,
        )
    kind = graph.input[0].type.tensor_type
    shape = tuple(dim.dim_value for dim in kind.shape.dim)[1:]
    if kind.elem_type != TensorProto.FLOAT or len(shape) != 3:
        raise ModelError("the graph's input is not float32 [N, H, W, C]", where=spelling.INPUT, fix=proto.REEXPORT)
    if 0 in shape:  # a symbol, or nothing, instead of a number
        raise ModelError(
            f"the image's size is not fixed: {[size or 'any' for size in shape]}",
            where=spelling.INPUT,
            why="all memory is planned when code is generated",
            fix=proto.REEXPORT,
        )
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(part.tensor for part in (meta.latent, meta.head) if part is not None)
    uses[spelling.OUTPUT] += 1
    constants = {tensor.name: tensor for tensor in graph.initializer}
    importer = Importer(constants, uses, (meta.input_scale, meta.input_offset))
    importer.define(spelling.INPUT, ir.Tensor(spelling.INPUT, importer.checked(shape, spelling.INPUT)), NHWC)
    return importer


def _output(graph: onnx.GraphProto, importer: Importer) -> str:
    """Return the name of the score tensor."""
    if [value.name for value in graph.output] != [spelling.OUTPUT]:
        raise ModelError(
            f"the graph's outputs are {[value.name for value in graph.output]}, not {spelling.OUTPUT} alone",
            why="one score for each class comes out",
            fix=proto.REEXPORT,
        )
    value = importer.values.get(spelling.OUTPUT, Value("", ""))
    tensor = importer.tensors.get(value.tensor)
    if tensor is None or value.layout != VECTOR or tensor.dtype != ir.FLOAT:
        raise ModelError("the graph's output is not a real-valued vector", where=spelling.OUTPUT, fix=proto.REEXPORT)
    return tensor.name


def _unsupported(call: proto.Call) -> ModelError:
    return ModelError(
        f"operator {call.op} is not supported",
        where=call.where,
        why="it is not one of those that bnngen export writes: " + ", ".join(sorted(OPERATORS)),
        fix=proto.REEXPORT,
    )
