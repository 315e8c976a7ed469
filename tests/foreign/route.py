# SPDX-License-Identifier: Apache-2.0
"""The way of a foreign file through bnngen, compared with the file itself at every station.

Original in onnxruntime <-> our spelling in onnxruntime (also what `bnngen export` checks) <-> imported graph, and the
integer graph by the class that wins.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnngen import interp
from bnngen.export import export_model, run_onnx
from bnngen.export.config import Calibration, ExportConfig, ExportResult, ModelInfo, real_images
from bnngen.export.foreign import open_foreign
from bnngen.frontend import load_onnx
from bnngen.passes import run_passes

CLASSES = 4
SHAPE = (12, 12, 3)


def info_for(classes: int = CLASSES) -> ModelInfo:
    return ModelInfo("test", tuple("abcdefghij"[:classes]), tuple(range(classes)), 1 / 128, -1.0)


def pixels(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def silent(what: str, done: int, total: int) -> None:
    assert 0 < done <= total


@dataclass(frozen=True)
class Translated:
    """What came of a file: the result of the export, how often each operator was written, scores by every route."""

    result: ExportResult
    operators: Counter[str]
    original: np.ndarray
    written: np.ndarray
    graph: np.ndarray
    integer: np.ndarray


def translate(path: Path, classes: int = CLASSES) -> Translated:
    """Export a foreign file and run it by every route, on images that calibration did not see."""
    source = open_foreign(path)
    shape, info = source.graph.builder.shape, info_for(classes)
    config = ExportConfig(path, path.with_name("model.onnx"), Calibration(pixels(24, shape)), info)
    result = export_model(config, silent)
    x = pixels(9, shape, seed=6)
    images = real_images(x, info)
    graph = load_onnx(result.path)
    return Translated(
        result=result,
        operators=Counter(node.op_type for node in source.graph.builder.nodes),
        original=np.concatenate(list(source.run(images))),
        written=run_onnx(result.path, x),
        graph=interp.run(graph, images),
        integer=interp.run(run_passes(graph), x),
    )


def assert_same(made: Translated, classes: int = CLASSES) -> None:
    """All float routes agree up to rounding, and the integer graph follows them.

    How closely it does is for the tests of the passes: in nets this small, with random weights, one sign or code that
    rounding turns moves the scores by a tenth.
    """
    assert made.original.shape == (9, classes)
    assert np.ptp(made.original) > 0.1, "the network computes next to nothing"
    size = np.abs(made.original).max()
    np.testing.assert_allclose(made.written, made.original, atol=1e-4 * size, rtol=1e-5)
    np.testing.assert_allclose(made.graph, made.original, atol=1e-4 * size, rtol=1e-5)
    correlation = np.corrcoef(made.integer.ravel(), made.original.ravel())[0, 1]
    assert correlation > 0.8, correlation
