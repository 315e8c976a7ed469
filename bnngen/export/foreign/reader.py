# SPDX-License-Identifier: Apache-2.0
"""Walks the nodes of a foreign file and appends their meaning to a net, layouts resolved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from bnngen.errors import ModelError
from bnngen.export.foreign.layout import MAP_AXES, LayoutError, View, channel_values, plain
from bnngen.export.foreign.net import Net, Op, Shape, node_error
from bnngen.export.foreign.reading import ForeignFile

GENERIC = ("statefulpartitionedcall", "model", "functional_1", "sequential", "")


@dataclass
class Reader:
    """A file on its way into a net. views: what every computed tensor of the file is."""

    file: ForeignFile
    net: Net
    views: dict[str, View]
    batch: int
    names: dict[str, str] = field(default_factory=dict)

    def is_constant(self, tensor: str) -> bool:
        return tensor in self.file.constants

    def constant(self, node: NodeProto, index: int, attribute: str, default: Any = None) -> Any:
        """Return a parameter that newer operator sets pass as an input and older ones as an attribute."""
        if index < len(node.input) and node.input[index]:
            name = node.input[index]
            if name not in self.file.constants:
                raise node_error(node, f"its {attribute} is computed from the image", f"a constant {attribute}")
            return self.file.constants[name]
        return attributes(node).get(attribute, default)

    def view(self, node: NodeProto, index: int = 0) -> View:
        """Return the view of a computed input. Raises LayoutError for a constant."""
        name = node.input[index]
        if name not in self.views:
            what = "is a constant" if self.is_constant(name) else "was not translated"
            raise LayoutError(f"its input {name} {what}")
        return self.views[name]

    def shape(self, view: View) -> Shape:
        return self.net.shapes[view.tensor]

    def out_shape(self, node: NodeProto, index: int = 0) -> tuple[int, ...]:
        """Return the foreign shape of an output, with the batch axis."""
        return tuple(self.file.shapes[node.output[index]])

    def emit(self, node: NodeProto, kind: str, inputs: list[str], seen: View, shape: Shape, **args: Any) -> View:
        """Append an operation; `seen`: the axes of its output. Return the output's view.

        Its output bears the name of the node's first one, or of `args["output"]`.
        """
        output = args.pop("output", node.output[0])
        if output in self.net.shapes and any(op.output == output for op in self.net.ops):
            output = self.net.temporary(output, shape)
        name = self.names.get(node.output[0], node.output[0])
        tensor = self.net.append(Op(kind, name, tuple(inputs), output, node, args), shape)
        return plain(seen.of(tensor), shape)

    def elementwise(self, node: NodeProto, kind: str, view: View, **args: Any) -> View:
        """Append an operation that keeps shape and layout."""
        return self.emit(node, kind, [view.tensor], view, self.shape(view), **args)

    def as_channels(self, node: NodeProto, view: View) -> View:
        """Return the view with a flattened map turned into channels of its own; any other as it is."""
        groups = [axis for axis in view.axes[1:] if axis]
        if len(groups) != 1 or groups[0] == "C":
            return view
        shape = self.shape(view)
        size = int(np.prod(shape))
        flat = (1, 1, size)
        order = groups[0]
        axes = View(view.tensor, tuple("C" if axis == order else axis for axis in view.axes))
        temporary = self.net.temporary(view.tensor, flat)
        made = self.emit(node, "flatten", [view.tensor], axes, flat, output=temporary)
        kept = "".join(letter for letter in MAP_AXES if letter in order)
        if order == kept:
            return made
        full = [letter for letter in MAP_AXES if letter not in order] + list(order)
        index = np.arange(size).reshape(shape).transpose([MAP_AXES.index(letter) for letter in full]).reshape(-1)
        temporary = self.net.temporary(view.tensor, flat)
        return self.emit(node, "channels", [made.tensor], made, flat, index=index, output=temporary)

    def per_channel(self, node: NodeProto, view: View, value: np.ndarray) -> tuple[View, np.ndarray]:
        """Return the view and a constant that is broadcast over it as float32 [C]. Raises LayoutError."""
        values = channel_values(value, view, self.shape(view), self.batch)
        if values is None:
            view = self.as_channels(node, view)
            values = channel_values(value, view, self.shape(view), self.batch)
        if values is None:
            raise LayoutError(f"a constant {list(value.shape)} over {view} is not one number a channel")
        return view, np.broadcast_to(values, (self.shape(view)[2],)).astype(np.float32)


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return the node's attributes, strings decoded."""
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {key: value.decode() if isinstance(value, bytes) else value for key, value in values.items()}


