# SPDX-License-Identifier: Apache-2.0
"""Foreign operators that sum or pool: convolutions, products with matrices, pools, means, batch norms."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from onnx import NodeProto

from bnngen.export.foreign.layout import MAP_AXES, LayoutError, View
from bnngen.export.foreign.net import Shape, Window, node_error
from bnngen.export.foreign.reader import Reader, attributes


def _spatial(view: View) -> tuple[str, ...]:
    """Return the letters "H" and "W" of the axes behind the channels. Raises LayoutError."""
    letters = view.axes[2:]
    if view.axes[1] != "C" or len(letters) not in (1, 2) or any(letter not in ("", "H", "W") for letter in letters):
        raise LayoutError(f"its input is {view}, not [N, C, H, W]")
    free = [letter for letter in "HW" if letter not in letters]
    return tuple(letter or free.pop(0) for letter in letters)


def _pair(letters: tuple[str, ...], values: list[int] | None, default: int) -> tuple[int, int]:
    """Return (height, width) of values that belong to axes `letters`."""
    known = dict(zip(letters, values or [default] * len(letters), strict=True))
    return known.get("H", default), known.get("W", default)


def _window(node: NodeProto, letters: tuple[str, ...], kernel: list[int], shape: Shape, out: tuple[int, ...]) -> Window:
    """Return the window of a convolution or pool. shape: of the input map; out: foreign shape of the output."""
    attrs = attributes(node)
    count = len(letters)
    given = attrs.get("pads", [0] * 2 * count)
    begin, end = _pair(letters, given[:count], 0), _pair(letters, given[count:], 0)
    stride = _pair(letters, attrs.get("strides"), 1)
    window = Window(_pair(letters, kernel, 1), stride, (*begin, *end), _pair(letters, attrs.get("dilations"), 1))
    outputs = dict(zip(letters, out[2:], strict=True))
    pads = list(window.pads)
    for i, letter in enumerate("HW"):
        size = outputs.get(letter, 1)
        reach = window.dilation[i] * (window.kernel[i] - 1) + 1
        total = (size - 1) * window.stride[i] + reach - shape[i]
        if attrs.get("auto_pad", "NOTSET").startswith("SAME"):
            total = max(total, 0)
            pads[i] = total // 2 if attrs["auto_pad"] == "SAME_UPPER" else total - total // 2
            pads[i + 2] = total - pads[i]
        elif total > pads[i] + pads[i + 2]:  # ceil_mode: the last window reaches beyond the padding
            pads[i + 2] = total - pads[i]
    return replace(window, pads=tuple(pads))


def _conv(reader: Reader, node: NodeProto) -> View:
    view = reader.view(node)
    weights = np.asarray(reader.constant(node, 1, "weights"), np.float32)
    bias = np.asarray(reader.constant(node, 2, "bias"), np.float32) if len(node.input) > 2 and node.input[2] else None
    out, shape = reader.out_shape(node), reader.shape(view)
    if view.axes[1] not in ("C", "") and not any(view.axes[2:]):  # a flattened map as channels of one pixel
        if weights.shape[2:] != (1,) * (weights.ndim - 2) or attributes(node).get("group", 1) != 1:
            raise LayoutError(f"a window over {view}, a flattened map")
        matrix = Matrix(weights.reshape(len(weights), -1), bias, view.axes[1], ("N", "C", *view.axes[2:]))
        return _whole(reader, node, view, matrix)
    letters = _spatial(view)
    window = _window(node, letters, list(weights.shape[2:]), shape, out)
    if letters == ("W", "H"):
        weights = weights.swapaxes(2, 3)
    kernel = weights.reshape(*weights.shape[:2], *window.kernel)
    outputs = dict(zip(letters, out[2:], strict=True))
    seen = View(view.tensor, ("N", "C", *letters))
    return reader.emit(
        node, "conv", [view.tensor], seen, (outputs.get("H", 1), outputs.get("W", 1), len(kernel)),
        weights=kernel, bias=bias, window=window, group=attributes(node).get("group", 1), fill=0.0,
    )


@dataclass(frozen=True)
class Matrix:
    """A factor [O, K] of a flattened map. group: the order of the map's axes in K; axes: of the product."""

    weights: np.ndarray
    bias: np.ndarray | None
    group: str
    axes: tuple[str, ...]


def _whole(reader: Reader, node: NodeProto, view: View, matrix: Matrix) -> View:
    """A product with a matrix over a flattened map: a convolution with one window over the whole map."""
    group = matrix.group
    shape = reader.shape(view)
    sizes = dict(zip(MAP_AXES, shape, strict=True))
    order = group + "".join(letter for letter in MAP_AXES if letter not in group)
    if int(np.prod([sizes[letter] for letter in group])) != int(np.prod(shape)):
        raise LayoutError(f"a part of {view} is multiplied")
    kernel = matrix.weights.reshape(-1, *(sizes[letter] for letter in order))
    kernel = np.ascontiguousarray(kernel.transpose(0, *(1 + order.index(letter) for letter in "CHW")))
    return reader.emit(
        node, "conv", [view.tensor], View(view.tensor, matrix.axes), (1, 1, len(kernel)),
        weights=kernel, bias=matrix.bias, window=Window(shape[:2]), group=1, fill=0.0,
    )


