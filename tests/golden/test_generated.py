# SPDX-License-Identifier: Apache-2.0
"""Generated projects, compiled by their own Makefile and run on each target: every layer equals the interpreter."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bnngen import interp, ir
from bnngen.emit import emit_project
from bnngen.lower import Program, lower
from bnngen.plan import make_plan
from bnngen.targets import load_target
from tests.golden import tiny, wide
from tests.kernels import harness

TRACE, LATENT, EXIT = 2, 3, 12
TARGETS = {platform.target: platform for platform in harness.PLATFORMS if platform.name != "host-clang"}


def frame(command: int, payload: bytes = b"") -> bytes:
    body = struct.pack("<BbI", command, 0, len(payload)) + payload
    return b"BN" + body + struct.pack("<I", zlib.crc32(body))


def replies(stream: bytes) -> list[bytes]:
    """Payloads of the frames in a stream; each must be whole, and say that it went well."""
    payloads, at = [], 0
    while at < len(stream):
        assert stream[at : at + 2] == b"BN"
        _, status, length = struct.unpack_from("<BbI", stream, at + 2)
        assert status == 0
        payloads.append(stream[at + 8 : at + 8 + length])
        at += length + 12
    return payloads


def run(target: str, program: Program, folder: Path, stream: bytes) -> list[bytes]:
    platform = TARGETS[target]
    subprocess.run(["make", "-s", "-C", str(folder)], check=True, timeout=200)
    suffix = load_target(target).make_view()["programs"][-1][0]
    argv = harness.command(platform, folder / f"{program.name}{suffix}")
    done = subprocess.run(argv, input=stream, capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr.decode()
    return replies(done.stdout)


def compare(made: tuple, target: str, kernels: str, folder: Path) -> None:
    """Generate, compile and run: each layer of three images, and the latent of the first."""
    if TARGETS[target].missing:
        pytest.skip(f"{', '.join(TARGETS[target].missing)} not installed")
    graph, latent = made
    facts = load_target(target)
    program = lower(graph, frozenset(facts.features), kernels, latent)
    emit_project(program, make_plan(program), None, facts, folder)
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (3, *graph.tensors["image"].shape), dtype=np.uint8)
    requests = [frame(TRACE, image.tobytes()) for image in images]
    requests += [frame(LATENT, images[0].tobytes())] if latent else []
    answers = run(target, program, folder, b"".join([*requests, frame(EXIT)]))

    values = interp.evaluate(graph, images)
    for n in range(len(images)):
        check_trace(graph, program, answers[n], {name: value[n] for name, value in values.items()})
    if latent:
        bits = interp.apply(latent[0], [values[latent[0].inputs[0]][:1]], ir.Tensor("latent", (), ir.BITS))[0]
        assert answers[len(images)] == interp.to_bytes(bits, ir.BITS)


@pytest.mark.parametrize("kernels", ["auto", "ref"])
@pytest.mark.parametrize("target", TARGETS)
def test_every_layer_equals_the_interpreter(target, kernels, tmp_path):
    compare(tiny.everything(), target, kernels, tmp_path / "project")


@pytest.mark.parametrize("kernels", ["auto", "ref"])
@pytest.mark.parametrize("graph", [wide.bits_first, wide.elements], ids=["bits_first", "elements"])
@pytest.mark.parametrize("target", TARGETS)
def test_newer_ops_equal_the_interpreter(target, graph, kernels, tmp_path):
    compare((graph(), None), target, kernels, tmp_path / "project")


@pytest.mark.parametrize(("seed", "target"), [(1, "host"), (2, "host"), (3, "rpi4"), (4, "stm32f405")])
def test_random_networks_equal_the_interpreter(seed, target, tmp_path):
    compare(tiny.random_graph(seed), target, "auto", tmp_path / "project")


def check_trace(graph: ir.Graph, program: Program, answer: bytes, values: dict[str, np.ndarray]) -> None:
    """Compare size and checksum of each step, then the scores."""
    steps = program.inference()
    for number, call in enumerate(steps):
        expected = interp.to_bytes(values[call.tensor], graph.tensors[call.tensor].dtype)
        traced = struct.unpack_from("<II", answer, 8 * number)
        assert traced == (len(expected), zlib.crc32(expected)), f"step {number}, {call.layer}"
    np.testing.assert_array_equal(np.frombuffer(answer[8 * len(steps) :], "<i4"), values[graph.output])


@pytest.mark.parametrize("compiler", ["clang -std=c99", "g++ -x c++ -std=c++11", "clang++ -x c++ -std=c++11"])
@pytest.mark.parametrize("graph", [wide.bits_first, wide.elements], ids=["bits_first", "elements"])
def test_newer_ops_compile_without_a_warning(compiler, graph, tmp_path):
    """gcc as C is the Makefile's; here the others."""
    command, target = compiler.split(), load_target("host")
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} not installed")
    program = lower(graph(), frozenset(target.features))
    folder = emit_project(program, make_plan(program), None, target, tmp_path / "project")
    include = [f"-I{folder / part}" for part in ("", "bnn/include", "bnn")]
    warnings = ["-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Werror"]
    sources = [str(folder / f"{program.name}{part}.c") for part in ("", "_weights")]
    options = ["-march=x86-64-v2", "-O1", "-fsyntax-only"]
    subprocess.run([*command, *warnings, *options, *include, *sources], check=True, timeout=100)