def read_net(file: ForeignFile, handlers: dict[str, Any]) -> tuple[Net, str]:
    """Return the net of a file, and the order of its image's axes: "NHWC" or "NCHW". Raises ModelError.

    A sequence [L, C] is the map [L, 1, C]: its order is "NHC" or "NCH".

    handlers: operator -> function(reader, node) that appends operations and returns the view of the output, or a list
    of views. The order of the axes is the one in which every convolution finds channels where ONNX has them.
    """
    orders = ("NHWC", "NCHW") if len(file.shape) == 3 else ("NHC", "NCH")
    if file.shape[-1] > file.shape[0]:  # the more likely order first
        orders = orders[::-1]
    failure: ModelError | None = None
    for order in orders:
        try:
            return _read(file, order, handlers), order
        except ModelError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _read(file: ForeignFile, order: str, handlers: dict[str, Any]) -> Net:
    sizes = dict(zip(order[1:], file.shape, strict=True))
    net = Net(tuple(sizes.get(letter, 1) for letter in MAP_AXES))
    batch = file.shapes[file.input][0]
    image = plain(View(net.input, tuple(order)), net.shapes[net.input])
    reader = Reader(file, net, {file.input: image}, batch, layer_names(file))
    for node in file.model.graph.node:
        if not node.output or all(reader.is_constant(name) for name in node.output if name):
            continue
        handler = handlers.get(node.op_type)
        if handler is None:
            raise node_error(node, f"operator {node.op_type} is not recognised")
        try:
            made = handler(reader, node)
        except LayoutError as error:
            raise node_error(node, str(error), "axes [N, C, H, W] or [N, H, W, C], told by the convolutions") from error
        views = made if isinstance(made, list) else [made]
        for name, view in zip(node.output, views, strict=False):
            expected = tuple(file.shapes[name])
            if view.sizes(net.shapes[view.tensor], batch) != expected:
                found = view.sizes(net.shapes[view.tensor], batch)
                raise node_error(node, f"its output is {list(expected)}, understood as {view} {list(found)}")
            reader.views[name] = view
    net.output = _output(reader)
    return net


def _output(reader: Reader) -> str:
    """Return the tensor of the scores."""
    name = reader.file.output
    view = reader.views.get(name)
    if view is None or len([axis for axis in view.axes if axis]) != 2:
        raise ModelError(
            f"the output {name} is {view or 'a constant'}, not a vector of scores",
            where=str(reader.file.path),
            why="one score for each class, [N, classes], is what is compared and learned",
            fix="export the model with a pooling or Flatten and a dense layer at its end",
        )
    node = next(node for node in reader.file.model.graph.node if name in node.output)
    try:
        return reader.as_channels(node, view).tensor
    except LayoutError as error:
        raise node_error(node, str(error)) from error


def layer_names(file: ForeignFile) -> dict[str, str]:
    """Return the name of the layer of each node, by the node's first output: the node's path without the operator.

    What all paths begin with is left out.
    """
    paths = {}
    for node in file.model.graph.node:
        if node.output:
            text = (node.name or node.output[0]).split(":")[0]
            paths[node.output[0]] = [part for part in text.split("/") if part.lower() not in GENERIC] or [text]
    heads = Counter(path[0] for path in paths.values() if len(path) > 1)
    if heads and (common := heads.most_common(1)[0])[1] > sum(heads.values()) * 0.9:
        paths = {key: path[1:] if len(path) > 1 and path[0] == common[0] else path for key, path in paths.items()}
    return {key: "/".join(path[:-1]) or path[0] for key, path in paths.items()}
