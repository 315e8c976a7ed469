# SPDX-License-Identifier: Apache-2.0
"""The shipped backbones as small trained models, exported with a cut in front of their last blocks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from bnngen import ir
from bnngen.data import load
from bnngen.export import export_model
from bnngen.export.config import Calibration, ExportConfig, ExportResult, ModelInfo
from bnngen.frontend import load_onnx
from bnngen.train.config import INPUT_OFFSET, INPUT_SCALE, Form
from bnngen.train.models import build

IMAGES = 192  # trained on, in six steps: batch norms and slopes leave their first values
CASES = {  # backbone -> width, blocks of its tail
    "quicknet-nano": (0.25, 2),
    "quicknet-nano-s": (0.25, 1),
    "quicknet-nano-l": (0.125, 3),
    "reactnet-nano": (0.25, 3),
    "birealnet-18": (0.125, 2),
}


@dataclass(frozen=True)
class Trained:
    """A model after a few steps on digits. x: scaled images that it was not trained on, float32 [N, H, W, C]."""

    model: tf.keras.Model
    path: Path
    calibration: Calibration
    info: ModelInfo
    x: np.ndarray

    def export(self, cut: str, name: str = "model.onnx") -> tuple[ExportResult, ir.Graph]:
        """Export with that cut and read the file."""
        config = ExportConfig(self.path, self.path.with_name(name), self.calibration, self.info, cut)
        result = export_model(config, lambda what, done, total: None)
        return result, load_onnx(result.path)


def trained(backbone: str, width: float, folder: Path) -> Trained:
    """Train for a few steps; learned shifts get values that matter."""
    tf.keras.utils.set_random_seed(3)
    data = load("digits")
    model = build(backbone, data.x_train.shape[1:], len(data.classes), Form(width))
    x = data.x_train.astype(np.float32) * INPUT_SCALE + INPUT_OFFSET
    model.compile(tf.keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    model.fit(x[:IMAGES], data.y_train[:IMAGES], batch_size=32, verbose=0)
    rng = np.random.default_rng(4)
    for layer in model.layers:
        if type(layer).__name__ in ("LearnedShift", "RPReLU"):
            layer.set_weights([w + rng.normal(0, 0.3, w.shape).astype(np.float32) for w in layer.get_weights()])
    path = folder / "model.keras"
    model.save(path)
    info = ModelInfo("digits", data.classes, tuple(range(len(data.classes))), INPUT_SCALE, INPUT_OFFSET)
    return Trained(model, path, Calibration(data.x_train[:32]), info, x[IMAGES : IMAGES + 32])
