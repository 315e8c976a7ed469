# SPDX-License-Identifier: Apache-2.0
"""The planner's results are sound and tight, and the checker notices when they are not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnngen.lower import lower
from bnngen.plan import LEARN_STEP, PERSISTENT, LearnBuffer, Placed, PlanError, _place, check_plan, make_plan
from tests.golden import tiny

EXTRA = (
    LearnBuffer("replay", 1000),
    LearnBuffer("weights", 333, 8, PERSISTENT),
    LearnBuffer("gradient", 500, 8, LEARN_STEP),
    LearnBuffer("latent", 24, 16, LEARN_STEP),
)


@pytest.fixture(params=[tiny.small, tiny.everything], ids=["small", "everything"])
def program(request):
    graph, latent = request.param()
    return lower(graph, frozenset({"neon"}), "auto", latent)


def test_a_plan_passes_its_checker(program):
    plan = make_plan(program, EXTRA)
    assert plan.arena_bytes % 8 == 0
    assert plan.arena_bytes >= max(b.end for b in plan.buffers)
    assert set(plan.learn_offsets()) == {"replay", "weights", "gradient", "latent"}
    assert plan.learn_offsets()["latent"] % 16 == 0


@pytest.mark.parametrize("seed", range(60))
def test_plans_of_random_networks_pass(seed):
    """make_plan ends with check_plan, whose second proof executes the steps."""
    graph, latent = tiny.random_graph(seed)
    plan = make_plan(lower(graph, frozenset({"neon"}), "auto", latent), EXTRA)
    assert plan.inference_peak_bytes <= plan.arena_bytes


def test_learning_steps_reuse_what_only_the_front_needs():
    graph, latent = tiny.everything()
    program = lower(graph, latent=latent)
    alone = make_plan(program)
    step = make_plan(program, [LearnBuffer("gradient", 2000, 8, LEARN_STEP)])
    kept = make_plan(program, [LearnBuffer("gradient", 2000, 8, PERSISTENT)])
    assert step.arena_bytes == alone.arena_bytes
    assert kept.arena_bytes >= alone.arena_bytes + 1900


def test_the_peak_is_the_most_that_is_alive(program):
    plan = make_plan(program, EXTRA)
    alive = [sum(b.bytes for b in plan.alive(i)) for i in range(len(plan.timeline))]
    assert alive[plan.peak_step] == max(alive) <= plan.arena_bytes


def test_an_addition_works_in_place(program):
    for call in program.calls():
        if call.kernel == "add":
            buffers = [program.values[name].buffer for name in call.reads]
            assert program.values[call.write].buffer in buffers


def test_the_picture_names_every_buffer(program):
    plan = make_plan(program, EXTRA)
    text = plan.to_text()
    assert all(b.name in text for b in plan.buffers)
    assert len([line for line in text.splitlines() if line.endswith("|")]) == len(plan.timeline)


# ------------------------------------------------------------------------------------ the checker can fail


def moved(plan, name: str, offset: int):
    buffers = tuple(replace(b, offset=offset) if b.name == name else b for b in plan.buffers)
    return replace(plan, buffers=buffers)


def test_each_buffer_moved_onto_a_living_one_is_noticed(program):
    plan = make_plan(program, EXTRA)
    noticed = 0
    for a in plan.buffers:
        for b in plan.buffers:
            if a is not b and a.steps & b.steps:
                with pytest.raises(PlanError):
                    check_plan(program, moved(plan, a.name, b.offset))
                noticed += 1
    assert noticed > 10


def test_a_lifetime_that_ends_too_early_is_noticed_by_the_run(program):
    """The second proof does not believe the lifetimes: forget some, place again, and the run finds out."""
    plan = make_plan(program)
    shortened = [replace(b, steps=frozenset(sorted(b.steps)[:1])) for b in plan.buffers]
    placed = tuple(_place(shortened, lambda b: (-b.bytes, b.name)))
    arena = max(b.end for b in placed) + 8
    with pytest.raises(PlanError, match="overwritten|over its own input|do not survive"):
        check_plan(program, replace(plan, buffers=placed, arena_bytes=arena))


@pytest.mark.parametrize("offset", [4, -8, 1 << 20])
def test_offsets_outside_or_crooked_are_noticed(program, offset):
    plan = make_plan(program)
    with pytest.raises(PlanError, match="misaligned or outside"):
        check_plan(program, moved(plan, plan.buffers[0].name, offset))


buffers = st.lists(
    st.tuples(st.integers(1, 100), st.integers(0, 9), st.integers(0, 5), st.sampled_from([8, 16])),
    min_size=1,
    max_size=12,
)


@given(buffers)
@settings(max_examples=200, deadline=None)
def test_greedy_placement_never_overlaps(drawn):
    wanted = [
        Placed(str(i), size, align, "activation", frozenset(range(first, first + length + 1)))
        for i, (size, first, length, align) in enumerate(drawn)
    ]
    placed = _place(wanted, lambda b: (-b.bytes, b.name))
    assert sorted(b.name for b in placed) == sorted(b.name for b in wanted)
    for i, a in enumerate(placed):
        assert a.offset % a.align == 0 and a.offset >= 0
        for b in placed[:i]:
            assert not (a.steps & b.steps) or a.end <= b.offset or b.end <= a.offset
