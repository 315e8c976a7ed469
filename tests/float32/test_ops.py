# SPDX-License-Identifier: Apache-2.0
"""Every op of the float stage as generated C: equal to the interpreter on equal inputs, up to rounding."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from bnngen import interp, ir, resources
from bnngen.emit import emit_project
from bnngen.errors import ModelError
from bnngen.lower import lower_float32
from bnngen.lower.float32 import device_graph
from bnngen.lower.float_kernels import FLOAT_KERNELS
from bnngen.lower.float_layers import FLOAT_LOWERINGS, RealImage, RealScores, float_cuts
from bnngen.lower.kernels import KERNELS, REF
from bnngen.passes import run_float_passes
from bnngen.plan import make_plan
from bnngen.targets import load_target
from tests import graphs
from tests.float32.harness import build, check_layers, pixels
from tests.float32.networks import GRAPHS

INTEGER_ONLY = {ir.QuantizeInput, ir.Requantize, ir.Binarize, ir.Unpack}
GONE = {ir.Softmax, ir.Chain}  # dropped behind the last layer; inside the passes only


@pytest.mark.parametrize("name", GRAPHS)
def test_every_layer_equals_the_interpreter_up_to_rounding(name, tmp_path):
    """On the host under address and undefined-behaviour sanitizers."""
    graph = GRAPHS[name]()
    check_layers(build(graph, tmp_path), pixels(graph))


def test_on_another_machine_too(tmp_path):
    graph = GRAPHS["elements"]()
    check_layers(build(graph, tmp_path, "rpi4", sanitize=False), pixels(graph))


def test_whole_networks_agree(tmp_path):
    """From pixels to scores, errors of all layers on top of each other."""
    for graph in (graphs.residual(pad_value=0), graphs.chain(pad_value=1)):
        folder = tmp_path / graph.nodes[0].name / str(len(graph.nodes))
        folder.mkdir(parents=True)
        images = graphs.pixels(graph, 16)
        got = build(graph, folder, sanitize=False).run(images)[graph.output] / 2**16
        want = interp.run(graph, graphs.scaled(images, graph.meta))
        assert (got.argmax(axis=1) == want.argmax(axis=1)).mean() >= 0.9
        assert np.median(np.abs(got - want).max(axis=1)) < 1e-4 * np.abs(want).max()


def test_the_graphs_have_every_op_of_the_float_stage():
    seen = {type(node) for graph in GRAPHS.values() for node in device_graph(run_float_passes(graph())).nodes}
    ops = {kind for kind in vars(ir).values() if isinstance(kind, type) and issubclass(kind, ir.Node)} - {ir.Node}
    assert seen == set(FLOAT_LOWERINGS) == ops - INTEGER_ONLY - GONE | {RealImage, RealScores}


def test_every_float_kernel_is_used_by_a_graph():
    used = {call.kernel for graph in GRAPHS.values() for call in lower_float32(run_float_passes(graph())).calls()}
    assert set(FLOAT_KERNELS) <= used
    assert used - set(FLOAT_KERNELS) == {"bmaxpool", "bconcat", "bchannels", "bflatten", "thermometer", "bitplanes"}


# --------------------------------------------------------------------------------------------- the registry


def test_float_kernels_stand_apart_and_are_written():
    assert not set(FLOAT_KERNELS) & set(KERNELS)
    for kernel in FLOAT_KERNELS.values():
        (variant,) = kernel.variants
        path = resources.runtime() / "kernels" / f"{kernel.header}_{variant.name}.h"
        assert f"void bnn_{kernel.name}_ref(const {kernel.shape.C_NAME} *s" in path.read_text(encoding="utf-8")
        assert variant.name == REF.name and not variant.features


def test_the_readme_lists_them():
    text = (resources.runtime() / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(float_\w+)` \| (.*) \|$", text, re.MULTILINE)
    listed = {(header, name) for header, names in rows for name in re.findall(r"`(\w+)`", names)}
    assert listed == {(kernel.header, kernel.name) for kernel in FLOAT_KERNELS.values()}


@pytest.mark.parametrize("compiler", ["clang -std=c99", "g++ -x c++ -std=c++11", "clang++ -x c++ -std=c++11"])
def test_it_compiles_without_a_warning(compiler, tmp_path):
    """gcc as C is the harness's; here the others. All headers at once, and the constants."""
    command, target = compiler.split(), load_target("host")
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} not installed")
    program = lower_float32(run_float_passes(GRAPHS["elements"]()))
    folder = emit_project(program, make_plan(program), None, target, tmp_path / "project")
    (folder / "all.c").write_text("".join(f'#include "kernels/{k}_ref.h"\n' for k in headers()), encoding="utf-8")
    include = [f"-I{folder / part}" for part in ("", "bnn/include", "bnn")]
    warnings = ["-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Werror", "-Wno-unused-function"]
    sources = [str(folder / name) for name in (f"{program.name}.c", f"{program.name}_weights.c", "all.c")]
    subprocess.run([*command, *warnings, "-fsyntax-only", *include, *sources], check=True, timeout=100)


