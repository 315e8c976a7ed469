# SPDX-License-Identifier: Apache-2.0
"""ONNX operators that move values: transposes, reshapes, channel lists; and the encodings of the image."""

from __future__ import annotations

import numpy as np

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.frontend import spelling
from bnngen.frontend.importer import ELEMENTWISE, NCHW, NHWC, POINT, POOLED, VECTOR, Importer, Value, attributes
from bnngen.frontend.proto import REEXPORT, Call

MOST_THRESHOLD, MOST_BIT = 256, 7  # no pixel reaches 256: the channel is always -1


def transpose(importer: Importer, call: Call) -> None:
    """Transpose between channels first and channels last: it disappears."""
    value, _ = importer.operand(call, 0, (NCHW, NHWC))
    order = tuple(attributes(call, {"perm": [0, 0, 0, 0]})["perm"])
    moves = {(NHWC, spelling.TO_NCHW): NCHW, (NCHW, spelling.TO_NHWC): NHWC}
    if (value.layout, order) not in moves:
        raise ModelError(
            f"a transpose by {order} is not supported",
            where=call.where,
            why="only moves between channels first and channels last disappear",
            fix=REEXPORT,
        )
    importer.alias(call.outputs[0], Value(value.tensor, moves[value.layout, order]))


def reshape(importer: Importer, call: Call) -> None:
    """[N, H, W, C] -> [N, H * W * C], ir.Flatten; or [N, C] -> [N, C, 1, 1], which disappears."""
    value, tensor = importer.operand(call, 0, (NHWC, VECTOR))
    attributes(call, {}, {"allowzero": 0})
    expected = [-1, tensor.size] if value.layout == NHWC else [-1, tensor.size, 1, 1]
    target = importer.constant(call, 1, np.int64, (None,)).tolist()
    if target != expected:
        raise ModelError(
            f"a reshape to {target} is not supported",
            where=call.where,
            why="only an image that becomes one vector is, and a vector that becomes one pixel",
            fix=REEXPORT,
        )
    if value.layout == VECTOR:
        importer.alias(call.outputs[0], Value(tensor.name, POINT))
        return
    importer.add(ir.Flatten(call.name, (tensor.name,), call.outputs[0]), (tensor.size,), VECTOR, tensor.dtype)


def flatten(importer: Importer, call: Call) -> None:
    """[N, C, 1, 1] -> [N, C]."""
    value, tensor = importer.operand(call, 0, (NCHW, POINT, POOLED))
    attributes(call, {}, {"axis": 1})
    if value.layout == POOLED:
        pool = ir.GlobalAveragePool(value.pool, (tensor.name,), call.outputs[0])
        importer.add(pool, (tensor.channels,), VECTOR)
        return
    if value.layout == NCHW and tensor.shape[:2] != (1, 1):
        raise ModelError(
            f"flattening {list(tensor.shape)} channels first is not supported",
            where=call.where,
            why="vectors are in the order height, width, channel",
            fix=REEXPORT,
        )
    node = ir.Flatten(call.name, (tensor.name,), call.outputs[0])
    importer.add(node, (tensor.channels,), VECTOR, tensor.dtype)


# ------------------------------------------------------------------------------------------ channels


def concat(importer: Importer, call: Call) -> None:
    """Concat along the channels -> ir.Concat."""
    axis = attributes(call, {"axis": 0})["axis"]
    value, first = importer.operand(call, 0, ELEMENTWISE)
    tensors = [first]
    for i in range(1, len(call.inputs)):
        tensors.append(importer.operand(call, i, (value.layout,), (first.dtype,))[1])
    if axis != 1 or any(tensor.shape[:-1] != first.shape[:-1] for tensor in tensors):
        raise ModelError(
            f"cannot join {', '.join(str(list(tensor.shape)) for tensor in tensors)} along axis {axis}",
            where=call.where,
            why="channels of maps of one size, or of vectors, are joined: axis 1",
            fix=REEXPORT,
        )
    shape = (*first.shape[:-1], sum(tensor.channels for tensor in tensors))
    node = ir.Concat(call.name, tuple(tensor.name for tensor in tensors), call.outputs[0])
    importer.add(node, shape, value.layout, first.dtype)


