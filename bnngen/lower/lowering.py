# SPDX-License-Identifier: Apache-2.0
"""Integer graph -> Program: calls in segments, tensors in buffers."""

from __future__ import annotations

from collections.abc import Callable

from bnngen import ir
from bnngen.errors import ModelError
from bnngen.lower.bounds import tensor_ranges
from bnngen.lower.calls import Lowering
from bnngen.lower.layers import LOWERINGS
from bnngen.lower.names import model_name
from bnngen.lower.program import INFERENCE, KernelCall, Program, Value, graph_hash

RESERVED = ("image", "scores", "latent")
LatentNodes = tuple[ir.Binarize, ir.Unpack]


def lower(
    graph: ir.Graph,
    target_features: frozenset[str] = frozenset(),
    kernels: str = "auto",
    latent: LatentNodes | None = None,
) -> Program:
    """Lower an integer graph for a target.

    target_features: from the target's description. kernels: "auto" or "ref". latent: the nodes that pack the
    tensor at the cut and rebuild it; they read and write the cut tensor and one called "latent".
    Raises ModelError for a layer that no kernel computes or whose accumulator could leave int32.
    """
    ir.verify(graph)
    if not ir.is_integer(graph):
        raise ModelError("the graph still has float tensors: run the passes first")
    _check_output(graph)
    check_names(graph)
    tensors, unpack = dict(graph.tensors), None
    if latent is not None:
        pack, unpack = latent
        tensors["latent"] = ir.Tensor("latent", graph.tensors[pack.inputs[0]].shape, ir.BITS)
    ctx = Lowering(graph, target_features, kernels, tensor_ranges(graph, unpack), tensors)
    parts = split(graph, latent)
    segments = {name: tuple(lower_nodes(ctx, nodes, LOWERINGS)) for name, nodes in parts.items()}
    cut = ctx.root(latent[0].inputs[0]) if latent else None
    _check_crossings(parts, ctx, cut)
    return make_program(ctx, segments, cut, ctx.root(features_of(graph, parts)))


def make_program(
    ctx: Lowering, segments: dict[str, tuple[KernelCall, ...]], cut: str | None, features: str
) -> Program:
    """Put the lowered segments together. cut, features: tensors that own their bytes."""
    graph, head = ctx.graph, ctx.graph.meta.head
    return Program(
        name=model_name(graph.meta.name),
        model_hash=graph_hash(graph),
        classes=graph.meta.classes,
        trained_classes=graph.meta.trained_classes,
        image=graph.tensors[graph.input].shape,
        segments=segments,
        values=_values(ctx, segments, keep={features}),
        consts=tuple(ctx.consts),
        affines=tuple(ctx.affines),
        cut=cut,
        features=features,
        capacity=head.capacity if head else 0,
    )


def split(graph: ir.Graph, latent: LatentNodes | None) -> dict[str, list[ir.Node]]:
    """Cut the node list behind the cut tensor and behind the feature tensor.

    Without a cut everything up to the features is `front`. Without a learned head the features are what
    the last layer reads.
    """
    nodes = list(graph.nodes)
    head = graph.meta.head
    features_end = _position(graph, head.tensor) + 1 if head else len(nodes) - 1
    cut_end = _position(graph, latent[0].inputs[0]) + 1 if latent else features_end
    if cut_end > features_end:
        raise ModelError(
            "the latent cut lies behind the feature tensor",
            where=f"tensor {nodes[cut_end - 1].output}",
            fix="cut at the feature tensor or before it",
        )
    return {
        "front": nodes[:cut_end],
        "tail": nodes[cut_end:features_end],
        "scores": nodes[features_end:],
        "pack": [latent[0]] if latent else [],
        "unpack": [latent[1]] if latent else [],
    }


def _position(graph: ir.Graph, tensor: str) -> int:
    for index, node in enumerate(graph.nodes):
        if node.output == tensor:
            return index
    raise ModelError(f"the metadata names tensor {tensor}, which no layer writes")


def features_of(graph: ir.Graph, parts: dict[str, list[ir.Node]]) -> str:
    """Return the tensor that the heads read."""
    if graph.meta.head is not None:
        return graph.meta.head.tensor
    return [*parts["front"], *parts["tail"]][-1].output


def _check_output(graph: ir.Graph) -> None:
    last = graph.nodes[-1]
    if not isinstance(last, ir.Dense | ir.Scores) or last.output != graph.output:
        raise ModelError(
            "the model does not end in scores",
            where=f"layer {last.name}",
            why="scores are the int32 accumulators of a dense layer, or a vector turned into int32",
        )


def check_names(graph: ir.Graph) -> None:
    """Raise ModelError where a tensor is called like a pointer that the caller passes in."""
    for name in graph.tensors:
        if name in RESERVED and name not in (graph.input, graph.output):
            raise ModelError(
                f"a tensor inside the model is called {name}",
                why=f"{', '.join(RESERVED)} name what the caller passes in",
                fix="rename the layer",
            )


def lower_nodes(ctx: Lowering, nodes: list[ir.Node], table: dict[type[ir.Node], Callable]) -> list[KernelCall]:
    """Lower nodes in order by a table of one function for each op. Raises ModelError for an op that is not in it."""
    calls = []
    for node in nodes:
        if type(node) not in table:
            raise ModelError(f"{type(node).__name__} has no kernel", where=f"layer {node.name}")
        call = table[type(node)](ctx, node)
        if call is not None:
            calls.append(call)
    return calls


def _check_crossings(parts: dict[str, list[ir.Node]], ctx: Lowering, cut: str | None) -> None:
    """Only the cut tensor may go from front to tail: learning rebuilds that one alone."""
    if cut is None:
        return
    front = {ctx.root(node.output) for node in parts["front"]}
    for node in parts["tail"]:
        for name in node.inputs:
            if ctx.root(name) in front - {cut}:
                raise ModelError(
                    f"tensor {name} goes around the latent cut",
                    where=f"layer {node.name}",
                    why="learning rebuilds only the tensor at the cut",
                    fix="cut where the whole network goes through one tensor, such as behind an addition",
                )


def _values(ctx: Lowering, segments: dict[str, tuple[KernelCall, ...]], keep: set[str]) -> dict[str, Value]:
    """Give every tensor a buffer. A call that can work in place takes over the buffer of an input that
    nobody reads later; `keep` names tensors that must survive. (The cut tensor need not: pack runs before tail.)"""
    calls = [call for name in INFERENCE for call in segments[name]]
    last_read = {name: step for step, call in enumerate(calls) for name in call.reads}
    values: dict[str, Value] = {}
    for step, call in enumerate(calls):
        if call.write == "scores":
            continue
        tensor = ctx.tensors[call.write]
        value = Value(call.write, tensor.dtype, tensor.shape, call.write)
        for name in call.reads if call.in_place else ():
            dies = last_read[name] == step and name not in keep
            if name in values and dies and values[name].bytes == value.bytes:
                value = Value(value.name, value.dtype, value.shape, values[name].buffer)
                break
        values[call.write] = value
    return values
