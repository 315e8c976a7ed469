# SPDX-License-Identifier: Apache-2.0
"""What Keras computes inside a model, layer by layer: the outermost reference of the per-layer table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from bnngen.export.config import NO_CODE, ModelInfo, OwnCode, check_images, read_info, real_images
from bnngen.export.keras_model import list_layers, load_keras, without_softmax


def keras_layers(
    path: str | Path, info: ModelInfo | None = None, own: OwnCode = NO_CODE
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return a function from images, uint8 [N, H, W, C], to the output of every layer by its name, float32.

    The outputs of nested models' layers, and of layers with several outputs, are left out. info: how pixels
    are scaled; None reads NAME.meta.json beside the model. own: as for load_keras. Raises
    UsageError, ModelError for the model; the function raises DataError for images of another shape.
    """
    path = Path(path)
    model = without_softmax(load_keras(path, own))
    info, shape = info or read_info(path), list_layers(model).shape
    outputs = {layer.name: layer.output for layer in model.layers if _has_one_output(layer)}
    probe = tf.keras.Model(model.inputs, outputs)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        check_images(images, shape, "images")
        batch = real_images(images, info).reshape(-1, *model.input_shape[1:])  # a sequence has no width
        return {name: np.asarray(value, np.float32) for name, value in probe(batch, training=False).items()}

    return run


def _has_one_output(layer: tf.keras.layers.Layer) -> bool:
    return len(layer.inbound_nodes) == 1 and not isinstance(layer.output, list | tuple | dict)
