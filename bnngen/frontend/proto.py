# SPDX-License-Identifier: Apache-2.0
"""Reads protobufs with suspicion: a damaged file ends in one ModelError, not in a traceback."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import NodeProto, TensorProto, numpy_helper

from bnngen.errors import ModelError, UsageError
from bnngen.frontend import spelling

MAX_FILE_BYTES = 1 << 29  # far above any network that a small board runs
ELEMENT_TYPES = (TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT64)
REEXPORT = "export the model again: bnngen export model.keras"


@dataclass(frozen=True)
class Call:
    """One ONNX node, its attributes as Python values."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    @property
    def where(self) -> str:
        return f"node {self.name} ({self.op})"


def read_model(path: Path) -> tuple[onnx.ModelProto, str]:
    """Return the model and the file's SHA-256. Raises UsageError, ModelError."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}", fix="bnngen export model.keras writes model.onnx")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ModelError(
            f"{path.name} is larger than {MAX_FILE_BYTES >> 20} MiB",
            where=str(path),
            why="a network of that size is not one for a small board",
        )
    content = path.read_bytes()
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise _not_onnx(path) from error
    if not model.ir_version or not model.graph.node:
        raise _not_onnx(path)
    if not _is_text(model):
        raise damaged(str(path), "a name")
    return model, hashlib.sha256(content).hexdigest()


def _is_text(message: Message) -> bool:
    """True when every string field is text: protobuf hands out bytes where they are not UTF-8."""
    for field, value in message.ListFields():
        values = value if field.label == FieldDescriptor.LABEL_REPEATED else [value]
        if field.type == FieldDescriptor.TYPE_STRING and not all(isinstance(text, str) for text in values):
            return False
        if field.type == FieldDescriptor.TYPE_MESSAGE and not all(_is_text(part) for part in values):
            return False
    return True


def _not_onnx(path: Path) -> ModelError:
    return ModelError(
        f"{path.name} is not an ONNX file",
        where=str(path),
        why="it does not hold an ONNX graph, or was cut short",
        fix=REEXPORT,
    )


def check_dialect(model: onnx.ModelProto, path: Path) -> None:
    """Raise ModelError unless the file speaks the dialect of docs/design.md, in this version."""
    if not any(entry.key == spelling.METADATA_KEY for entry in model.metadata_props):
        raise ModelError(
            f"{path.name} was not written by bnngen export",
            where=str(path),
            why="class names, input scaling and calibrated ranges stand in the file's metadata, and other "
            f"tools do not write them (producer: {model.producer_name or 'unknown'})",
            fix=f"bnngen export {path.name}: it translates files of other tools, or export the Keras model",
        )
    versions = {entry.domain: entry.version for entry in model.opset_import}
    expected = {entry.domain: entry.version for entry in spelling.opset_imports()}
    if versions != expected:
        raise ModelError(
            f"{path.name} uses operator sets {versions}, this version reads {expected}",
            where=str(path),
            fix=REEXPORT,
        )
    known = {function.name: function.SerializeToString(deterministic=True) for function in spelling.functions()}
    found = {function.name: function.SerializeToString(deterministic=True) for function in model.functions}
    used = {node.op_type for node in model.graph.node if node.domain == spelling.DOMAIN} & set(known)
    wrong = {name for name in found if known.get(name) != found[name]} | (used - set(found))
    if wrong or len(found) != len(model.functions):
        raise ModelError(
            f"function {', '.join(sorted(wrong or found))} of {path.name} is not the one that this version knows",
            where=str(path),
            why="the meaning of a binary layer stands in that function",
            fix=REEXPORT,
        )


def read_call(node: NodeProto, position: int) -> Call:
    """Return the node with checked names and plain attributes."""
    name = node.name or f"#{position}"
    if node.domain not in ("", spelling.DOMAIN):
        raise ModelError(
            f"operator {node.domain}.{node.op_type} is not supported",
            where=f"node {name}",
            why="it is not one of ONNX's own",
            fix=REEXPORT,
        )
    attributes = {}
    for attribute in node.attribute:
        try:
            attributes[attribute.name] = onnx.helper.get_attribute_value(attribute)
        except ValueError as error:
            raise damaged(f"node {name}", f"attribute {attribute.name}") from error
    if len(node.output) != 1:
        raise damaged(f"node {name}", "its output")
    op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return Call(name, op, tuple(node.input), tuple(node.output), attributes)


def read_array(tensor: TensorProto) -> np.ndarray:
    """Return a weight or constant as an array; external files are refused, and so is what is not finite."""
    where = f"initializer {tensor.name}"
    if tensor.data_location == TensorProto.EXTERNAL:
        raise ModelError("weights in a file beside the model are not supported", where=where, fix=REEXPORT)
    if tensor.data_type not in ELEMENT_TYPES:
        raise damaged(where, "its element type")
    try:
        array = numpy_helper.to_array(tensor)
    except ValueError as error:  # fewer or more bytes than the shape wants
        raise damaged(where, "its data") from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ModelError("a weight is not a finite number", where=where, fix=REEXPORT)
    return array


def damaged(where: str, what: str) -> ModelError:
    """Return the error for a part of the file that cannot be what the exporter wrote."""
    return ModelError(f"the ONNX file is damaged: {what} cannot be read", where=where, fix=REEXPORT)
