# SPDX-License-Identifier: Apache-2.0
"""Random networks by every route: Keras, ONNX, the float graph, the integer graph, compiled C.

From the integer graph on every score must be equal. In front of it floating point rounds, so that a value at a
threshold may take the other side: most images must agree closely, not all. Between the float and the integer graph
every layer must be met by itself, given its own inputs.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

larq = pytest.importorskip("larq", reason="needs the extra bnngen[train]")

from hypothesis import HealthCheck, Phase, given, note, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from bnngen import interp, ir  # noqa: E402
from bnngen.device.compile import build_project  # noqa: E402
from bnngen.device.session import connect  # noqa: E402
from bnngen.export import export_model, run_onnx  # noqa: E402
from bnngen.export.config import Calibration, ExportConfig, ModelInfo, real_images  # noqa: E402
from bnngen.export.keras_model import run_batches  # noqa: E402
from bnngen.frontend import load_onnx  # noqa: E402
from bnngen.layer_errors import layer_errors  # noqa: E402
from bnngen.passes import Options, run_passes  # noqa: E402
from bnngen.pipeline import BuildOptions, compile_model, write_project  # noqa: E402
from bnngen.targets import load_target  # noqa: E402
from tests.random.networks import CLASSES, RECIPES, build  # noqa: E402

INFO = ModelInfo("random", tuple("abc"), (0, 1, 2), 1 / 128, -1.0)
COUNT = 12
LEAST_DB = {8: 15.0, 16: 50.0}  # with rounding alone: 24 and 64 are met


def silent(what: str, done: int, total: int) -> None:
    """Progress is not shown."""


def close(a: np.ndarray, b: np.ndarray) -> float:
    """Share of images whose scores agree up to rounding."""
    tolerance = 1e-3 * max(1.0, float(np.abs(b).max()))
    return float((np.abs(a - b).max(axis=1) <= tolerance).mean())


def check_layers(graph: ir.Graph, bits: int, images: np.ndarray) -> None:
    """Every layer alone, on its own inputs: nothing but rounding may show where its type holds the values.

    Signs and codes are left out: one that lies at a threshold may take the other side. So are copies that the passes
    made, which no float layer stands against. The scores' weights have one step for all classes, which even weights
    do not fit.
    """
    integer = run_passes(graph, Options(bits))
    decided = {node.output for node in integer.nodes if isinstance(getattr(node, "epilogue", None), ir.Steps)}
    decided |= {name for name, tensor in integer.tensors.items() if tensor.dtype == ir.BITS}
    decided |= {node.name for node in integer.nodes if node.output in decided}
    for layer in layer_errors((graph, integer), images, silent).layers:
        compared = not (layer.alone.exact or layer.saturated or math.isnan(layer.alone.snr))
        if layer.name not in decided and compared:
            least = LEAST_DB[8] if layer.name == "logits" else LEAST_DB[bits]
            assert layer.alone.snr >= least, f"{layer.name}: {layer.alone.snr:.1f} dB alone at {bits} bits"


def check_network(recipe: dict, bits: int, kernels: str, folder: Path) -> None:
    """Take one network through every stage."""
    model = build(recipe)
    model.save(folder / "model.keras")
    shape = (COUNT, *model.input_shape[1:])
    x = np.random.default_rng(recipe["seed"] + 1).integers(0, 256, shape).astype(np.uint8)
    calibration = Calibration(np.random.default_rng(7).integers(0, 256, shape).astype(np.uint8))
    result = export_model(ExportConfig(folder / "model.keras", folder / "model.onnx", calibration, INFO), silent)
    keras = np.concatenate(list(run_batches(model, real_images(x, INFO))))
    onnx = run_onnx(result.path, x)
    assert close(onnx, keras) >= 0.75
    graph = load_onnx(result.path)
    assert close(interp.run(graph, real_images(x, INFO)), onnx) >= 0.75

    if recipe["even_weights"]:
        for width in LEAST_DB:
            check_layers(graph, width, calibration.x)
    target = load_target("host")
    compiled = compile_model(result.path, target, BuildOptions(kernels=kernels, activation_bits=bits))
    want = interp.run(compiled.graph, x)
    built = build_project(write_project(compiled, folder, "model"), target)
    with connect(built, timeout_s=60) as client:
        got = np.stack([client.infer(image) for image in x])
    np.testing.assert_array_equal(got, want)
    assert want.shape == (COUNT, CLASSES)


def run_example(recipe: dict, bits: int, kernels: str) -> None:
    note(f"{recipe}")
    if shutil.which("gcc") is None:
        pytest.skip("missing: gcc")
    with TemporaryDirectory() as folder:
        check_network(recipe, bits, kernels, Path(folder))


COMMON = dict(
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
CHOICES = (RECIPES, st.sampled_from([8, 16]), st.sampled_from(["auto", "auto", "ref"]))


@given(*CHOICES)
@settings(max_examples=20, phases=[Phase.generate], **COMMON)
def test_random_networks_agree(recipe, bits, kernels):
    run_example(recipe, bits, kernels)


@pytest.mark.slow
@given(*CHOICES)
@settings(max_examples=300, **COMMON)
def test_many_random_networks_agree(recipe, bits, kernels):
    run_example(recipe, bits, kernels)
