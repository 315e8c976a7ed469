# SPDX-License-Identifier: Apache-2.0
"""What learning takes, before anything is flashed: each buffer, one plan, what fits where, what a refusal names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bnngen.analysis import memory_use
from bnngen.errors import BudgetError, UsageError
from bnngen.learning_memory import learning_items, what_fits
from bnngen.lower.learning import LearnConfig
from bnngen.lower.tail_constants import tail_buffers
from bnngen.pipeline import BuildOptions, Compiled, check_ram, compile_graph, const_needed
from bnngen.plan import LEARN_STEP, PERSISTENT, PlanError, check_plan
from bnngen.targets import load_target
from tests.tail_model.networks import Trained, trained

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")
BOARDS = ("nucleo-f746zg", "nucleo-h743zi", "nucleo-g071rb", "stm32f405")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Trained:
    """reactnet-nano of half width: three blocks of 64 channels can be trained."""
    return trained("reactnet-nano", 0.5, tmp_path_factory.mktemp("memory"))


def compiled(model: Trained, tail: int, target: str = "nucleo-f746zg", **learn: object) -> Compiled:
    _, real = model.export(f"tail:{tail}" if tail else "features")
    return compile_graph(real, load_target(target), BuildOptions(learn=LearnConfig(tail=tail, **learn)))


def test_every_buffer_is_listed_with_its_bytes(model):
    made = compiled(model, 1)
    items = learning_items(made)
    assert {item.name: item.bytes for item in items} == {b.name: b.bytes for b in made.learning.buffers}
    tail = made.learning.tail
    expected = {f"tail_{name}": size for name, size, *_ in tail_buffers(tail.spec, tail.config) if size}
    assert {item.name: item.bytes for item in items if item.group.startswith("tail:")} == expected | {"tail_dx": 256}
    assert sum(item.bytes for item in items if item.kept) < made.plan.arena_bytes
    groups = [item.group for item in items]
    assert groups == sorted(groups, key=groups.index)


def test_a_block_of_64_channels_fits_an_f746_and_a_frozen_network_36_kib(model):
    _, real = model.export("features")
    fits = {
        (fit.target, fit.tail): fit.memory
        for fit in what_fits(real, [load_target(name) for name in BOARDS], BuildOptions(), lambda *_: None)
    }
    assert {tail for _, tail in fits} == {0, 1, 2, 3}
    assert fits["nucleo-f746zg", 1].fits and not fits["nucleo-f746zg", 2].fits
    assert fits["nucleo-h743zi", 2].fits and fits["nucleo-g071rb", 0].fits
    assert not fits["nucleo-g071rb", 1].fits and not fits["stm32f405", 1].fits
    for name in BOARDS:
        assert fits[name, 0].ram_bytes < fits[name, 1].ram_bytes < fits[name, 2].ram_bytes < fits[name, 3].ram_bytes
    assert fits["nucleo-f746zg", 1] == memory_use(compiled(model, 1))  # an assumed cut sizes as the real one


def test_what_blocks_start_from_is_counted_in_flash(model):
    frozen, tail = compiled(model, 0), compiled(model, 1)
    vectors = 6 * 64 * 4  # scale, bias, shift, before, slope, behind
    assert const_needed(frozen) == frozen.program.const_bytes
    assert const_needed(tail) - tail.program.const_bytes == 9 * 64 * 64 + vectors + 64 * (4 + 2 + 2)


def test_a_refusal_names_what_to_reduce(model):
    with pytest.raises(BudgetError) as caught:
        check_ram(compiled(model, 2))
    assert "tail_sums" in caught.value.why
    for word in ("--tail 1", "64 (half of them take a quarter)", "--replay", "larger target"):
        assert word in caught.value.fix
    check_ram(compiled(model, 1))
    with pytest.raises(BudgetError) as caught:
        check_ram(compiled(model, 1, "stm32f405", q_bin=16))
    assert "--tail 0, the head alone" in caught.value.fix and "--q-bin 8" in caught.value.fix


def test_the_cut_tensor_is_safe_from_the_tails_memory(model):
    made = compiled(model, 1)
    cut = made.plan.buffer(made.program.values[made.program.cut].buffer)
    learning = [b for b in made.plan.buffers if b.kind in (PERSISTENT, LEARN_STEP)]
    assert all(b.end <= cut.offset or cut.end <= b.offset for b in learning)
    check_plan(made.program, made.plan)
    for name in ("learn/tail_stream", "learn/tail_committed_latents"):
        victim = made.plan.buffer(name)
        moved = tuple(
            replace(b, offset=cut.offset, steps=b.steps - cut.steps) if b is victim else b for b in made.plan.buffers
        )
        with pytest.raises(PlanError):
            check_plan(made.program, replace(made.plan, buffers=moved))


def test_the_weights_that_training_starts_from_are_in_the_hash(model):
    frozen, tail = compiled(model, 1), compiled(model, 1)
    assert frozen.program.model_hash == tail.program.model_hash
    _, real = model.export("tail:1")
    other = compile_graph(real, load_target("nucleo-f746zg"), BuildOptions())
    assert other.program.model_hash != tail.program.model_hash


@pytest.mark.parametrize(("option", "value"), [("head", "float32"), ("q_b", 32)])
def test_a_head_that_hands_no_gradient_on_is_refused(model, option, value):
    with pytest.raises(UsageError) as caught:
        compiled(model, 1, **{option: value})
    assert "--tail 1" in caught.value.why
