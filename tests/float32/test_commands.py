# SPDX-License-Identifier: Apache-2.0
"""`--activations` on the command line: what is built, what validate claims, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bnngen import interp, ir, resources, validate
from bnngen.cli.build import chosen_activations
from bnngen.data import load
from bnngen.device.compile import build_project
from bnngen.device.session import connect
from bnngen.errors import BudgetError, UsageError
from bnngen.frontend import load_onnx
from bnngen.lower.learning import LearnConfig
from bnngen.pipeline import BuildOptions, check_ram, compile_model, write_project
from bnngen.targets import load_target
from tests import graphs, onnx_files
from tests.e2e.conftest import good, in_process, need_tools
from tests.float32.networks import elements

SHIPPED = resources.checkpoints() / "quicknet-nano-digits04.onnx"
FLOAT32 = ("--activations", "float32")


@pytest.fixture
def bnngen(tmp_path, monkeypatch, capsys):
    """Run a command in a folder with a small model.onnx of images [8, 8, 2]."""
    monkeypatch.chdir(tmp_path)
    made = onnx_files.make_model(meta=onnx_files.with_ranges("conv/scale"))
    Path("model.onnx").write_bytes(made.SerializeToString())

    return in_process(capsys)


# ------------------------------------------------------------------------------------------ a shipped model


@pytest.mark.parametrize(("target", "count"), [("host", 400), ("stm32f405", 4)])
def test_a_shipped_model_gives_the_float_graph_s_classes(target, count, tmp_path):
    """On the host, and a few on the emulated board."""
    need_tools(target)
    facts = load_target(target)
    compiled = compile_model(SHIPPED, facts, BuildOptions(float32=True))
    assert compiled.learning is None and compiled.graph.meta.head is not None
    data = load("digits")
    images = np.concatenate([data.x_train, data.x_test])[:count]
    want = validate.float_stage(load_onnx(SHIPPED), images, lambda *_: None).scores
    built = build_project(write_project(compiled, tmp_path, "digits"), facts)
    with connect(built) as client:
        got = np.stack([client.infer(image) for image in images]) * compiled.score_step
        exact = client.features(images[0]).view(np.float32)
    assert (got.argmax(axis=1) == want.argmax(axis=1)).mean() >= 0.999
    assert np.quantile(np.abs(got - want).max(axis=1), 0.99) < 1e-4
    assert np.abs(exact - got[0]).max() <= compiled.score_step / 2, "the features are the scores in float32"


def test_the_int8_build_of_the_same_model_is_something_else():
    """The test above could not fail if float32 were no more than another name of an integer build."""
    target = load_target("host")
    real = compile_model(SHIPPED, target, BuildOptions(float32=True))
    integer = compile_model(SHIPPED, target, BuildOptions(activation_bits=8))
    assert real.is_float and not integer.is_float
    assert real.program.model_hash != integer.program.model_hash
    assert real.program.const_bytes > integer.program.const_bytes
    assert real.plan.inference_peak_bytes > 2 * integer.plan.inference_peak_bytes


# ------------------------------------------------------------------------------------------ commands


def test_validate_shows_agreement_and_the_largest_difference(bnngen):
    need_tools("host")
    text = good(bnngen("validate", *FLOAT32, "--random", "20"))
    assert "largest difference to above" in text and "bit for bit is for integer builds alone" in text
    assert "every score is equal" not in text and "same scores" not in text
    document = json.loads(good(bnngen("validate", *FLOAT32, "--random", "20", "--json")))
    real, device = document["rows"]
    assert document["passed"] is None and device["exact"] is None
    assert device["agreement"] >= 0.95 and 0 < device["largest"] < 1
    assert (real["name"], device["name"]) == ("float graph (NumPy)", "host, float32")


def test_build_says_inference_only_and_analyze_counts_floats(bnngen):
    need_tools("host")
    assert "inference only, without a learned head" in good(bnngen("build", *FLOAT32))
    manifest = json.loads(Path("build/model-host/manifest.json").read_text(encoding="utf-8"))
    assert manifest["arithmetic"] == "float32"
    costs = json.loads(good(bnngen("analyze", *FLOAT32, "--json")))
    layers = {layer["name"]: layer for layer in costs["layers"]}
    assert costs["arithmetic"] == "float32" and not any(layer["integer_macs"] for layer in layers.values())
    assert layers["stem"]["float_macs"] == 4 * 4 * 4 * 9 * 2 and layers["stem"]["weight_bytes"] == 4 * (4 * 9 * 2 + 4)
    assert layers["conv"]["precision"] == "bits x bits -> f32" and layers["conv"]["binary_macs"] > 0
    assert "float MAC" in good(bnngen("analyze", *FLOAT32)) and "integer MAC" in good(bnngen("analyze"))


def test_an_integer_build_says_so_in_its_manifest(bnngen):
    options = BuildOptions(activation_bits=8)
    folder = write_project(compile_model(Path("model.onnx"), load_target("host"), options), Path("build"), "model")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["arithmetic"] == "integer" and manifest["features"]["type"] == "BNN_S8"
    assert "-ffp-contract" not in (folder / "Makefile").read_text(encoding="utf-8")


REFUSED = [
    (("build", *FLOAT32, "--activation-bits", "8"), "contradict", "leave one of the two out"),
    (("validate", "--activations", "int8", "--activation-bits", "16"), "contradict", "means --activations int16"),
    (("learn", *FLOAT32), "float32 builds do not learn", "the learned head are integers"),
    (("build", *FLOAT32, "--replay", "9", "--learn-rate", "0.2"), "no learned head for --replay, --learn-rate", "int8"),
    (("validate", "--layers", *FLOAT32), "--layers shows what integers cost", "leave --layers out"),
    (("build", "--activations", "float16"), "--activations", "bnngen build --help"),
]


@pytest.mark.parametrize(("arguments", "message", "help_"), REFUSED, ids=[" ".join(row[0]) for row in REFUSED])
def test_what_cannot_be_is_refused_before_any_work(bnngen, arguments, message, help_):
    ran = bnngen(*arguments)
    ran.refused(message, help_)
    assert ran.status == 2 and not Path("build").exists()


def test_int8_is_eight_bits(bnngen):
    for name, bits in (("int8", "8"), ("int16", "16")):
        by_name, by_bits = (good(bnngen("analyze", "--json", *option)) for option in
                            (("--activations", name), ("--activation-bits", bits)))  # fmt: skip
        assert by_name == by_bits and f"-> s{bits}" in by_name


def test_either_option_says_the_type():
    assert [chosen_activations(None, bits) for bits in (None, "8", "16")] == ["int16", "int8", "int16"]
    assert [chosen_activations(name, None) for name in ("int8", "float32")] == ["int8", "float32"]
    assert chosen_activations("int8", "8") == "int8"
    with pytest.raises(UsageError, match="contradict"):
        chosen_activations("float32", "16")


def test_what_does_not_fit_says_what_would():
    board = load_target("stm32f405")
    small = replace(board, budget=replace(board.budget, ram_bytes=65_536))
    check_ram(compile_model(SHIPPED, small, BuildOptions(activation_bits=8, learn=LearnConfig(replay=10, buffer=10))))
    with pytest.raises(BudgetError) as caught:
        check_ram(compile_model(SHIPPED, small, BuildOptions(float32=True)))
    assert "--activations int8" in caught.value.fix and "replay" not in caught.value.fix


# ------------------------------------------------------------------------------------------ the stages of validate


def test_scores_are_compared_in_the_units_of_the_float_graph():
    """A last softmax is not computed on the target; what is compared has it on both sides."""
    graph = elements()
    assert isinstance(graph.nodes[-1], ir.Softmax)
    logits = np.array([[0, 65536, 131072], [3, 2, 1]])
    got = validate.real_scores(graph, logits, 2.0**-16)
    np.testing.assert_allclose(got, np.exp(logits / 2**16) / np.exp(logits / 2**16).sum(axis=1, keepdims=True))
    plain = graphs.residual()
    np.testing.assert_array_equal(validate.real_scores(plain, logits, 2.0**-16), logits / 2**16)


def test_the_float_stage_reads_images_as_the_exporter_scales_them():
    graph = graphs.residual()
    images = graphs.pixels(graph, 70)
    stage = validate.float_stage(graph, images, lambda *_: None)
    np.testing.assert_array_equal(stage.scores, interp.run(graph, graphs.scaled(images, graph.meta)))
    assert not stage.integer


def test_the_largest_difference_is_of_real_scores_alone():
    scores = np.float32([[1, 2], [3, 4]])
    stages = [validate.Stage(name, scores + shift, False) for name, shift in (("a", 0), ("b", 0.25))]
    integers = [validate.Stage(name, np.int32([[1, 2], [3, 4]]), True) for name in "cd"]
    rows = validate.compare([*stages, *integers], None).rows
    assert [row.largest for row in rows] == [None, 0.25, None, None]
    assert [row.exact for row in rows] == [None, None, None, True]
