# SPDX-License-Identifier: Apache-2.0
"""Models of larq_zoo at 224x224: Keras -> ONNX -> integer graph -> C on the host and on an emulated Raspberry Pi;
and beside them larq-compute-engine.

`make test` takes three that have little in common; `make test-all` takes all of them (marker slow).
"""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

pytest.importorskip("larq", reason="needs the extra bnngen[train]")

from bnngen import interp  # noqa: E402
from bnngen.device.compile import build_project  # noqa: E402
from bnngen.device.session import connect  # noqa: E402
from bnngen.export.zoo import MODELS  # noqa: E402
from bnngen.pipeline import write_project  # noqa: E402
from bnngen.validate import first_difference  # noqa: E402
from tests.e2e.conftest import need_tools  # noqa: E402
from tests.peers import ask_engine  # noqa: E402
from tests.zoo.models import GIB, Exported, agreement, command, correlation  # noqa: E402

ALWAYS = ("QuickNetSmall", "RealToBinaryNet", "MeliusNet22")
# Against floating point, over 8 images. Signs within rounding of zero may differ, and with them other signs: a wrong
# layer gives a correlation near 0, int16 rounding leaves 0.91 in the deepest model and 0.97 or more in most.
LEAST_CORRELATION = 0.85
LEAST_AGREEMENT = 0.85
LEAST_CORRELATION_S8 = 0.6
NOT_CONVERTED = ("DoReFaNet",)  # larq-compute-engine 0.16.0 refuses it with a ValueError


def chosen(always: tuple[str, ...], names: tuple[str, ...] = MODELS) -> list:
    """Return the models, marked where only `make test-all` takes them."""
    return [pytest.param(name, marks=() if name in always else pytest.mark.slow) for name in names]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function that returns a model by name; each is exported once."""
    done: dict[str, Exported] = {}

    def get(name: str) -> Exported:
        if name not in done:
            done[name] = Exported(name, tmp_path_factory.mktemp(name))
        return done[name]

    return get


@pytest.mark.parametrize("name", chosen(ALWAYS))
def test_onnxruntime_agrees_with_keras(exported, name):
    model = exported(name)
    found = re.search(r"same class ([\d.]+)%", model.cost.output)
    assert found and float(found.group(1)) == 100.0, model.cost.output
    assert model.onnx.shape == (8, 1000) and len(set(model.onnx.argmax(axis=1))) >= 6, "the classes hardly vary"


@pytest.mark.parametrize("name", chosen(ALWAYS))
def test_integer_graph_equals_host(exported, name):
    """Every score of three images and every layer of one; the graph itself agrees with onnxruntime on all."""
    need_tools("host")
    model = exported(name)
    compiled = model.compiled("host")
    built = build_project(write_project(compiled, model.folder, name), compiled.target)
    with connect(built) as device:
        for image, row in zip(model.images[:3], model.integers, strict=False):
            np.testing.assert_array_equal(device.infer(image), row)
        assert first_difference(compiled.graph, device, model.images[3]) is None
    assert correlation(model.integers, model.onnx) > LEAST_CORRELATION
    assert agreement(model.integers, model.onnx) >= LEAST_AGREEMENT


@pytest.mark.parametrize("name", chosen(ALWAYS))
def test_integer_graph_of_eight_bits_equals_host(exported, name):
    need_tools("host")
    model = exported(name)
    compiled = model.compiled("host", activation_bits=8)
    scores = interp.run(compiled.graph, model.images[:4])
    built = build_project(write_project(compiled, model.folder, f"{name}-s8"), compiled.target)
    with connect(built) as device:
        np.testing.assert_array_equal(device.infer(model.images[0]), scores[0])
    assert correlation(scores, model.onnx[:4]) > LEAST_CORRELATION_S8


@pytest.mark.parametrize("name", chosen(ALWAYS[:1]))
def test_integer_graph_equals_raspberry_pi(exported, name):
    """In the emulator: the same C, other kernels."""
    need_tools("rpi4")
    model = exported(name)
    compiled = model.compiled("rpi4")
    built = build_project(write_project(compiled, model.folder, name), compiled.target)
    with connect(built, timeout_s=600) as device:
        np.testing.assert_array_equal(device.infer(model.images[0]), model.integers[0])


@pytest.mark.parametrize("name", chosen(ALWAYS[:1], tuple(name for name in MODELS if name not in NOT_CONVERTED)))
def test_larq_compute_engine_agrees(exported, name):
    """The engine, which computes the real-valued stream in float32, against both of ours; Keras from its process."""
    model = exported(name)
    ask_engine(str(model.folder), name)
    engine, keras = (np.load(model.folder / f"{name}.{which}.npy")[:8] for which in ("lce", "keras"))
    facts = json.loads((model.folder / f"{name}.json").read_text(encoding="utf-8"))
    assert "LceBconv2d" in facts["operators"]
    for ours in (keras, model.onnx, model.integers):
        assert correlation(engine, ours) > LEAST_CORRELATION
        assert agreement(engine, ours) >= LEAST_AGREEMENT


def test_the_commands_take_less_than_two_gibibytes(exported):
    need_tools("host")
    model = exported(ALWAYS[0])
    built = command(model.folder, "build", model.name, "--target", "host")
    facts = json.loads(command(model.folder, "analyze", model.name, "--target", "rpi4", "--json").output)
    assert max(model.cost.peak, built.peak) < 2 * GIB
    binary = sum(layer["binary_macs"] for layer in facts["layers"])
    assert abs(binary - 1.156e9) < 0.001e9, "the number that larq's own profiler gives"
