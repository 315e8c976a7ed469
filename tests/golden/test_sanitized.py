# SPDX-License-Identifier: Apache-2.0
"""Whole programs under address and undefined-behaviour checks: inference, then learning beside the NumPy twin.

Graphs by hand, through the passes: a plain chain, an int8 stream, a cut before the features, reference kernels.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from bnngen import interp, ir
from bnngen.continual.mirror import TwinMirror
from bnngen.device.compile import open_build
from bnngen.device.session import connect
from bnngen.emit import emit_project
from bnngen.lower import lower
from bnngen.lower.learning import LearnConfig, learn_buffers, learning_constants
from bnngen.passes import Options, run_passes
from bnngen.passes.latent import latent_ops
from bnngen.plan import LearnBuffer, make_plan
from bnngen.targets import load_target
from tests import graphs

SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all"
LEARN = LearnConfig(replay=12, buffer=16, batch=8, epochs=2)


@dataclass(frozen=True)
class Variant:
    """A graph and the options to build it with. cut: another tensor than the features."""

    graph: Callable[[], ir.Graph]
    bits: int = 16
    kernels: str = "auto"
    cut: str = ""
    learn: LearnConfig = LEARN


VARIANTS = {
    "chain": Variant(graphs.chain),
    "int8": Variant(graphs.residual, bits=8, learn=replace(LEARN, policy="random", new_per_batch=3)),
    "earlier-cut": Variant(graphs.residual, cut="t_pool"),
    "reference-kernels": Variant(graphs.residual, kernels="ref", cut="block1_add"),
}


def cut_at(graph: ir.Graph, tensor: str) -> ir.Graph:
    """The graph with its latent cut at another tensor, with levels on either side of the middle of its range."""
    seen, channels = graph.meta.ranges[tensor], graph.tensors[tensor].channels
    lo, hi = min(seen.lo), max(seen.hi)
    levels = ((((3 - i) * lo + i * hi) / 3,) * channels for i in (1, 2))
    latent = ir.Latent(tensor, ((lo + hi) / 2,) * channels, *levels)
    return replace(graph, meta=replace(graph.meta, latent=latent))


def build(variant: Variant, folder: Path) -> ir.Graph:
    """Generate the host project and compile it with sanitizers; return the integer graph."""
    graph = variant.graph()
    graph = run_passes(cut_at(graph, variant.cut) if variant.cut else graph, Options(variant.bits))
    target, latent = load_target("host"), latent_ops(graph)
    program = lower(graph, frozenset(target.features), variant.kernels, (latent.pack, latent.unpack))
    learning = learning_constants(graph, variant.learn)
    plan = make_plan(program, [LearnBuffer(*buffer) for buffer in learn_buffers(learning)])
    emit_project(program, plan, learning, target, folder)
    flags = [f"CFLAGS=-O1 -g -march=x86-64-v2 {SANITIZE}", f"LDFLAGS={SANITIZE}"]
    done = subprocess.run(["make", "-s", "-C", str(folder), "-j2", *flags], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert b"__asan_init" in (folder / program.name).read_bytes(), "built without sanitizers"
    return graph


@pytest.mark.parametrize("name", VARIANTS)
def test_inference_and_learning_are_clean_and_equal(name, tmp_path):
    folder, variant = tmp_path / "project", VARIANTS[name]
    graph = build(variant, folder)
    images = graphs.pixels(graph, 30)
    with connect(open_build(folder, load_target("host")), timeout_s=60) as client:
        np.testing.assert_array_equal(np.stack([client.infer(image) for image in images]), interp.run(graph, images))
        for image in images[:3]:
            client.trace(image)
        mirror = TwinMirror(graph, variant.learn, 7, client)
        mirror.learn_init(7)
        for labels in ((0, 1), (), (2,), (0, 3, 4)):
            mirror.begin()
            for number, image in enumerate(images if labels else ()):
                mirror.add(labels[number % len(labels)], image)
            more = True
            while more:
                _, more = mirror.step()
            mirror.end()
        want = mirror.twin.scores(mirror.path.features(images))
        np.testing.assert_array_equal(np.stack([client.classify(image) for image in images]), want)
        assert mirror.comparisons > 30 and (want.max(axis=1) > -(2**31)).all()