def gather(importer: Importer, call: Call) -> None:
    """Gather of channels by a constant list -> ir.Channels."""
    axis = attributes(call, {"axis": 0})["axis"]
    _, tensor = importer.operand(call, 0, ELEMENTWISE)
    index = importer.constant(call, 1, np.int64, (None,))
    if axis != 1 or index.min() < 0 or index.max() >= tensor.channels:
        raise ModelError(
            f"channels {index.min()} to {index.max()} of {tensor.channels} along axis {axis} cannot be taken",
            where=call.where,
            why=f"axis 1 has channels 0 to {tensor.channels - 1}",
            fix=REEXPORT,
        )
    _channels(importer, call, index)


def pad(importer: Importer, call: Call) -> None:
    """Pad of channels with zeros, of a real-valued tensor -> ir.Channels."""
    attributes(call, {}, {"mode": b"constant"})
    value, tensor = importer.operand(call, 0, ELEMENTWISE, (ir.FLOAT,))
    axes = 2 if value.layout == VECTOR else 4
    pads = importer.constant(call, 1, np.int64, (2 * axes,)).tolist()
    before, behind = pads[1], pads[axes + 1]
    others = [size for i, size in enumerate(pads) if i % axes != 1]
    if any(others) or min(before, behind) < 0 or _fill(importer, call) != 0:
        raise ModelError(
            f"pads {pads} are not supported",
            where=call.where,
            why="zeros before or behind the channels are; around an image a convolution or a pool pads",
            fix=REEXPORT,
        )
    importer.checked((tensor.channels + before + behind,), call.name)
    index = np.arange(tensor.channels, dtype=np.int64)
    _channels(importer, call, np.pad(index, (before, behind), constant_values=-1))


def _fill(importer: Importer, call: Call) -> float:
    given = len(call.inputs) > 2 and call.inputs[2]
    return float(importer.constant(call, 2, np.float32, ())) if given else 0.0


def _channels(importer: Importer, call: Call, index: np.ndarray) -> None:
    value, tensor = importer.operand(call, 0, ELEMENTWISE)
    node = ir.Channels(call.name, (tensor.name,), call.outputs[0], index)
    importer.add(node, (*tensor.shape[:-1], len(index)), value.layout, tensor.dtype)


# ----------------------------------------------------------------------------------------- the image


def thermometer(importer: Importer, call: Call) -> None:
    """bnngen.Thermometer of the image -> ir.Encode."""
    _encode(importer, call, MOST_THRESHOLD, planes=False)


def bit_planes(importer: Importer, call: Call) -> None:
    """bnngen.BitPlanes of the image -> ir.Encode."""
    _encode(importer, call, MOST_BIT, planes=True)


def _encode(importer: Importer, call: Call, most: int, planes: bool) -> None:
    _, tensor = importer.operand(call, 0)
    values = attributes(call, {"scale": 1.0, "offset": 0.0, "source": [], "value": []})
    source, value = values["source"], values["value"]
    if tensor.name != spelling.INPUT:
        raise ModelError("only the image can be encoded", where=call.where, why="it has pixels", fix=REEXPORT)
    if [values["scale"], values["offset"]] != [float(np.float32(number)) for number in importer.scaling]:
        raise ModelError(
            f"scale {values['scale']} and offset {values['offset']} are not those of the image, "
            f"{importer.scaling[0]} and {importer.scaling[1]}",
            where=call.where,
            why="the encoding recovers the pixel from the scaled image",
            fix="train the model with an encoding layer of the image's own scale and offset",
        )
    in_image, in_pixel = all(0 <= c < tensor.channels for c in source), all(0 <= v <= most for v in value)
    if not source or len(source) != len(value) or not in_image or not in_pixel:
        raise ModelError(
            f"source {source} and value {value} cannot be",
            where=call.where,
            why=f"for each output channel, one of {tensor.channels} image channels and a number up to {most}",
            fix=REEXPORT,
        )
    lists = (np.array(source, np.int64), np.array(value, np.int64))
    node = ir.Encode(call.name, (tensor.name,), call.outputs[0], *lists, planes, *importer.scaling)
    importer.add(node, (*tensor.shape[:2], len(source)), NCHW, ir.BITS)
