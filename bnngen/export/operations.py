# SPDX-License-Identifier: Apache-2.0
"""TensorFlow operations between Keras layers (x + y, tf.nn.relu(x), x[..., :8], tf.concat, ...): one function each.

Keras wraps them as layers with a `symbol`, the operation's name; their arguments stand in the site.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from bnngen.errors import ModelError
from bnngen.export.activations import activate, negative_slope
from bnngen.export.builder import Value
from bnngen.export.elementwise import INFINITY, add, line, multiply, subtract
from bnngen.export.pooling import global_average, global_max, pool
from bnngen.export.shapes import gather, join, pad_channels, padded, reshaped, transposed, whole_channels
from bnngen.export.site import Operand, Site, clip, with_zeros


def operation(site: Site, values: list[Value]) -> Value:
    """Append a TensorFlow operation. Raises ModelError for one that is not in the table."""
    symbol = site.layer.symbol
    name = symbol.removeprefix("compat.v1.")
    if name not in OPERATIONS:
        raise _unsupported(site, f"operation {symbol} is not supported")
    if name not in MOVES:
        values = [with_zeros(site, whole_channels(site, value)) for value in values]
    return OPERATIONS[name](site, values)


def _unsupported(site: Site, message: str) -> ModelError:
    return site.error(
        message,
        why="`bnngen operators` lists the operations and layers that are supported",
        fix="express it by these",
    )


def argument(site: Site, place: int, name: str, default: Any = None) -> Any:
    """Return an argument of the operation, given by place or by name."""
    args, kwargs = site.arguments.args, site.arguments.kwargs
    value = args[place] if place < len(args) else kwargs.get(name, default)
    return value.numpy() if tf.is_tensor(value) else value


def constant(site: Site, place: int, name: str) -> np.ndarray:
    """Return an argument that is a constant. Raises ModelError where it is computed."""
    value = argument(site, place, name)
    if isinstance(value, Operand) or value is None:
        raise _unsupported(site, f"{name} of {site.layer.symbol} is not a constant")
    return np.asarray(value, np.float32)


# ------------------------------------------------------------------------------------------ arithmetic


def _two(site: Site, values: list[Value]) -> tuple[Any, Any]:
    """Return the operands x and y: values, or constants."""
    sides = (argument(site, 0, "x"), argument(site, 1, "y"))
    return tuple(values[side.index] if isinstance(side, Operand) else side for side in sides)


def _add(site: Site, values: list[Value]) -> Value:
    x, y = _two(site, values)
    if isinstance(x, Value) and isinstance(y, Value):
        return add(site, [x, y])
    return line(site, x, 1.0, y) if isinstance(x, Value) else line(site, y, 1.0, x)


def _subtract(site: Site, values: list[Value]) -> Value:
    x, y = _two(site, values)
    if isinstance(x, Value) and isinstance(y, Value):
        return subtract(site, [x, y])
    return line(site, x, 1.0, -np.float32(y)) if isinstance(x, Value) else line(site, y, -1.0, x)


def _multiply(site: Site, values: list[Value]) -> Value:
    x, y = _two(site, values)
    if isinstance(x, Value) and isinstance(y, Value):
        return multiply(site, [x, y])
    return line(site, x, y, 0.0) if isinstance(x, Value) else line(site, y, x, 0.0)


def _divide(site: Site, values: list[Value]) -> Value:
    x, _ = _two(site, values)
    if not isinstance(x, Value):
        raise _unsupported(site, "a division by a computed tensor is not supported")
    return line(site, x, 1 / constant(site, 1, "y"), 0.0)


def _add_n(site: Site, values: list[Value]) -> Value:
    return add(site, values)


def _bias_add(site: Site, values: list[Value]) -> Value:
    return line(site, values[0], 1.0, constant(site, 1, "bias"))


def _negative(site: Site, values: list[Value]) -> Value:
    return line(site, values[0], -1.0, 0.0)


def _square(site: Site, values: list[Value]) -> Value:
    return multiply(site, [values[0], values[0]])


# ------------------------------------------------------------------------------------------ functions


def _function(function: Any) -> Callable[[Site, list[Value]], Value]:
    return lambda site, values: activate(site, values, function)


def _abs(site: Site, values: list[Value]) -> Value:
    return site.emit(values, [negative_slope("", values[0], -1.0)])


def _leaky_relu(site: Site, values: list[Value]) -> Value:
    return site.emit(values, [negative_slope("", values[0], float(argument(site, 1, "alpha", 0.2)))])


def _clip(site: Site, values: list[Value]) -> Value:
    low, high = constant(site, 1, "clip_value_min"), constant(site, 2, "clip_value_max")
    return _limited(site, values[0], low, high)


def _maximum(site: Site, values: list[Value]) -> Value:
    return _limited(site, values[0], _other(site), np.float32(INFINITY))


def _minimum(site: Site, values: list[Value]) -> Value:
    return _limited(site, values[0], np.float32(-INFINITY), _other(site))


def _other(site: Site) -> np.ndarray:
    """Return the constant of x and y, of which one is computed."""
    is_second = isinstance(argument(site, 0, "x"), Operand)
    return constant(site, 1, "y") if is_second else constant(site, 0, "x")


def _limited(site: Site, value: Value, low: np.ndarray, high: np.ndarray) -> Value:
    if low.size > 1 or high.size > 1:
        raise _unsupported(site, "limits that differ from channel to channel are not supported")
    return site.emit([value], [clip("", float(low), float(high))])


def _identity(site: Site, values: list[Value]) -> Value:
    return values[0]


def _cast(site: Site, values: list[Value]) -> Value:
    dtype = tf.as_dtype(argument(site, 1, "dtype"))
    if dtype not in (tf.float32, tf.float64):
        raise _unsupported(site, f"a cast to {dtype.name} is not supported")
    return values[0]


# ---------------------------------------------------------------------------------------- moves, joins


def _concat(site: Site, values: list[Value]) -> Value:
    order = [values[operand.index] for operand in argument(site, 0, "values")]
    return join(site, order, int(argument(site, 1, "axis", -1)))


def _is_last(site: Site, axis: int) -> bool:
    return axis in (-1, len(site.arguments.input_shapes[0]))


def _split(site: Site, values: list[Value]) -> Value:
    sizes, axis = argument(site, 1, "num_or_size_splits"), int(argument(site, 2, "axis", 0))
    if not _is_last(site, axis):
        raise _unsupported(site, f"a split over axis {axis} is not supported")
    channels = site.arguments.input_shapes[0][-1]
    if np.ndim(sizes) == 0:
        sizes = [channels // int(sizes)] * int(sizes)
    if -1 in sizes:
        sizes = [channels - sum(sizes) - 1 if size == -1 else size for size in sizes]
    start = int(sum(sizes[: site.arguments.output]))
    return gather(site, values[0], range(start, start + int(sizes[site.arguments.output])))


def _gather(site: Site, values: list[Value]) -> Value:
    axis = argument(site, 3, "axis", 0)
    if axis is None or not _is_last(site, int(axis)):
        raise _unsupported(site, f"a gather over axis {axis} is not supported")
    index = constant(site, 1, "indices").astype(np.int64)
    channels = site.arguments.input_shapes[0][-1]
    if index.ndim != 1 or not index.size or not ((index >= 0) & (index < channels)).all():
        raise _unsupported(site, f"indices {index.tolist()} are not channels 0 to {channels - 1}")
    return gather(site, values[0], index.tolist())


def _getitem(site: Site, values: list[Value]) -> Value:
    """Slices: of channels as they please; of pixels only a stride from 0, or the one pixel of a pooled map."""
    shape = site.arguments.input_shapes[0]
    *pixels, last = _slices(site, argument(site, 1, "slice_spec"), len(shape) + 1)
    value = values[0]
    strides = [_stride(site, item, size) for item, size in zip(pixels[1:], shape[:-1], strict=True)]
    if not isinstance(last, slice) or pixels[0] != slice(None):
        raise _unsupported(site, "a slice that takes away the channels or images is not supported")
    if any(stride > 1 for stride in strides):
        inner = site.inner("stride", tuple(-(-s // n) for s, n in zip(shape, strides, strict=False)) + (shape[-1],))
        value = pool(inner, value, "MaxPool", ((1, 1), strides, "valid"))
    channels = range(*last.indices(shape[-1]))
    if not channels:
        raise _unsupported(site, "a slice without a channel is not supported")
    value = gather(site, value, channels)
    return reshaped(site, value)


def _slices(site: Site, spec: Any, rank: int) -> list[Any]:
    """Return one index or slice an axis, the batch axis first."""
    items = list(spec) if isinstance(spec, (tuple, list)) else [spec]
    if any(item is None for item in items):
        raise _unsupported(site, "a slice that adds an axis is not supported")
    items = [slice(item["start"], item["stop"], item["step"]) if isinstance(item, dict) else item for item in items]
    gap = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
    behind = items[gap + 1 :]
    return [*items[:gap], *[slice(None)] * (rank - gap - len(behind)), *behind]


def _stride(site: Site, item: Any, size: int) -> int:
    """Return the stride of a slice over pixels. Raises ModelError for a crop."""
    if isinstance(item, int) and size == 1 and item in (0, -1):
        return 1
    if isinstance(item, slice) and item.start in (None, 0) and (item.stop is None or item.stop >= size):
        step = item.step or 1
        if step > 0:
            return step
    raise _unsupported(site, "a slice that cuts out a part of the image is not supported")


def _pad(site: Site, values: list[Value]) -> Value:
    paddings = np.asarray(argument(site, 1, "paddings"), np.int64).tolist()
    mode, fill = argument(site, 2, "mode", "CONSTANT"), argument(site, 4, "constant_values", 0) or 0
    (images, *pixels, channels), value = paddings, whole_channels(site, values[0])
    if mode.upper() != "CONSTANT" or any(images) or (any(channels) and fill):
        raise _unsupported(site, f"padding {paddings} with {mode} {fill} is not supported")
    if any(map(any, pixels)):
        value = with_zeros(site, value) if fill else value
        (top, bottom), (left, right) = (*pixels, [0, 0])[:2]
        value = padded(value, (top, left, bottom, right))
        value = with_zeros(site, value, float(fill)) if fill or any(channels) else value
    return pad_channels(site, value, *channels) if any(channels) else value


def _reshape(site: Site, values: list[Value]) -> Value:
    return reshaped(site, with_zeros(site, values[0]))


def _transpose(site: Site, values: list[Value]) -> Value:
    perm = tuple(int(axis) for axis in np.asarray(argument(site, 1, "perm")).ravel())
    if not perm or perm[0] != 0:
        raise _unsupported(site, f"a transpose by {list(perm)} is not supported")
    return transposed(site, values[0], perm[1:])


# ------------------------------------------------------------------------------------------ reductions


def _mean(site: Site, values: list[Value]) -> Value:
    return global_average(site, _whole(site, values[0]), bool(argument(site, 2, "keepdims", False)))


def _largest(site: Site, values: list[Value]) -> Value:
    return global_max(site, _whole(site, values[0]))


def _whole(site: Site, value: Value) -> Value:
    """Return the value where the reduction is over all pixels. Raises ModelError for other axes."""
    rank = len(site.arguments.input_shapes[0])
    asked = argument(site, 1, "axis")
    if asked is None:
        raise _unsupported(site, "a reduction over all axes, the images among them, is not supported")
    axes = np.atleast_1d(np.asarray(asked, np.int64)) % (rank + 1)
    if rank < 2 or sorted(axes.tolist()) != list(range(1, rank)):
        raise _unsupported(site, f"a reduction over the axes {axes.tolist()} is not supported")
    return value


def _pool2d(kind: str) -> Callable[[Site, list[Value]], Value]:
    def append(site: Site, values: list[Value]) -> Value:
        padding = argument(site, 3, "padding")
        if not isinstance(padding, str):
            raise _unsupported(site, f"padding {padding} is not supported")
        sizes = [_image_axes(argument(site, *where)) for where in ((1, "ksize"), (2, "strides"))]
        return pool(site, values[0], kind, (*sizes, padding))

    return append


def _image_axes(numbers: Any) -> tuple[int, int]:
    numbers = np.atleast_1d(numbers).tolist()
    numbers = numbers[1:3] if len(numbers) == 4 else numbers
    return (numbers[0], numbers[-1])


MOVES = ("identity", "stop_gradient", "pad", "reshape", "transpose")  # take padding, and shuffles half-way, as they are

OPERATIONS: dict[str, Callable[[Site, list[Value]], Value]] = {
    "__operators__.add": _add,
    "math.add": _add,
    "math.subtract": _subtract,
    "math.multiply": _multiply,
    "math.truediv": _divide,
    "math.divide": _divide,
    "math.add_n": _add_n,
    "math.negative": _negative,
    "math.square": _square,
    "math.abs": _abs,
    "math.maximum": _maximum,
    "math.minimum": _minimum,
    "math.sigmoid": _function(tf.nn.sigmoid),
    "math.tanh": _function(tf.nn.tanh),
    "math.sign": _function(tf.sign),
    "math.reduce_mean": _mean,
    "math.reduce_max": _largest,
    "nn.relu": _function(tf.nn.relu),
    "nn.relu6": _function(tf.nn.relu6),
    "nn.elu": _function(tf.nn.elu),
    "nn.selu": _function(tf.keras.activations.selu),
    "nn.silu": _function(tf.nn.silu),
    "nn.leaky_relu": _leaky_relu,
    "nn.bias_add": _bias_add,
    "nn.max_pool2d": _pool2d("MaxPool"),
    "nn.avg_pool2d": _pool2d("AveragePool"),
    "clip_by_value": _clip,
    "identity": _identity,
    "stop_gradient": _identity,
    "cast": _cast,
    "concat": _concat,
    "split": _split,
    "gather": _gather,
    "__operators__.getitem": _getitem,
    "pad": _pad,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "transpose": _transpose,
}
