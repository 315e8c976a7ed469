# SPDX-License-Identifier: Apache-2.0
"""Single layers and short chains: larq-compute-engine == integer graph == host C.

Where the values are integers, they are equal. Real values behind a batch norm are compared within half a step of the
16-bit stream (and a twentieth of one for the multiplier's rounding).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("larq", reason="needs the extra bnngen[train]")

from bnngen import interp  # noqa: E402
from bnngen.device.compile import build_project  # noqa: E402
from bnngen.device.session import connect  # noqa: E402
from bnngen.export import export_model  # noqa: E402
from bnngen.export.config import Calibration, ExportConfig, ModelInfo, real_images  # noqa: E402
from bnngen.pipeline import BuildOptions, compile_model, write_project  # noqa: E402
from bnngen.targets import load_target  # noqa: E402
from tests.lce.layers import CASES, build, pixels  # noqa: E402
from tests.peers import ask_engine, need_peers  # noqa: E402


def info_for(name: str, outputs: int) -> ModelInfo:
    return ModelInfo(name, tuple(map(str, range(outputs))), tuple(range(outputs)), 1.0, -128.0)


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> Path:
    """A folder with every case as NAME.keras and the engine's answer, NAME.lce.npy; one process for all of them."""
    need_peers("larq_compute_engine")
    folder = tmp_path_factory.mktemp("layers")
    for name in CASES:
        build(name).save(folder / f"{name}.keras")
        np.save(folder / f"{name}.npy", real_images(pixels(name), info_for(name, 1)))
    ask_engine(str(folder))
    return folder


@pytest.mark.parametrize("name", CASES)
def test_layer_equals_larq_compute_engine(answers, tmp_path, name):
    case, x = CASES[name], pixels(name)
    expected = np.load(answers / f"{name}.lce.npy")
    assert np.ptp(expected) > 5, "an answer that says nothing"
    operators = json.loads((answers / f"{name}.json").read_text(encoding="utf-8"))["operators"]
    assert set(case.binary) <= set(operators), "the engine used a float kernel: nothing is compared"

    keras, out, info = answers / f"{name}.keras", tmp_path / "model.onnx", info_for(name, expected.shape[1])
    config = ExportConfig(keras, out, Calibration(x), info, cut="none")
    export_model(config, lambda what, done, total: None)
    compiled = compile_model(out, load_target("host"), BuildOptions())
    scores = interp.run(compiled.graph, x)
    real, step = scores * compiled.graph.tensors[compiled.graph.output].uniform_scale, np.abs(expected).max() / 32767
    if case.exact:
        np.testing.assert_array_equal(real, expected)
    else:
        np.testing.assert_allclose(real, expected, atol=0.55 * step, rtol=2e-6)

    built = build_project(write_project(compiled, tmp_path, "model"), compiled.target)
    with connect(built) as device:
        for image, row in zip(x, scores, strict=True):
            np.testing.assert_array_equal(device.infer(image), row)
