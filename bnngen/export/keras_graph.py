# SPDX-License-Identifier: Apache-2.0
"""A Keras model as an ONNX graph, and as a source of an export."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from bnngen.errors import ModelError
from bnngen.export import keras_model
from bnngen.export.builder import GraphBuilder
from bnngen.export.layers import export_layer
from bnngen.export.site import Site
from bnngen.export.sources import ExportedGraph, Source, features_of

BATCH_VALUES = 1 << 20  # of the images of one batch: a batch of large images has large maps


def keras_source(model: tf.keras.Model) -> Source:
    """Return the model as a source; a softmax at its end is left out. Raises ModelError."""
    scores = keras_model.without_softmax(model)
    graph = build_graph(scores)

    def run(images: np.ndarray) -> Iterator[np.ndarray]:
        batch = max(1, min(keras_model.BATCH, BATCH_VALUES // int(np.prod(images.shape[1:]))))
        shaped = images.reshape(len(images), *scores.input_shape[1:])  # a sequence [L, C] is an image [L, 1, C]
        for start in range(0, len(shaped), batch):
            yield from keras_model.run_batches(scores, shaped[start : start + batch])

    return Source(graph, run, "Keras", model.name)


def build_graph(model: tf.keras.Model) -> ExportedGraph:
    """Return the ONNX graph of a Keras model that ends in scores. Raises ModelError."""
    listed = keras_model.list_layers(model)
    builder = GraphBuilder(listed.shape)
    values, layers = {listed.input: builder.start()}, {}
    for call in listed.calls:
        site = Site(builder, call.layer, call.name, call.shape, call.arguments)
        values[call.output] = export_layer(site, [values[key] for key in call.inputs])
        layers[call.name] = values[call.output]
        expected = int(np.prod(call.shape))
        assert int(np.prod(layers[call.name].shape)) == expected or any(layers[call.name].pads), call.name
    last = values[listed.output]
    if not builder.nodes[1:] or any(last.pads) or last.binary:
        raise ModelError(
            "the model does not compute real-valued scores",
            where=f"model {model.name}",
            fix="end it in Dense(classes)",
        )
    scores = builder.vector(last) if last.flat else last
    if scores.is_map:
        raise ModelError(
            f"the model gives a map {list(scores.shape)}, not a vector of scores",
            where=f"model {model.name}",
            fix="end it in a pooling or Flatten, and Dense(classes)",
        )
    final = builder.finish(scores)
    layers = {name: final if value in (scores, last) else value for name, value in layers.items()}
    return ExportedGraph(builder, layers, final, features_of(builder))
