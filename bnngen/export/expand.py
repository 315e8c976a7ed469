# SPDX-License-Identifier: Apache-2.0
"""Layers and functions that the tables do not know, taken apart into TensorFlow operations.

Called once on symbolic tensors, they become a graph of operations, each of which is exported as if it were a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf

from bnngen.errors import ModelError
from bnngen.export.activations import function_name
from bnngen.export.builder import Value
from bnngen.export.keras_model import LayerCall, collect, key_of
from bnngen.export.site import Operand, Site

Trace = Callable[[list[Any]], Any]


def expand_function(site: Site, function: Any, value: Value) -> Value:
    """Append an element-wise function of a value that has Keras's shape of the layer's output."""
    call = function.call if isinstance(function, tf.keras.layers.Layer) else function
    return _expand(site, [value], [site.shape], lambda inputs: call(inputs[0]), function_name(function))


def expand_layer(site: Site, values: list[Value]) -> Value:
    """Append a Lambda, or a layer of the user's own class, by what it calls."""
    layer, arguments = site.layer, site.arguments

    def trace(inputs: list[Any]) -> Any:
        def stand_in(argument: Any) -> Any:
            return inputs[argument.index] if isinstance(argument, Operand) else argument

        args, kwargs = tf.nest.map_structure(stand_in, (arguments.args, arguments.kwargs))
        if isinstance(layer, tf.keras.layers.Lambda):
            return layer.function(*args, **{**layer.arguments, **_without_mode(kwargs)})
        return layer.call(*args, **kwargs)

    return _expand(site, values, arguments.input_shapes, trace, type(layer).__name__)


def _without_mode(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key not in ("training", "mask")}


def _expand(
    site: Site, values: Sequence[Value], shapes: Sequence[tuple[int, ...]], trace: Trace, name: str
) -> Value:
    """Export the graph that `trace` makes of symbolic inputs of those shapes. Raises ModelError."""
    from bnngen.export.layers import export_layer  # noqa: PLC0415 (a layer may be an expansion)

    calls, inputs, output = _graph(site, shapes, trace, name)
    tensors = dict(zip(inputs, values, strict=True))
    names: set[str] = set()
    for call in calls:
        part = site.name if call.output == output else _part_name(call, site, names)
        inner = replace(site, layer=call.layer, name=part, shape=call.shape, arguments=call.arguments)
        tensors[call.output] = export_layer(inner, [tensors[key] for key in call.inputs])
    return tensors[output]


def _graph(
    site: Site, shapes: Sequence[tuple[int, ...]], trace: Trace, name: str
) -> tuple[list[LayerCall], list[str], str]:
    """Return the layer calls of the graph, the keys of its inputs, and that of the result that is meant."""
    try:
        inputs = [tf.keras.Input(shape) for shape in shapes]
        result = tf.nest.flatten(trace(inputs))[site.arguments.output]
        model = tf.keras.Model(inputs, result)
        calls, (output,) = collect(model)
    except ModelError:
        raise
    except Exception as error:  # whatever a user's code raises on symbolic tensors
        raise site.error(
            f"{name} is not supported",
            why="it is in no table, and cannot be taken apart into TensorFlow operations: "
            + (str(error).splitlines() or [type(error).__name__])[0],
            fix="express it by layers of Keras and Larq, or by plain operations (+, *, tf.nn.relu, tf.concat, ...)",
        ) from error
    return calls, [key_of(tensor) for tensor in inputs], output


def _part_name(call: LayerCall, site: Site, names: set[str]) -> str:
    """Return layer/operation, numbered where it comes again: Keras's own numbers depend on what ran before."""
    symbol = getattr(call.layer, "symbol", None) or type(call.layer).__name__.lower()
    plain = f"{site.name}/{symbol.rsplit('.', 1)[-1]}"
    count, name = 1, plain
    while name in names:
        count += 1
        name = f"{plain}_{count}"
    names.add(name)
    return name
