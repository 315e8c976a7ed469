# SPDX-License-Identifier: Apache-2.0
"""The metadata property `bnngen` of model.onnx as a ModelMeta, every field checked."""

from __future__ import annotations

import json
import sys
from typing import Any

import onnx

from bnngen.errors import ModelError
from bnngen.frontend import spelling
from bnngen.frontend.proto import REEXPORT
from bnngen.ir import FLOAT, ChannelRange, HeadInput, HeadMap, Latent, ModelMeta, Tensor

LARGEST = sys.float_info.max
WHERE = f"metadata property {spelling.METADATA_KEY}"


def read_meta(model: onnx.ModelProto) -> ModelMeta:
    """Return what the file says beside the graph. Raises ModelError where a field is missing or wrong."""
    text = next(entry.value for entry in model.metadata_props if entry.key == spelling.METADATA_KEY)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong("it is not JSON") from error
    if not isinstance(data, dict):
        raise _wrong("it is not an object")
    if data.get("schema") != spelling.METADATA_SCHEMA:
        raise _wrong(f"its schema is {data.get('schema')}, this version of bnngen reads {spelling.METADATA_SCHEMA}")
    image = _get(data, "input", dict)
    return ModelMeta(
        name=_get(data, "name", str),
        classes=tuple(_items(data, "classes", str)),
        trained_classes=tuple(_items(data, "trained_classes", int)),
        input_scale=_number(image, "scale"),
        input_offset=_number(image, "offset"),
        ranges={name: _range(data, name) for name, data in _get(data, "ranges", dict).items()},
        latent=_latent(data["latent"]) if data.get("latent") is not None else None,
        head=_head(data["head"]) if data.get("head") is not None else None,
        source={key: str(value) for key, value in _get(data, "source", dict).items()},
    )


def check_meta(meta: ModelMeta, tensors: dict[str, Tensor], output: str) -> None:
    """Raise ModelError unless the metadata speaks of this graph: names, sizes, class numbers."""
    if meta.input_scale <= 0:
        raise _wrong("input.scale is not positive")
    trained = set(meta.trained_classes)
    if len(trained) != len(meta.trained_classes) or not trained <= set(range(len(meta.classes))):
        raise _wrong("trained_classes are not distinct indices into classes")
    if tensors[output].size != len(trained):
        raise _wrong(f"the graph has {tensors[output].size} scores, trained_classes has {len(trained)} entries")
    missing = [t.name for t in tensors.values() if t.dtype == FLOAT and t.name not in meta.ranges]
    if missing:
        raise _wrong(f"no range for tensor {missing[0]}")
    for tensor in tensors.values():
        if tensor.dtype == FLOAT and len(meta.ranges[tensor.name].lo) not in (1, tensor.channels):
            raise _wrong(f"the range of {tensor.name} does not have {tensor.channels} channels, or one entry for all")
    if meta.latent is not None:
        channels = _tensor(tensors, meta.latent.tensor).channels
        if {len(meta.latent.threshold), len(meta.latent.low), len(meta.latent.high)} != {channels}:
            raise _wrong(f"latent does not have {channels} channels, as {meta.latent.tensor} has")
    if meta.head is not None:
        if len(_tensor(tensors, meta.head.tensor).shape) != 1:
            raise _wrong(f"head.tensor {meta.head.tensor} is not a vector")
        if meta.head.lo > meta.head.hi or meta.head.capacity < 2:
            raise _wrong("head has an empty range, or a capacity below 2")
        _check_map(meta.head, tensors[meta.head.tensor].size)


def _check_map(head: HeadInput, features: int) -> None:
    if head.map is None:
        return
    if len(head.map.mean) != features:
        raise _wrong(f"head.map.mean does not have {features} entries, as {head.tensor} has")
    if not head.map.lo <= 0 <= head.map.hi or head.map.lo == head.map.hi:
        raise _wrong("head.map has a range without 0, or an empty one")


def _latent(data: Any) -> Latent:
    if not isinstance(data, dict):
        raise _wrong("latent is not an object")
    columns = [
        tuple(_finite(v, f"latent.{key}") for v in _get(data, key, list)) for key in ("threshold", "low", "high")
    ]
    return Latent(_get(data, "tensor", str), *columns)


def _head(data: Any) -> HeadInput:
    if not isinstance(data, dict):
        raise _wrong("head is not an object")
    mapped = _head_map(data["map"]) if data.get("map") is not None else None
    place = _get(data, "tensor", str), _number(data, "lo"), _number(data, "hi"), _get(data, "capacity", int)
    return HeadInput(*place, mapped)


def _head_map(data: Any) -> HeadMap:
    if not isinstance(data, dict) or not isinstance(data.get("root"), bool):
        raise _wrong("head.map is not an object with a field root")
    mean = tuple(_finite(v, "head.map.mean") for v in _get(data, "mean", list))
    return HeadMap(data["root"], mean, _number(data, "lo"), _number(data, "hi"))


def _tensor(tensors: dict[str, Tensor], name: str) -> Tensor:
    if name not in tensors or tensors[name].dtype != FLOAT:
        raise _wrong(f"{name} is not a real-valued tensor of the graph")
    return tensors[name]


def _range(data: Any, name: str) -> ChannelRange:
    if not isinstance(data, dict):
        raise _wrong(f"the range of {name} is not an object")
    what = f"the range of {name}"
    lo, hi, clip = (tuple(_finite(v, what) for v in _get(data, key, list)) for key in ("lo", "hi", "clip"))
    if len(lo) != len(hi) or not lo or len(clip) not in (0, len(lo)):
        raise _wrong(f"lo, hi and clip of {name} differ in length")
    if any(low > high for low, high in zip(lo, hi, strict=True)):
        raise _wrong(f"{what} is empty")
    if any(value < 0 for value in clip):
        raise _wrong(f"clip of {name} is negative")
    return ChannelRange(lo, hi, clip)


def _get(data: dict[str, Any], key: str, kind: type) -> Any:
    value = data.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _wrong(f"field {key} is missing or not of type {kind.__name__}")
    return value


def _items(data: dict[str, Any], key: str, kind: type) -> list[Any]:
    values = _get(data, key, list)
    if not values or not all(isinstance(v, kind) and not isinstance(v, bool) for v in values):
        raise _wrong(f"field {key} is empty, or not all of type {kind.__name__}")
    return values


def _number(data: dict[str, Any], key: str) -> float:
    return _finite(data.get(key), key)


def _finite(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise _wrong(f"{what} is not a finite number")
    return float(value)


def _wrong(what: str) -> ModelError:
    return ModelError(f"the ONNX file's metadata cannot be used: {what}", where=WHERE, fix=REEXPORT)