def _product(reader: Reader, node: NodeProto) -> View:
    """MatMul and Gemm with a constant matrix."""
    attrs = attributes(node)
    if attrs.get("transA", 0):
        raise node_error(node, "a transposed input", "transA = 0")
    if reader.is_constant(node.input[0]) or not reader.is_constant(node.input[1]):
        raise node_error(node, "a product whose second factor is computed", "a constant matrix as second input")
    view = reader.view(node)
    matrix = np.asarray(reader.constant(node, 1, "matrix"), np.float32) * np.float32(attrs.get("alpha", 1.0))
    bias = None
    if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]:
        bias = np.asarray(reader.constant(node, 2, "bias"), np.float32) * np.float32(attrs.get("beta", 1.0))
    if matrix.ndim != 2:
        raise LayoutError(f"the matrix has {matrix.ndim} axes")
    matrix = matrix if attrs.get("transB", 0) else matrix.T
    if bias is not None:
        bias = np.broadcast_to(bias.reshape(-1), (len(matrix),))
    group = view.axes[-1]
    axes = (*view.axes[:-1], "C")
    if group == "C" and any(view.axes[1:-1]):  # over the channels of every pixel
        height, width, _ = reader.shape(view)
        return reader.emit(
            node, "conv", [view.tensor], View(view.tensor, axes), (height, width, len(matrix)),
            weights=matrix[:, :, None, None], bias=bias, window=Window((1, 1)), group=1, fill=0.0,
        )
    return _whole(reader, node, view, Matrix(matrix, bias, group, axes))


def _batch_norm(reader: Reader, node: NodeProto) -> View:
    view = reader.view(node)
    if view.axes[1] != "C":
        view = reader.as_channels(node, view)
    if view.axes[1] != "C":
        raise LayoutError(f"its input is {view}, not [N, C, ...]")
    keys = ("gamma", "beta", "mean", "variance")
    values = {key: np.asarray(reader.constant(node, i + 1, key), np.float32) for i, key in enumerate(keys)}
    epsilon = float(attributes(node).get("epsilon", 1e-5))
    if not (values["variance"] + np.float32(epsilon) > 0).all():
        raise node_error(node, "variance + epsilon is not positive", "a variance above 0")
    return reader.elementwise(node, "batch_norm", view, epsilon=epsilon, **values)


def _pool(reader: Reader, node: NodeProto) -> View:
    view = reader.view(node)
    letters, shape, out = _spatial(view), reader.shape(view), reader.out_shape(node)
    attrs = attributes(node)
    window = _window(node, letters, attrs["kernel_shape"], shape, out)
    kind = "max_pool" if node.op_type == "MaxPool" else "average_pool"
    if kind == "average_pool" and any(window.pads) and attrs.get("count_include_pad", 0):
        raise node_error(node, "an average that counts the padding", "count_include_pad = 0")
    outputs = dict(zip(letters, out[2:], strict=True))
    seen = View(view.tensor, ("N", "C", *letters))
    size = (outputs.get("H", 1), outputs.get("W", 1), shape[2])
    return reader.emit(node, kind, [view.tensor], seen, size, window=window)


def _reduce(reader: Reader, node: NodeProto) -> View:
    """GlobalAveragePool, GlobalMaxPool, ReduceMean, ReduceMax over height and width."""
    view = reader.view(node)
    rank = len(view.axes)
    if node.op_type.startswith("Global"):
        axes, keep = list(range(2, rank)), True
    else:
        given = reader.constant(node, 1, "axes")
        axes = [int(axis) % rank for axis in (range(1, rank) if given is None else np.atleast_1d(given))]
        keep = bool(attributes(node).get("keepdims", 1))
    gone = "".join(view.axes[axis] for axis in axes)
    if set(gone) - set("HW"):
        raise LayoutError(f"axes {axes} of {view} are reduced: only height and width can be")
    shape = reader.shape(view)
    kernel = (shape[0] if "H" in gone else 1, shape[1] if "W" in gone else 1)
    left = tuple("" if i in axes else axis for i, axis in enumerate(view.axes) if keep or i not in axes)
    kind = "max_pool" if "Max" in node.op_type else "average_pool"
    size = (shape[0] // kernel[0], shape[1] // kernel[1], shape[2])
    return reader.emit(node, kind, [view.tensor], View(view.tensor, left), size, window=Window(kernel))


WINDOWED = {
    **dict.fromkeys(("MatMul", "Gemm"), _product),
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"), _reduce),
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
}
