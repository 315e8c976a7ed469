# SPDX-License-Identifier: Apache-2.0
"""Constants and buffers of the learner: two derivations agree, and what cannot work is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnngen.continual.twin_constants import twin_constants
from bnngen.errors import ModelError, UsageError
from bnngen.ir import HeadInput
from bnngen.lower.learning import LearnConfig, learn_buffers, learning_constants
from bnngen.lower.learning.view import MEMORY_FIELDS, learn_view
from tests.learn.script import Case

SAME = ("x_mult", "x_shift", "t_mult", "t_shift", "u_mult", "u_shift", "e_min", "e_max")


def case_of(head: HeadInput, scale: float, config: LearnConfig, size: int = 4) -> Case:
    return Case(head, scale, 1, config, np.zeros((1, size), np.int16))


@given(
    st.floats(-50, 50),
    st.floats(-50, 50),
    st.floats(1e-6, 0.05),
    st.floats(1e-3, 2.0),
    st.integers(1, 256),
    st.integers(4, 8),
    st.sampled_from([8, 16, 32]),
)
@settings(deadline=None, max_examples=200)
def test_both_derivations_agree(lo, hi, scale, lr, batch, q_f, q_b):
    head = HeadInput("features", min(lo, hi) / 8, max(lo, hi) + 0.1, 5)
    lr = lr / 200 if q_b == 32 else lr  # what is far beyond any use is refused there
    config = LearnConfig(lr=lr, batch=batch, q_f=q_f, q_b=q_b)
    program = learning_constants(case_of(head, scale, config).graph, config)
    twin = twin_constants(head, scale, (q_f, q_b), (lr, batch))
    constants = program.settings
    assert [constants[name] for name in SAME] == [getattr(twin, name) for name in SAME]
    assert (constants["x_lo"], constants["x_hi"]) == (-twin.zero, twin.p - twin.zero)
    assert (constants["p_max"], constants["w_max"], constants["g_max"]) == (twin.p, twin.f, twin.l)


@pytest.mark.parametrize(
    ("lo", "hi", "codes"),
    [
        (0.0, 0.0, (0, 255)),
        (0.5, 2.0, (0, 255)),
        (-2.0, -1.0, (-255, 0)),
        (-1.0, 1.0, (-128, 127)),
        (0.0, 3.0, (0, 255)),
    ],
)
def test_operand_range_contains_zero(lo, hi, codes):
    config = LearnConfig()
    program = learning_constants(case_of(HeadInput("features", lo, hi, 5), 0.001, config).graph, config)
    assert (program.settings["x_lo"], program.settings["x_hi"]) == codes


@pytest.mark.parametrize(("change", "option"), [
    ({"replay": -1}, "--replay"), ({"replay": 65536}, "--replay"), ({"buffer": 0}, "--buffer"),
    ({"buffer": -1}, "--buffer"), ({"batch": 0}, "--learn-batch"), ({"batch": 257}, "--learn-batch"),
    ({"new_per_batch": 65}, "--new-per-batch"), ({"new_per_batch": -1}, "--new-per-batch"),
    ({"capacity": 1}, "--capacity"), ({"capacity": 16385}, "--capacity"),
    ({"q_f": 3}, "--q-f"), ({"q_f": 9}, "--q-f"),
    ({"q_b": 12}, "--q-b"), ({"epochs": 0}, "--learn-epochs"), ({"lr": 0.0}, "--learn-rate"),
    ({"lr": -1.0}, "--learn-rate"), ({"q_f": 10**9}, "--q-f"),
    ({"lr": float("inf")}, "--learn-rate"), ({"lr": float("nan")}, "--learn-rate"), ({"lr": 1e-30}, "--learn-rate"),
    ({"policy": "newest"}, "--policy"), ({"head": "tail"}, "--head"),
], ids=str)  # fmt: skip
def test_options_that_cannot_work_are_refused(change, option):
    config = replace(LearnConfig(), **change)
    with pytest.raises(UsageError) as caught:
        learning_constants(case_of(HeadInput("features", 0.0, 4.0, 10), 0.001, config).graph, config)
    assert caught.value.where == option and caught.value.why and caught.value.fix


def test_too_many_features_are_refused():
    config = LearnConfig()
    with pytest.raises(UsageError, match="q-f"):
        learning_constants(case_of(HeadInput("features", 0.0, 4.0, 10), 0.001, config, 66312).graph, config)


def test_a_model_without_a_cut_is_refused():
    graph = case_of(HeadInput("features", 0.0, 4.0, 10), 0.001, LearnConfig()).graph
    with pytest.raises(ModelError, match="cannot learn"):
        learning_constants(replace(graph, meta=replace(graph.meta, latent=None)), LearnConfig())


def test_buffers_and_view_name_the_same_memory():
    config = LearnConfig(replay=7, buffer=5, capacity=6)
    case = case_of(HeadInput("features", 0.0, 4.0, 10), 0.001, config, 9)
    program = learning_constants(case.graph, config)
    sizes = {name: size for name, size, _, _ in learn_buffers(program)}
    assert sizes["tw"] == sizes["cw"] == 2 * 6 * 9 and sizes["dw"] == 4 * 6 * 9 and sizes["wq"] == 6 * 9
    assert sizes["replay_latents"] == 7 * 4 and sizes["buffer_labels"] == 5 * 2
    assert {kind for *_, kind in learn_buffers(program)} == {"persistent", "learn_step"}
    offsets = {name: 8 * place for place, name in enumerate(sizes)}
    view = learn_view("toy", program, offsets)
    assert [p.field for p in view.pointers] == list(sizes)
    assert {p.field for p in view.pointers} | set(view.unused) == set(MEMORY_FIELDS)
    assert [p.offset for p in view.pointers] == list(offsets.values()) and view.latent_offset == offsets["latent"]


def test_capacity_comes_from_the_model_or_the_option():
    head = HeadInput("features", 0.0, 4.0, 10)
    for config, capacity in ((LearnConfig(), 10), (LearnConfig(capacity=20), 20)):
        assert learning_constants(case_of(head, 0.001, config).graph, config).capacity == capacity
