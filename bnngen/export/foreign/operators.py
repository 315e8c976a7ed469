# SPDX-License-Identifier: Apache-2.0
"""Foreign operators without a window: element-wise ones, moves of axes and channels, the table of all of them."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, TensorProto

from bnngen.export.foreign.layout import LayoutError, View, plain, regroup
from bnngen.export.foreign.net import node_error
from bnngen.export.foreign.reader import Reader, attributes
from bnngen.export.foreign.windows import WINDOWED

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
SWAPPED = {"ge": "le", "gt": "lt", "le": "ge", "lt": "gt"}
TESTS = {"GreaterOrEqual": "ge", "Greater": "gt", "LessOrEqual": "le", "Less": "lt"}


# ---------------------------------------------------------------------------------------------- moves


def _identity(reader: Reader, node: NodeProto) -> View:
    return reader.view(node)


def _cast(reader: Reader, node: NodeProto) -> View:
    if attributes(node)["to"] not in FLOATS:
        raise node_error(node, "a cast of values to whole numbers", "a cast to float, which changes nothing")
    return reader.view(node)


def _transpose(reader: Reader, node: NodeProto) -> View:
    view = reader.view(node)
    return view.transposed(attributes(node).get("perm", range(len(view.axes))[::-1]))


def _reshape(reader: Reader, node: NodeProto) -> View:
    """Reshape, Flatten, Squeeze, Unsqueeze: the sizes of the output say it all."""
    view = reader.view(node)
    shape = reader.shape(view)
    view = plain(regroup(view, shape, reader.batch, reader.out_shape(node)), shape)
    if "ba" not in view.axes:
        return view
    order = np.arange(shape[2]).reshape(view.outer, -1).T.reshape(-1)  # a channel shuffle ends
    view = View(view.tensor, tuple("C" if axis == "ba" else axis for axis in view.axes))
    return reader.emit(node, "channels", [view.tensor], view, shape, index=order)


def _channel_move(reader: Reader, node: NodeProto, output: str, axis: int, index: np.ndarray) -> View:
    """Append a selection of channels. Raises LayoutError where another axis is selected from."""
    view = reader.view(node)
    if view.axes[axis] != "C":
        view = reader.as_channels(node, view)
    if view.axes[axis] != "C":
        raise LayoutError(f"it takes a part of axis {axis} of {view}: only channels are selected")
    height, width, _ = reader.shape(view)
    size = (height, width, len(index))
    return reader.emit(node, "channels", [view.tensor], view, size, index=index, output=output)


def _split(reader: Reader, node: NodeProto) -> list[View]:
    axis, start, views = attributes(node).get("axis", 0), 0, []
    for i, output in enumerate(node.output):
        size = reader.out_shape(node, i)[axis]
        views.append(_channel_move(reader, node, output, axis, np.arange(start, start + size)))
        start += size
    return views


def _slice(reader: Reader, node: NodeProto) -> View:
    view = reader.view(node)
    sizes = view.sizes(reader.shape(view), reader.batch)
    starts, ends = (np.atleast_1d(reader.constant(node, i, key)) for i, key in ((1, "starts"), (2, "ends")))
    axes = np.atleast_1d(reader.constant(node, 3, "axes", np.arange(len(starts))))
    steps = np.atleast_1d(reader.constant(node, 4, "steps", np.ones(len(starts), np.int64)))
    picks = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis = int(axis) % len(sizes)
        beyond = step < 0 and end < -sizes[axis]  # backwards to the first element, as ONNX spells it
        index = np.arange(sizes[axis])[slice(int(start), None if beyond else int(end), int(step))]
        if len(index) != sizes[axis] or step != 1:
            picks[axis] = index
    if not picks:
        return view
    if len(picks) > 1:
        raise LayoutError(f"it cuts several axes of {view}: only channels are selected")
    return _channel_move(reader, node, node.output[0], *next(iter(picks.items())))


def _gather(reader: Reader, node: NodeProto) -> View:
    index = np.asarray(reader.constant(node, 1, "indices"))
    axis = attributes(node).get("axis", 0) % len(reader.view(node).axes)
    if index.ndim != 1:
        raise LayoutError(f"indices {list(index.shape)}: channels are selected by a list")
    size = reader.view(node).sizes(reader.shape(reader.view(node)), reader.batch)[axis]
    return _channel_move(reader, node, node.output[0], axis, index % size)


def _concat(reader: Reader, node: NodeProto) -> View:
    views = [reader.view(node, i) for i in range(len(node.input))]
    axis = attributes(node)["axis"] % len(views[0].axes)
    if any(view.axes[axis] != "C" for view in views):
        views = [reader.as_channels(node, view) for view in views]
    if any(view.axes != views[0].axes for view in views) or views[0].axes[axis] != "C":
        raise LayoutError(f"axis {axis} of {', '.join(map(str, views))} is joined: only channels can be")
    height, width, _ = reader.shape(views[0])
    channels = sum(reader.shape(view)[2] for view in views)
    return reader.emit(node, "concat", [view.tensor for view in views], views[0], (height, width, channels))


def _pad(reader: Reader, node: NodeProto) -> View:
    if attributes(node).get("mode", "constant") != "constant":
        raise node_error(node, f"padding of mode {attributes(node)['mode']}", "mode constant")
    view = reader.view(node)
    amounts = np.asarray(reader.constant(node, 1, "pads")).reshape(2, -1)
    value = np.asarray(reader.constant(node, 2, "value", 0.0))
    value = float(value.reshape(-1)[0]) if value.size else 0.0
    axes = reader.constant(node, 3, "axes") if len(node.input) > 3 else np.arange(amounts.shape[1])
    around, behind = [0, 0, 0, 0], None
    for axis, (before, after) in zip(np.atleast_1d(axes), amounts.T, strict=True):
        letter = view.axes[int(axis)]
        if before == after == 0:
            continue
        if min(before, after) < 0 or letter not in ("C", "H", "W"):
            raise LayoutError(f"it pads or crops axis {int(axis)} of {view} by {before} and {after}")
        if letter == "C":
            index = np.arange(reader.shape(view)[2])
            behind = np.concatenate([np.full(int(before), -1), index, np.full(int(after), -1)])
        else:
            place = "HW".index(letter)
            around[place], around[place + 2] = int(before), int(after)
    height, width, channels = reader.shape(view)
    if behind is not None:
        if any(around) or value != 0:
            raise node_error(node, "channels are padded together with rows, or with another value than 0",
                             "Pad of channels with 0 alone")
        return reader.emit(node, "channels", [view.tensor], view, (height, width, len(behind)), index=behind)
    if not any(around):
        return view
    shape = (height + around[0] + around[2], width + around[1] + around[3], channels)
    return reader.emit(node, "pad", [view.tensor], view, shape, pads=tuple(around), value=value)


# ---------------------------------------------------------------------------------------- element-wise


def _unary(kind: str, **args: object):
    return lambda reader, node: reader.elementwise(node, kind, reader.view(node), **args)


def _function(reader: Reader, node: NodeProto) -> View:
    return reader.elementwise(node, "unary", reader.view(node), op=node.op_type, attributes=attributes(node))


def _arithmetic(reader: Reader, node: NodeProto) -> View:
    """Add, Sub, Mul, Div, Min, Max."""
    constant = [reader.is_constant(name) for name in node.input]
    if len(node.input) != 2:
        raise node_error(node, f"{len(node.input)} inputs", "two inputs")
    if not any(constant):
        return _of_two(reader, node)
    view = reader.view(node, int(constant[0]))
    view, value = reader.per_channel(node, view, reader.file.constants[node.input[int(constant[1])]])
    if len(view.axes) < len(reader.out_shape(node)):
        raise LayoutError(f"a constant gives {view} further axes")
    return _with_constant(reader, node, view, value, constant[0])


def _with_constant(reader: Reader, node: NodeProto, view: View, value: np.ndarray, first: bool) -> View:
    """The operation with a constant [C]; first: it is the first operand."""
    op = node.op_type
    if op in ("Min", "Max"):
        if not (value == value[0]).all():
            raise node_error(node, "a bound that differs between channels", f"{op} with one number")
        bounds = {"lo": -np.inf, "hi": float(value[0])} if op == "Min" else {"lo": float(value[0]), "hi": np.inf}
        return reader.elementwise(node, "clip", view, **bounds)
    if op == "Div" and first:
        raise node_error(node, "a division by a computed tensor", "Div by a constant")
    mult, add = None, None
    if op == "Mul":
        mult = value
    elif op == "Div":
        mult = (1 / value.astype(np.float64)).astype(np.float32)
    else:
        add = -value if op == "Sub" and not first else value
        mult = -np.ones_like(value) if op == "Sub" and first else None
    return reader.elementwise(node, "affine", view, mult=mult, add=add)


def _of_two(reader: Reader, node: NodeProto) -> View:
    a, b = reader.view(node, 0), reader.view(node, 1)
    rank = max(len(a.axes), len(b.axes))
    first, second = (("",) * (rank - len(v.axes)) + v.axes for v in (a, b))
    for x, y in zip(first, second, strict=True):
        if x and y and x != y:
            raise LayoutError(f"{a} and {b} are combined: axes of different meaning meet")
    if node.op_type not in ("Add", "Sub", "Mul", "Max", "Min"):
        raise node_error(node, f"{node.op_type} of two computed tensors", "Add, Sub, Mul, Max or Min")
    seen = View(a.tensor, tuple(x or y for x, y in zip(first, second, strict=True)))
    shapes = reader.shape(a), reader.shape(b)
    shape = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
    return reader.emit(node, node.op_type.lower(), [a.tensor, b.tensor], seen, shape)


def _neg(reader: Reader, node: NodeProto) -> View:
    view = reader.view(node)
    return reader.elementwise(node, "affine", view, mult=-np.ones(reader.shape(view)[2], np.float32), add=None)


def _clip(reader: Reader, node: NodeProto) -> View:
    lo, hi = (np.asarray(reader.constant(node, i, key, bound)).reshape(-1)[0]
              for i, key, bound in ((1, "min", -np.inf), (2, "max", np.inf)))
    return reader.elementwise(node, "clip", reader.view(node), lo=float(lo), hi=float(hi))


def _compare(reader: Reader, node: NodeProto) -> View:
    swapped = reader.is_constant(node.input[0])
    test = TESTS[node.op_type]
    view, level = reader.per_channel(node, reader.view(node, int(swapped)), reader.constant(node, 1 - swapped, "level"))
    return reader.elementwise(node, "compare", view, test=SWAPPED[test] if swapped else test, level=level)


def _where(reader: Reader, node: NodeProto) -> View:
    """A choice of two constants by a comparison, 1 or 0: no + (yes - no) * comparison."""
    if not (reader.is_constant(node.input[1]) and reader.is_constant(node.input[2])):
        raise node_error(node, "a choice between computed tensors", "Where(comparison, constant, constant)")
    view, yes = reader.per_channel(node, reader.view(node), reader.constant(node, 1, "value"))
    view, no = reader.per_channel(node, view, reader.constant(node, 2, "value"))
    return reader.elementwise(node, "affine", view, mult=yes - no, add=no)


def _p_relu(reader: Reader, node: NodeProto) -> View:
    view, slope = reader.per_channel(node, reader.view(node), np.asarray(reader.constant(node, 1, "slope")))
    return reader.elementwise(node, "prelu", view, slope=slope)


def _leaky_relu(reader: Reader, node: NodeProto) -> View:
    view = reader.view(node)
    slope = np.full(reader.shape(view)[2], attributes(node).get("alpha", 0.01), np.float32)
    return reader.elementwise(node, "prelu", view, slope=slope)


def _softmax(reader: Reader, node: NodeProto) -> View:
    view = reader.view(node)
    axis = attributes(node).get("axis", -1)
    if view.axes[axis] != "C" or reader.shape(view)[:2] != (1, 1):
        raise LayoutError(f"axis {axis} of {view} is normalized: a softmax is over the classes")
    return reader.elementwise(node, "softmax", view)


HANDLERS = {
    **dict.fromkeys(("Identity", "Dropout"), _identity),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Min", "Max"), _arithmetic),
    **dict.fromkeys(TESTS, _compare),
    **dict.fromkeys(("Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu"), _function),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    **WINDOWED,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Gather": _gather,
    "LeakyRelu": _leaky_relu,
    "Neg": _neg,
    "Pad": _pad,
    "PRelu": _p_relu,
    "Relu": _unary("clip", lo=0.0, hi=float("inf")),
    "Round": _unary("round"),
    "Sign": _unary("onnx_sign"),
    "Slice": _slice,
    "Split": _split,
    "Transpose": _transpose,
    "Where": _where,
}
