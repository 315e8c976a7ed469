# SPDX-License-Identifier: Apache-2.0
"""Layers that move values and compute none: flatten, reshape, padding, joins, slices and shuffles of channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bnngen.export.builder import Step, Value
from bnngen.export.site import Site, affine, as_map


@dataclass(frozen=True)
class SplitChannels(Value):
    """A map whose channels Keras sees on several axes, half-way through a shuffle.

    axes: sizes of those axes. index: channel of the stored map for every place, row by row.
    """

    axes: tuple[int, ...] = ()
    index: tuple[int, ...] = ()


def whole_channels(site: Site, value: Value) -> Value:
    """Return the value. Raises ModelError in the middle of a shuffle, which only a reshape or a transpose can go on."""
    if isinstance(value, SplitChannels):
        raise site.error(
            "the layer reads channels on several axes",
            why="maps are [height, width, channel]; groups of channels exist only inside a shuffle",
            fix="shuffle channels by reshape to [H, W, groups, C / groups], transpose, reshape",
        )
    return value


def flatten(site: Site, values: list[Value]) -> Value:
    """Nothing is moved until a layer needs the vector: a QuantDense reads the map itself."""
    site.channels_last()
    (value,) = values
    return replace(value, flat=site.name) if value.is_map and not value.flat else value


def zero_padding(site: Site, values: list[Value]) -> Value:
    """Nothing is moved: the convolution that follows takes the padding."""
    site.channels_last()
    padding = site.layer.padding
    rows, columns = padding if isinstance(padding[0], (tuple, list)) else (padding, (0, 0))
    return padded(values[0], (rows[0], columns[0], rows[1], columns[1]))


def padded(value: Value, more: Sequence[int]) -> Value:
    """Return the map with more zeros around it: top, left, bottom, right."""
    return replace(value, pads=tuple(a + b for a, b in zip(more, value.pads, strict=True)))


def concatenate(site: Site, values: Sequence[Value]) -> Value:
    """Concatenate over channels."""
    return join(site, values, site.layer.axis)


def join(site: Site, values: Sequence[Value], axis: int) -> Value:
    """Append a concatenation. Where only some inputs are binary, those become +1 and -1 as real values."""
    if axis not in (-1, len(site.shape)):
        raise site.error(
            f"a concatenation over axis {axis} is not supported",
            why="tensors are joined channel behind channel",
            fix="use axis=-1",
        )
    values = [site.builder.vector(value) if value.flat else value for value in values]
    if len(values) == 1:
        return values[0]
    if any(value.binary for value in values) and not all(value.binary for value in values):
        values = [_as_real(site, value, i) if value.binary else value for i, value in enumerate(values)]
    shape = (*values[0].shape[:-1], sum(value.shape[-1] for value in values))
    return site.emit(values, [Step("", "Concat", attributes={"axis": 1})], shape)


def _as_real(site: Site, value: Value, number: int) -> Value:
    return site.inner(f"real_{number}", value.shape).emit([value], [affine("", value, 1.0, 0.0)], value.shape)


def gather(site: Site, value: Value, index: Sequence[int]) -> Value:
    """Append the choice of channels index, in that order."""
    value = site.builder.vector(value) if value.flat else value
    if list(index) == list(range(value.shape[-1])):
        return value
    constants = (("index", np.array(index, np.int64)),)
    shape = (*value.shape[:-1], len(index))
    return site.emit([value], [Step("", "Gather", constants, {"axis": 1})], shape)


def pad_channels(site: Site, value: Value, before: int, behind: int) -> Value:
    """Append zeros before and behind the channels."""
    value = site.builder.vector(value) if value.flat else value
    if value.binary:
        value = _as_real(site, value, 0)
    space = [0] * (len(value.shape) - 1)
    pads = np.array([0, before, *space, 0, behind, *space], np.int64)
    shape = (*value.shape[:-1], value.shape[-1] + before + behind)
    return site.emit([value], [Step("", "Pad", (("pads", pads),))], shape)


# --------------------------------------------------------------------------------------------- reshape


def reshape(site: Site, values: list[Value]) -> Value:
    """Reshape, Permute, and their relatives among the operations: what moves nothing, or shuffles channels."""
    return reshaped(site, values[0])


def reshaped(site: Site, value: Value) -> Value:
    """Return the value as Keras's shape of the layer says. Raises ModelError where elements would move."""
    shape, here = site.shape, value.shape
    if isinstance(value, SplitChannels):
        return _shuffled(site, value)
    if len(shape) == 1:
        return replace(value, flat=value.flat or site.name) if value.is_map else value
    if value.is_map and as_map(shape) == here:
        return replace(value, flat="")
    if as_map(shape)[:2] == (1, 1):
        return replace(site.builder.point(site.builder.vector(value)), flat="")
    if value.is_map and not value.flat and _splits(shape, here):
        axes = shape[2:] if len(shape) > 3 or here[1] != 1 else shape[1:]
        return _split(value, axes)
    raise site.error(
        f"a reshape of {list(here)} to {list(shape)} is not supported",
        why="elements would change their pixel; possible are vectors, maps of one pixel, and groups of channels",
        fix="use Flatten, or pooling, instead",
    )


def _splits(shape: tuple[int, ...], here: tuple[int, ...]) -> bool:
    """True where only the channels are divided: [H, W, C] to [H, W, a, b], or [L, C] to [L, a, b]."""
    is_map = len(shape) > 3 and shape[:2] == here[:2]
    is_sequence = here[1] == 1 and len(shape) == 3 and shape[0] == here[0]
    return is_map or is_sequence


def _split(value: Value, axes: tuple[int, ...]) -> SplitChannels:
    index = tuple(range(value.shape[-1]))
    return SplitChannels(value.tensor, value.shape, value.binary, value.flat, value.pads, tuple(axes), index)


def _shuffled(site: Site, value: SplitChannels) -> Value:
    """Return the map again once the channels are on one axis."""
    if as_map(site.shape) == value.shape:
        plain = Value(value.tensor, value.shape, value.binary, value.flat, value.pads)
        return gather(site, plain, value.index)
    if _splits(site.shape, value.shape):
        axes = site.shape[2:] if len(site.shape) > 3 or value.shape[1] != 1 else site.shape[1:]
        return replace(value, axes=tuple(axes))
    raise site.error(
        f"a reshape to {list(site.shape)} inside a shuffle of channels is not supported",
        fix="shuffle channels by reshape, transpose, reshape",
    )


def permute(site: Site, values: list[Value]) -> Value:
    """Permute: dims counts from 1."""
    return transposed(site, values[0], tuple(site.layer.dims))


def transposed(site: Site, value: Value, dims: tuple[int, ...]) -> Value:
    """Append a change of the order of axes, the batch axis 0 left out of dims. Only channel axes may change places."""
    if dims == tuple(range(1, len(dims) + 1)):
        return value
    axes = value.axes if isinstance(value, SplitChannels) else ()
    outer = len(dims) - len(axes)
    if not axes or dims[:outer] != tuple(range(1, outer + 1)):
        raise site.error(
            f"a transpose by {list(dims)} is not supported",
            why="images stay [height, width, channel]; only groups of channels can change places",
            fix="shuffle channels by reshape to [H, W, groups, C / groups], transpose, reshape",
        )
    order = tuple(axis - 1 - outer for axis in dims[outer:])
    index = np.array(value.index).reshape(axes).transpose(order)
    return replace(value, axes=index.shape, index=tuple(index.ravel().tolist()))


