# SPDX-License-Identifier: Apache-2.0
"""Generates the C of a float graph, runs it on the host or under QEMU, and returns every tensor that it computes."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from bnngen import interp, ir
from bnngen.emit import emit_project
from bnngen.lower import Program, lower_float32
from bnngen.lower.float32 import device_graph
from bnngen.lower.float_layers import RealImage, RealScores
from bnngen.passes import run_float_passes
from bnngen.plan import make_plan
from bnngen.targets import load_target
from tests import graphs
from tests.kernels.harness import PLATFORMS, SANITIZE, WARNINGS, Platform, command

HERE = Path(__file__).resolve().parent
PLATFORM = {platform.target: platform for platform in PLATFORMS if platform.name != "host-clang"}
NUMPY = {ir.FLOAT: "<f4", ir.S32: "<i4"}
INEXACT = (ir.Conv2D, ir.Dense, ir.AveragePool, ir.GlobalAveragePool, ir.Unary)  # sums, and e^x
TOLERANCE = 2.0**-19  # of the sum of absolute values; of the result for Unary


@dataclass(frozen=True)
class Built:
    """A compiled program for a float graph. device: the graph from pixels to int32 scores."""

    device: ir.Graph
    program: Program
    platform: Platform
    folder: Path

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the value of every tensor that a call writes: [N, ...], bits as +1 and -1."""
        done = subprocess.run(
            command(self.platform, self.folder / "dump"), input=images.tobytes(), capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr.decode()
        calls = self.program.inference()
        tensors = [self.device.tensors[call.tensor] for call in calls]
        sizes = [self.program.values[t.name].bytes if t.name in self.program.values else 4 * t.size for t in tensors]
        rows = np.frombuffer(done.stdout, np.uint8).reshape(len(images), sum(sizes))
        parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
        return {tensor.name: _value(part, tensor) for tensor, part in zip(tensors, parts, strict=True)}


def _value(rows: np.ndarray, tensor: ir.Tensor) -> np.ndarray:
    flat = np.ascontiguousarray(rows)
    if tensor.dtype != ir.BITS:
        return flat.view(NUMPY[tensor.dtype]).reshape(-1, *tensor.shape)
    bits = np.unpackbits(flat, axis=1, bitorder="little").reshape(len(rows), *tensor.shape[:-1], -1)
    assert not bits[..., tensor.channels :].any(), "unused bits are 0"
    return 1 - 2 * bits[..., : tensor.channels].astype(np.int8)


def build(graph: ir.Graph, folder: Path, target: str = "host", sanitize: bool = True) -> Built:
    """Generate and compile; skip where the target's tools are missing."""
    platform, facts = PLATFORM[target], load_target(target)
    if platform.missing:
        pytest.skip(f"{', '.join(platform.missing)} not installed")
    graph = run_float_passes(graph)
    program = lower_float32(graph)
    project = emit_project(program, make_plan(program), None, facts, folder / "project")
    m, macro = f"bnn_{program.name}", f"BNN_{program.name.upper()}"
    names = {"MODEL": m, "INIT": f"{m}_init", "INFER": f"{m}_infer", "MODEL_HEADER": f'"{program.name}.h"'}
    names |= {name: f"{macro}_{name}" for name in ("ARENA_BYTES", "IMAGE_BYTES", "CLASSES")}
    sources = [HERE / "dump.c", *(project / f"{program.name}{part}.c" for part in ("", "_weights"))]
    options = [*WARNINGS, "-fno-strict-aliasing", *facts.make_view()["cflags"], "-ffp-contract=off"]
    options += [flag for flag in SANITIZE if sanitize and not flag.startswith("-D")]
    defines = [f"-D{name}={value}" for name, value in names.items()]
    include = [f"-I{project / part}" for part in ("", "bnn/include", "bnn")]
    argv = [platform.tools[0], *options, *defines, *include, *map(str, sources), "-o", str(folder / "dump")]
    subprocess.run([*argv, *facts.make_view()["ldflags"]], check=True, timeout=100)
    return Built(device_graph(graph), program, platform, folder)


def check_layers(built: Built, images: np.ndarray) -> set[type[ir.Node]]:
    """Hold every call against the interpreter on the call's own inputs, and return the ops that were seen.

    Given equal inputs only sums and smooth functions may differ, and by rounding alone: everything else is exact.
    """
    made = {"image": images} | built.run(images)
    for node in built.device.nodes:
        inputs = [made[name] for name in node.inputs]
        output = built.device.tensors[node.output]
        want = expected(node, inputs, output, built.device)
        made.setdefault(node.output, want)  # what is no call: flattened tensors, and scores under another name
        got = made[node.output]
        assert got.shape == want.shape, node.name
        if isinstance(node, INEXACT):
            assert (np.abs(got - want) <= TOLERANCE * magnitude(node, inputs, output)).all(), node.name
        else:
            np.testing.assert_array_equal(got, want, err_msg=f"{type(node).__name__} {node.name}")
    return {type(node) for node in built.device.nodes}


def expected(node: ir.Node, inputs: list[np.ndarray], output: ir.Tensor, graph: ir.Graph) -> np.ndarray:
    """What the interpreter computes; image and scores by their definition."""
    if isinstance(node, RealImage):
        return (inputs[0] * np.float64(graph.meta.input_scale) + graph.meta.input_offset).astype(np.float32)
    if isinstance(node, RealScores):
        return np.rint(inputs[0].astype(np.float64) * 2**16).astype(np.int32)
    return interp.apply(node, inputs, output)


def magnitude(node: ir.Node, inputs: list[np.ndarray], output: ir.Tensor) -> np.ndarray:
    """The sum of the absolute values that are added; of a smooth function, its own value and the smallest normal."""
    if isinstance(node, ir.Unary):
        return np.abs(interp.apply(node, inputs, output)) + 1e-37
    if isinstance(node, ir.Conv2D | ir.Dense):
        node = replace(node, weights=np.abs(node.weights), bias=None if node.bias is None else np.abs(node.bias))
    return interp.apply(node, [np.abs(x) for x in inputs], output)


def pixels(graph: ir.Graph, count: int = 4) -> np.ndarray:
    """Seeded images, one all black, one all white."""
    images = graphs.pixels(graph, count)
    images[0], images[1] = 0, 255
    return images
