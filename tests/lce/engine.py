# SPDX-License-Identifier: Apache-2.0
"""Runs models through larq-compute-engine: a process of its own, since its converter brings a second MLIR.

    python -m tests.lce.engine FOLDER           every NAME.keras on NAME.npy -> NAME.lce.npy, NAME.json
    python -m tests.lce.engine FOLDER NAME ...  models of larq_zoo with random weights, on their synthetic images

The answers are float32 [N, values]. The .json file says which of the engine's own operators the converted model has
and how many bytes it is; for models of the zoo there is NAME.keras.npy too, Keras's own answer in this process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import larq_compute_engine as lce
import numpy as np
import tensorflow as tf

OPERATORS = ("LceBconv2d", "LceBMaxPool2d", "LceQuantize", "LceDequantize")


def answer(model: tf.keras.Model, x: np.ndarray, folder: Path, name: str) -> None:
    """Convert one model, run it on float32 images, and write what it says."""
    flatbuffer = lce.convert_keras_model(model)
    found = [operator for operator in OPERATORS if operator.encode() in flatbuffer]
    # The default kernel of x86 takes five times as long; both are the engine's own.
    scores = lce.testing.Interpreter(flatbuffer, use_indirect_bgemm=True).predict(x)
    np.save(folder / f"{name}.lce.npy", np.asarray(scores).reshape(len(x), -1))
    facts = {"operators": found, "bytes": len(flatbuffer)}
    (folder / f"{name}.json").write_text(json.dumps(facts), encoding="utf-8")


def answer_layers(folder: Path) -> None:
    import larq  # noqa: F401  (registers its layers)

    for path in sorted(folder.glob("*.keras")):
        model = tf.keras.models.load_model(path, compile=False)
        answer(model, np.load(path.with_suffix(".npy")), folder, path.stem)


def answer_zoo(folder: Path, names: list[str]) -> None:
    from bnngen.export.config import real_images
    from bnngen.export.zoo import open_zoo

    for name in names:
        model, info, calibration = open_zoo(name, "none", lambda what, done, total: None)
        x = real_images(calibration.x, info)
        np.save(folder / f"{name}.keras.npy", model(x, training=False).numpy())
        answer(model, x, folder, name)


if __name__ == "__main__":
    if sys.argv[2:]:
        answer_zoo(Path(sys.argv[1]), sys.argv[2:])
    else:
        answer_layers(Path(sys.argv[1]))
