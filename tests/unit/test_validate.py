# SPDX-License-Identifier: Apache-2.0
"""Validation must notice: a wrong score, a wrong layer, a missing step."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from bnngen import interp, ir, validate
from bnngen.analysis import layer_costs
from bnngen.passes import run_passes
from tests import graphs


class InterpretedDevice:
    """Answers like a target, computed by the interpreter; `spoil` changes one layer's bytes."""

    def __init__(self, graph, spoil=None, drop=False):
        self.graph, self.spoil, self.drop = graph, spoil, drop

    def infer(self, image):
        scores = interp.run(self.graph, image[None])[0]
        return scores + (self.spoil == "scores")

    def trace(self, image):
        values = interp.evaluate(self.graph, image[None])
        steps = []
        for node in self.graph.nodes:
            data = interp.to_bytes(values[node.output][0], self.graph.tensors[node.output].dtype)
            if node.name == self.spoil:
                data = bytes([data[0] ^ 1]) + data[1:]
            steps.append((len(data), zlib.crc32(data)))
        return steps[: -1 if self.drop else None], values[self.graph.output][0]


@pytest.fixture(scope="module")
def graph():
    return run_passes(graphs.residual())


def quiet(what, done, total):
    pass


def report_for(graph, device, count=12):
    images = graphs.pixels(graph, 20)
    reference = validate.interpreter_stage(graph, images, quiet)
    labels = reference.scores.argmax(axis=1)
    stage = validate.device_stage("board", device, images[:count], quiet)
    return validate.compare([reference, stage], labels)


def test_equal_scores_are_exact(graph):
    report = report_for(graph, InterpretedDevice(graph))
    assert report.passed and report.rows[1].exact and report.rows[1].images == 12
    assert report.rows[1].accuracy == report.rows[1].agreement == 1.0
    assert sum(report.histogram) == 12


def test_one_wrong_unit_in_the_scores_fails(graph):
    report = report_for(graph, InterpretedDevice(graph, "scores"))
    assert not report.passed and report.rows[1].exact is False
    assert report.rows[1].agreement == 1.0, "the classes agree, and it must fail all the same"


def test_first_difference_names_the_layer(graph):
    image = graphs.pixels(graph, 1)[0]
    assert validate.first_difference(graph, InterpretedDevice(graph), image) is None
    assert "block1_conv" in validate.first_difference(graph, InterpretedDevice(graph, "block1_conv"), image)
    assert "11 steps" in validate.first_difference(graph, InterpretedDevice(graph, drop=True), image)


def test_floating_point_stages_claim_no_exactness(graph):
    scores = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    stages = [validate.Stage("keras", scores, False), validate.Stage("onnx", scores + 1e-6, False)]
    report = validate.compare(stages, None)
    assert [row.exact for row in report.rows] == [None, None] and report.rows[1].agreement == 1.0
    assert report.rows[0].accuracy is None


def test_layer_costs(graph):
    costs = {cost.name: cost for cost in layer_costs(graph)}
    assert costs["stem"].integer_macs == 10 * 9 * 33 * 27
    assert costs["block1_conv"].binary_macs == 10 * 9 * 33 * 9 * 33
    assert costs["block1_conv"].weight_bytes == 9 * 2 * 4 * 33 + 12 * 33  # two words a tap, mult and bias
    assert costs["block1_conv"].precision == "bits x bits -> s16"
    assert costs["logits"].weight_bytes == 40 * 5 + 4 * 5
    assert costs["t_pool"].binary_macs == costs["t_pool"].integer_macs == 0
    assert sum(isinstance(n, ir.BinaryConv2D) for n in graph.nodes) == 2
