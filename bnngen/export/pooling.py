# SPDX-License-Identifier: Apache-2.0
"""Pooling layers: largest values, means, over windows or the whole map."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bnngen.export.builder import NO_PADS, Step, Value
from bnngen.export.convolutions import pair, same_pads
from bnngen.export.site import Site, with_zeros


def max_pool(site: Site, values: list[Value]) -> Value:
    """MaxPooling1D and 2D."""
    layer = site.layer
    return pool(site, values[0], "MaxPool", _window(site, layer.pool_size, layer.strides, layer.padding))


def average_pool(site: Site, values: list[Value]) -> Value:
    """AveragePooling1D and 2D; what lies outside is not counted."""
    layer = site.layer
    return pool(site, values[0], "AveragePool", _window(site, layer.pool_size, layer.strides, layer.padding))


def pool(site: Site, value: Value, operation: str, window: tuple[Any, Any, str]) -> Value:
    """Append a pooling. window: its size, its stride, "same" or "valid"."""
    value = with_zeros(site, value)
    if value.shape[:2] == (1, 1):  # a window over one pixel, whatever its size
        return value
    size, stride, padding = pair(window[0]), pair(window[1]), window[2]
    pads = same_pads(value.shape, size, stride) if padding.lower() == "same" else NO_PADS
    attributes = {"kernel_shape": size, "strides": stride, "pads": pads}
    if operation == "AveragePool" and any(pads):
        attributes["count_include_pad"] = 0
    return site.emit([value], [Step("", operation, (), attributes)])


def _window(site: Site, size: Any, stride: Any, padding: str) -> tuple[Any, Any, str]:
    site.channels_last()
    return size, stride, padding


def global_average_pool(site: Site, values: list[Value]) -> Value:
    """GlobalAveragePooling1D and 2D."""
    site.channels_last()
    return global_average(site, values[0], site.layer.keepdims)


def global_max_pool(site: Site, values: list[Value]) -> Value:
    """GlobalMaxPooling1D and 2D."""
    site.channels_last()
    return global_max(site, values[0])


def global_average(site: Site, value: Value, keep: bool) -> Value:
    """Append the mean of each channel: a vector, or where axes are kept a map of one pixel."""
    if value.shape[:2] == (1, 1):
        return value if keep else replace(value, flat=site.name)
    steps = [Step("", "GlobalAveragePool"), Step("flatten", "Flatten", attributes={"axis": 1})]
    channels = value.shape[-1]
    if keep:
        target = np.array([-1, channels, 1, 1], np.int64)
        steps.append(Step("point", "Reshape", (("shape", target),)))
    return site.emit([value], steps, (1, 1, channels) if keep else (channels,))


def global_max(site: Site, value: Value) -> Value:
    """Append the largest value of each channel, as a window over the whole map."""
    height, width, channels = value.shape
    if (height, width) == (1, 1):
        return value if len(site.shape) > 1 else replace(value, flat=site.name)
    attributes = {"kernel_shape": (height, width), "strides": (1, 1), "pads": NO_PADS}
    return site.emit([value], [Step("", "MaxPool", (), attributes)], (1, 1, channels))