def build_alone(name: str, folder: Path) -> str:
    """Generate `small` under another name, build and run it; return the C name that it got."""
    graph, latent = tiny.small()
    target = load_target("host")
    program = lower(replace(graph, meta=replace(graph.meta, name=name)), frozenset(target.features), "auto", latent)
    emit_project(program, make_plan(program), None, target, folder)
    subprocess.run(["make", "-s", "-C", str(folder)], check=True, timeout=200)
    done = subprocess.run([str(folder / program.name)], input=frame(EXIT), capture_output=True, timeout=100)
    assert done.returncode == 0 and replies(done.stdout) == [b""]
    assert subprocess.run(["make", "-s", "-C", str(folder), "clean"], timeout=100).returncode == 0
    assert not (folder / program.name).exists() and (folder / f"{program.name}.c").exists()
    return program.name


@pytest.mark.parametrize("name", ["clean", "all", "bnn", "int", "learn", "stdint", "makefile"])
def test_a_model_may_have_a_name_that_is_taken(name, tmp_path):
    assert build_alone(name, tmp_path / "project") == f"{name}_model"


def test_cmake_builds_it_too(tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("cmake not installed")
    folder, build = project("everything", tmp_path), tmp_path / "out"
    subprocess.run(["cmake", "-S", str(folder), "-B", str(build)], check=True, capture_output=True, timeout=100)
    subprocess.run(["cmake", "--build", str(build)], check=True, capture_output=True, timeout=200)
    done = subprocess.run([str(build / "everything")], input=frame(EXIT), capture_output=True, timeout=100)
    assert done.returncode == 0 and replies(done.stdout) == [b""]


DRIVER = """
#include <stdio.h>
#include "everything.h"
#include "small.h"

static uint64_t arena[(BNN_EVERYTHING_ARENA_BYTES + BNN_SMALL_ARENA_BYTES) / 8 + 2];
static uint8_t image[BNN_EVERYTHING_IMAGE_BYTES];
static uint32_t latent[BNN_EVERYTHING_LATENT_WORDS];

int main(void)
{
    bnn_everything model;
    bnn_small other;
    int32_t scores[BNN_EVERYTHING_CLASSES];
    size_t got = fread(image, 1, sizeof image, stdin);

    if (got != sizeof image || bnn_small_init(&other, arena, BNN_SMALL_ARENA_BYTES) != BNN_OK) { return 1; }
    if (bnn_everything_init(&model, arena, BNN_EVERYTHING_ARENA_BYTES - 1) != BNN_E_SIZE) { return 2; }
    if (bnn_everything_init(&model, (char *)arena + 4, sizeof arena - 8) != BNN_E_ALIGN) { return 3; }
    if (bnn_everything_init(&model, arena, BNN_EVERYTHING_ARENA_BYTES) != BNN_OK) { return 4; }
    bnn_everything_front(&model, image);
    bnn_everything_pack(&model, latent);
    bnn_everything_infer(&model, image, scores);
    bnn_everything_unpack(&model, latent);
    bnn_everything_tail(&model);
    fwrite(bnn_everything_features(&model), BNN_EVERYTHING_FEATURES_TYPE, BNN_EVERYTHING_FEATURES, stdout);
    bnn_everything_scores(&model, scores);
    fwrite(scores, 4, BNN_EVERYTHING_CLASSES, stdout);
    return 0;
}
"""


def project(name: str, folder: Path) -> Path:
    graph, latent = getattr(tiny, name)()
    target = load_target("host")
    program = lower(graph, frozenset(target.features), "auto", latent)
    return emit_project(program, make_plan(program), None, target, folder / name)


@pytest.mark.parametrize(
    "compiler", ["gcc -std=c99", "clang -std=c99", "g++ -x c++ -std=c++11", "clang++ -x c++ -std=c++11"]
)
def test_a_replayed_latent_goes_through_the_tail(compiler, tmp_path):
    """Two models in one program, as C and as C++, built without the generated Makefile; ASan where gcc has it."""
    command = compiler.split()
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} not installed")
    graph, latent = tiny.everything()
    folders = [project(name, tmp_path) for name in ("everything", "small")]
    (tmp_path / "driver.c").write_text(DRIVER, encoding="utf-8")
    sources = [tmp_path / "driver.c"]
    sources += [f / f"{f.name}{suffix}.c" for f in folders for suffix in ("", "_weights")]
    include = [f"-I{path}" for f in folders for path in (f, f / "bnn" / "include")]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"] if command[0] in ("gcc", "g++") else []
    warnings = ["-O1", "-march=x86-64-v2", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Werror"]
    program = tmp_path / "driver"
    subprocess.run(
        [*command, *warnings, *sanitize, *include, *map(str, sources), "-o", str(program)], check=True, timeout=200
    )
    image = np.random.default_rng(5).integers(0, 256, (1, *graph.tensors["image"].shape), dtype=np.uint8)
    done = subprocess.run([str(program)], input=image.tobytes(), capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr.decode()

    cut = latent[1].output
    values = interp.evaluate(graph, image)
    bits = interp.apply(latent[0], [values[cut]], ir.Tensor("latent", (), ir.BITS))
    values[cut] = interp.apply(latent[1], [bits], graph.tensors[cut])
    start = next(i for i, node in enumerate(graph.nodes) if node.output == cut) + 1
    for node in graph.nodes[start:]:
        values[node.output] = interp.apply(node, [values[n] for n in node.inputs], graph.tensors[node.output])
    expected = interp.to_bytes(values["flat"][0], graph.tensors["flat"].dtype)
    assert done.stdout == expected + interp.to_bytes(values[graph.output][0], ir.S32)