def headers() -> list[str]:
    return sorted({kernel.header for kernel in (*FLOAT_KERNELS.values(), *KERNELS.values())})


@pytest.mark.parametrize("target", ["host", "stm32f405"])
def test_the_library_calls_no_libm_and_on_the_fpu_no_helper(target, tmp_path):
    """No expf, and on Cortex-M4F no __aeabi_ function either: nothing is computed in double precision."""
    facts = load_target(target)
    cc = facts.toolchain.cc
    if shutil.which(cc) is None:
        pytest.skip(f"{cc} not installed")
    program = lower_float32(run_float_passes(GRAPHS["elements"]()))
    folder = emit_project(program, make_plan(program), None, facts, tmp_path / "project")
    flags = [*facts.make_view()["cflags"], "-std=c99", "-fno-strict-aliasing", "-fno-pie", "-Ibnn/include", "-Ibnn"]
    subprocess.run([cc, *flags, "-c", f"{program.name}.c"], cwd=folder, check=True, timeout=100)
    nm = cc.removesuffix("gcc") + "nm"
    listing = subprocess.run([nm, "-u", f"{program.name}.o"], cwd=folder, capture_output=True, text=True, check=True)
    wanted = {line.split()[-1] for line in listing.stdout.splitlines()}
    own = {name for name in wanted if name.startswith(f"bnn_{program.name}_")}
    assert own and wanted - own <= {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_"}, wanted - own


# --------------------------------------------------------------------------------------------- the project


def test_the_project_says_that_it_is_float32(tmp_path):
    made = {}
    for target in ("host", "rpi4"):
        program = lower_float32(run_float_passes(graphs.residual()))
        folder = emit_project(program, make_plan(program), None, load_target(target), tmp_path / target)
        made[target] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        assert "-ffp-contract=off" in (folder / "Makefile").read_text(encoding="utf-8")
        assert "-ffp-contract=off" in (folder / "CMakeLists.txt").read_text(encoding="utf-8")
        assert not list(folder.glob("*_learn.*"))
    facts = made["host"]
    assert facts["arithmetic"] == "float32" and facts["features"]["type"] == "BNN_F32"
    assert (facts["cut"], facts["capacity"], facts["latent_words"]) == (None, 0, 0)
    assert {step["dtype"] for step in facts["steps"]} == {"f32", "bits", "s32"}
    assert facts["hash"] == made["rpi4"]["hash"]


def test_the_weights_decide_the_hash():
    graph = graphs.chain()
    stem = graph.nodes[0]
    other = replace(stem, weights=np.nextafter(stem.weights, np.float32(9)))
    hashes = {lower_float32(g).model_hash for g in (graph, replace(graph, nodes=(other, *graph.nodes[1:])))}
    assert len(hashes) == 2


def test_no_name_of_the_model_is_in_the_way(tmp_path):
    """The twins of image and scores get names that are free; the last layer may be called scores."""
    b = graphs.Builder((4, 4, 1))
    b.conv("image.real", 3)
    b.pool("scores.real")
    b.dense("scores", 3)
    graph = b.finish()
    check_layers(build(graph, tmp_path, sanitize=False), pixels(graph))


def test_what_has_no_scores_is_refused():
    b = graphs.Builder((4, 4, 1))
    b.conv("conv", 3)
    with pytest.raises(ModelError, match="scores are a vector"):
        run_float_passes(b.finish())


def test_shapes_that_do_not_join_are_refused():
    b = graphs.Builder((4, 4, 1))
    b.conv("conv", 3)
    b.add("sum", "conv")
    b.pool("pool")
    graph = b.finish()
    tensors = graph.tensors | {"sum": ir.Tensor("sum", (4, 4, 6))}
    with pytest.raises(ModelError, match="shapes") as caught:
        lower_float32(replace(graph, tensors=tensors))
    assert "sum" in caught.value.where


# --------------------------------------------------------------------------------------------- quantizers


def test_cuts_as_floats_decide_alike():
    """Around every cut: the floats next to it, against comparisons in double precision."""
    rng = np.random.default_rng(5)
    cuts = np.repeat(np.sort(np.concatenate([rng.normal(0, 1, 40), [0.0, 0.5, -0.05, 1 / 3]])), 2)
    closed = np.arange(len(cuts)) % 2
    found = float_cuts(cuts, closed)
    assert found.dtype == np.float32
    near = cuts.astype(np.float32)
    for x in (near, np.nextafter(near, np.float32(9)), np.nextafter(near, np.float32(-9))):
        np.testing.assert_array_equal(x >= found, np.where(closed, np.float64(x) >= cuts, np.float64(x) > cuts))
