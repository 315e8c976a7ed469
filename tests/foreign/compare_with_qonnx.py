# SPDX-License-Identifier: Apache-2.0
"""Compares bnngen's evaluation of a QONNX file with the `qonnx` package's own. Two environments, two steps:

    python -m tests.foreign.compare_with_qonnx write FOLDER      where bnngen is installed
    python tests/foreign/compare_with_qonnx.py check FOLDER      where qonnx is installed (pip install qonnx)
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def write(folder: Path) -> None:
    """Write the file, images, and the scores that bnngen compares with."""
    from bnngen.export.foreign import open_foreign
    from tests.foreign.hand_made import Hand, brevitas_like

    hand = Hand()
    path = hand.save(folder / "qonnx.onnx", brevitas_like(hand), batch=1)
    images = np.random.default_rng(1).integers(-128, 128, (50, 10, 10, 3)).astype(np.float32) / 100
    scores = np.concatenate(list(open_foreign(path).run(images)))
    np.savez(folder / "qonnx.npz", images=images.transpose(0, 3, 1, 2), scores=scores)


def check(folder: Path) -> None:
    """Run the file with qonnx and print how far the scores are apart."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    model = ModelWrapper(str(folder / "qonnx.onnx")).transform(InferShapes())
    data = np.load(folder / "qonnx.npz")
    name = model.graph.output[0].name
    theirs = np.concatenate([execute_onnx(model, {"x": image[None]})[name] for image in data["images"]])
    difference = np.abs(theirs - data["scores"]).max()
    print(f"{len(theirs)} images, largest difference {difference:.3g} of scores up to {np.abs(theirs).max():.3g}")


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](Path(sys.argv[2]))
