# SPDX-License-Identifier: Apache-2.0
"""Analytic heads: the C equals the twin after every call; order, merging and forgetting do what they promise."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bnngen.continual.twin import E_RANGE, E_STATE, MORE, OK, Twin
from bnngen.errors import UsageError
from bnngen.ir import HeadInput
from bnngen.lower.learning import LearnConfig, learning_constants
from tests.learn.script import WARNINGS, Call, Case, program_lines
from tests.learn.test_targets import CORTEX_M4, need, objects

HEADS = [
    {"head": "mean"},
    {"head": "lda"},
    {"head": "lda", "exact_forget": True},
    {"head": "lda", "undo": False, "shrinkage": 0.0},
    {"head": "lda", "projections": 24, "projection_seed": 7},
    {"head": "ridge", "projections": 40},
    {"head": "ridge", "projections": 9, "undo": False, "exact_forget": True},
    {"head": "mean", "projections": 5, "undo": False},
]
DTYPES = {8: np.int8, 16: np.int16}


def analytic_case(shape: tuple[int, int], options: dict, stream: int = 16, seed: int = 1) -> Case:
    """A head of shape (D, C) over a table of 64 stream vectors in clusters, a cluster a class."""
    rng = np.random.default_rng(seed)
    limit = np.iinfo(DTYPES[stream]).max
    centres = rng.uniform(-0.1, 0.7, (shape[1], shape[0]))
    table = centres[np.arange(64) % shape[1]] + rng.normal(0, 0.15, (64, shape[0]))
    table = np.clip(table * limit, -limit, limit).astype(DTYPES[stream])
    return Case(HeadInput("features", -0.37, 4.0, shape[1]), 4.0 / limit, 1, LearnConfig(**options), table, seed)


def lesson(case: Case, rows: Sequence[int], steps: int | None = None) -> list[Call]:
    """begin, rows with the label of their cluster, steps (None: to the end and one more), end, one scoring."""
    mapped = learning_constants(case.graph, case.config).settings["mapped"]
    calls: list[Call] = [("begin", 0, ())]
    calls += [("add", int(row) % case.head.capacity, case.latent(int(row))) for row in rows]
    calls += [("step", 0, ())] * (mapped + case.head.capacity + 1 if steps is None else steps)
    return [*calls, ("end", 0, ()), ("scores", int(rows[0]) if len(rows) else 0, ())]


def taught(case: Case, rows: Sequence[int], twin: Twin | None = None) -> Twin:
    """Return a twin that has learned the rows in one experience."""
    twin = case.twin() if twin is None else twin
    assert twin.begin() == OK
    for row in rows:
        assert twin.add(np.array(case.latent(int(row)), np.uint32), int(row) % case.head.capacity) == OK
    while twin.step() == MORE:
        pass
    assert twin.end() == OK
    return twin


def merge_calls(case: Case, source: Twin, pieces: int = 1) -> list[Call]:
    """Return the calls that merge a twin's additive items, in pieces."""
    calls: list[Call] = []
    for item, (name, data) in enumerate(zip(source.names, source.items(), strict=True)):
        if name not in ("past", "sums", "moments"):
            continue
        values = np.frombuffer(data, "<u4")
        for part in np.array_split(np.arange(len(values)), pieces):
            if len(part):
                calls.append(("merge", item, (int(part[0]), len(part), *map(int, values[part]))))
    return calls


def answers(twin: Twin) -> dict[str, bytes]:
    """What answers and what is kept, by name."""
    kept = ("past", "cw", "bias", "sums", "moments")
    return {name: data for name, data in zip(twin.names, twin.items(), strict=True) if name in kept}


@pytest.mark.parametrize("options", HEADS, ids=str)
@pytest.mark.parametrize("shape", [(1, 2), (13, 4), (33, 10)], ids=str)
def test_state_is_equal_after_every_call(check, shape, options):
    case = analytic_case(shape, {"q_f": 8 - sum(shape) % 3, **options}, 8 if shape[0] == 13 else 16, sum(shape))
    rng = np.random.default_rng(5)
    rows = [rng.integers(0, 64, size) for size in (1, 30, 0, 25)]
    calls = [call for part in rows for call in lesson(case, part)]
    calls += [("forget", 1, ()), ("scores", 1, ()), *lesson(case, [1, 3, 5], 2), ("forget", 0, ()), ("step", 0, ())]
    calls += [("begin", 0, ()), ("abandon", 0, ()), ("begin", 0, ()), ("add", 1, case.latent(1)), ("step", 0, ())]
    calls += [("abandon", 0, ()), ("forget", 1, ()), ("add", 99, case.latent(2)), ("end", 0, ()), ("scores", 3, ())]
    lines = check(case, calls)
    assert len({line[6] for line in lines}) > 4  # cw moves: the comparison is not of zeros


@pytest.mark.parametrize("options", HEADS, ids=str)
def test_merging_calls_are_equal(check, options):
    case = analytic_case((13, 4), options)
    merge = merge_calls(case, taught(case, range(20)), pieces=3)
    calls = [*lesson(case, range(30, 50)), merge[0], ("begin", 0, ()), *merge]
    calls += [("merge", 0, (0, 0)), ("merge", 4, (0, 0))]
    calls += [("merge", 1, (3, 2, 1, 1)), ("merge", 1, (0, 1, 2**31 + 5)), ("merge", 77, (0, 0)), ("step", 0, ())]
    calls += [merge[0], ("end", 0, ()), ("scores", 3, ())]
    calls += [("begin", 0, ()), ("merge", 1, (0, 0)), *[("step", 0, ())] * 5, ("end", 0, ()), ("scores", 3, ())]
    check(case, calls)


@pytest.mark.parametrize("options", HEADS, ids=str)
def test_the_order_of_samples_and_experiences_does_not_matter(options):
    case = analytic_case((13, 4), options)
    rows = np.arange(40)
    shuffled = np.random.default_rng(3).permutation(rows)
    once = answers(taught(case, rows))
    assert answers(taught(case, shuffled)) == once
    assert answers(taught(case, shuffled[25:], taught(case, shuffled[:25]))) == once


@pytest.mark.parametrize("options", HEADS, ids=str)
def test_merged_devices_are_one_device_that_saw_everything(options):
    case = analytic_case((13, 4), options)
    one = taught(case, range(40))
    half, other = taught(case, range(20)), taught(case, range(20, 40))
    assert half.begin() == OK
    for _, item, (first, _, *values) in merge_calls(case, other, pieces=4):
        assert half.merge(item, first, np.array(values, np.uint32).view(np.int32).astype(np.int64)) == OK
    while half.step() == MORE:
        pass
    assert half.end() == OK
    assert answers(half) == answers(one)


@pytest.mark.parametrize("options", [HEADS[0], HEADS[2], HEADS[6], HEADS[7]], ids=str)
def test_exact_forgetting_leaves_the_state_of_a_learner_that_never_saw_the_class(options):
    case = analytic_case((13, 4), options)
    forgot = taught(case, range(40))
    assert forgot.forget(2) == OK
    forgot.begin()
    assert forgot.merge(1, 0, np.zeros(0, np.int64)) == OK  # solve anew
    while forgot.step() == MORE:
        pass
    forgot.end()
    assert answers(forgot) == answers(taught(case, [row for row in range(40) if row % 4 != 2]))


def test_shared_moments_keep_only_the_scatter_of_a_forgotten_class():
    case = analytic_case((13, 4), {"head": "lda"})
    twin = taught(case, range(40))
    moments, sums, n = twin.head.moments[0, 0].copy(), twin.head.sums[0, 2].astype(float), 10
    twin.forget(2)
    removed = moments - twin.head.moments[0, 0]
    assert np.abs(removed - np.outer(sums, sums) / n).max() <= 0.5
    assert not twin.head.sums[0, 2].any() and not twin.head.cw[2].any()


@pytest.mark.parametrize("options", HEADS, ids=str)
def test_abandoning_leaves_everything_as_before(options):
    case = analytic_case((13, 4), options)
    twin = taught(case, range(20))
    before = answers(twin)
    twin.begin()
    twin.add(np.array(case.latent(30), np.uint32), 2)
    twin.step()
    if not case.config.undo:
        assert twin.abandon() == E_STATE
        return
    assert twin.abandon() == OK and answers(twin) == before
    after = taught(case, range(20, 40), twin)
    assert answers(after) == answers(taught(case, range(40)))


@pytest.mark.parametrize("options", HEADS[1:6], ids=str)
def test_one_sample_a_class_is_the_nearest_mean(options):
    """Without any scatter the matrix is a multiple of the identity; one sample in all works too."""
    case = analytic_case((13, 4), options)
    alone = taught(case, [3])
    assert alone.scores(case.table[:1].astype(np.int64)).argmax() == 3
    twin = taught(case, range(4))
    phi = twin.head.map(case.table.astype(np.int64))
    nearest = ((phi[:, None] - phi[None, :4]) ** 2).sum(axis=2).argmin(axis=1)
    if not twin.head.regress:
        assert (twin.scores(case.table.astype(np.int64)).argmax(axis=1) == nearest).all()
    assert (twin.scores(case.table[:4].astype(np.int64)).argmax(axis=1) == np.arange(4)).all()


def full_case(head: str, undo: bool = True) -> Case:
    """Operands of +255 and 0 alone."""
    table = np.array([[32767, 0], [32767, 32767]], np.int16)
    config = LearnConfig(head=head, undo=undo)
    return Case(HeadInput("features", 0.0, 1.0, 3), 1.0 / 32767, 1, config, table, 1)


@pytest.mark.parametrize(("head", "undo"), [("lda", True), ("lda", False), ("mean", True)])
def test_a_sum_that_is_full_refuses_the_sample_and_keeps_working(check, head, undo):
    """Sums close to 2^31 - 1 are reached by merging; the next samples are the last that fit."""
    case = full_case(head, undo)
    count = (2**31 - 1) // 255**2 - 2 if head == "lda" else (2**31 - 1) // 255 - 2
    sums = [count * 255, 0, 0, 0, 0, 0]
    calls: list[Call] = [("begin", 0, ()), ("merge", 1, (0, 1, count)), ("merge", 8 if undo else 8, (0, 6, *sums))]
    if head == "lda":
        calls.append(("merge", 10 if undo else 9, (0, 1, count * 255**2)))
    calls += [("add", 0, (0,)), ("step", 0, ()), ("end", 0, ()), ("begin", 0, ())] + [("add", 0, (0,))] * 3
    calls += [("add", 1, (1,)), ("step", 0, ()), ("end", 0, ()), ("scores", 0, ()), ("scores", 1, ())]
    lines = check(case, calls)
    adds = [int(line[1], 16) - 2**32 * (line[1][0] == "f") for line in lines if line[0] == "00000002"]
    assert adds == [OK, OK, E_RANGE, E_RANGE, E_RANGE if head == "lda" else OK]


@pytest.mark.parametrize("options", [{"head": "mean"}, {"head": "lda", "shrinkage": 1e-4}], ids=str)
def test_largest_operands_stay_inside_their_bounds(check, options):
    """The sanitizer watches the C: all operands at 255, rows at their largest, 2048 features."""
    table = np.zeros((4, 2048 if options["head"] == "mean" else 96), np.int16)
    table[0], table[1, ::2], table[2, 1::2] = 32767, 32767, 32767
    case = Case(HeadInput("features", 0.0, 1.0, 3), 1.0 / 32767, 1, LearnConfig(**options), table, 5)
    check(case, lesson(case, [0, 1, 2, 3, 0, 0, 1], 120))


@pytest.mark.parametrize(("change", "option"), [
    ({"head": "lda", "projections": 2036}, "--projections"),
    ({"head": "lda", "projections": -1}, "--projections"), ({"head": "lda", "shrinkage": 1.5}, "--shrinkage"),
    ({"head": "lda", "shrinkage": float("nan")}, "--shrinkage"),
    ({"head": "mean", "undo": False, "hold_every": 5}, "--no-undo with --hold-every"),
    ({"head": "lda", "projection_seed": -1}, "--projection-seed"),
], ids=str)  # fmt: skip
def test_options_that_cannot_work_are_refused(change, option):
    case = analytic_case((13, 4), {})
    with pytest.raises(UsageError) as caught:
        learning_constants(case.graph, replace(case.config, **change))
    assert caught.value.where == option and caught.value.why and caught.value.fix


def test_what_experiences_held_back_judge_can_be_refused(check):
    """Governed learning with an analytic head: samples are held back, and the verdict drops or keeps the sums."""
    case = analytic_case((13, 4), {"head": "lda", "hold_every": 3, "accept_drop": 0, "hold": 8, "hold_new": 8})
    wrong = [("begin", 0, ()), *[("add", (row + 1) % 4, case.latent(row)) for row in range(30)]]
    wrong += [*[("step", 0, ())] * 18, ("end", 0, ()), ("scores", 1, ())]
    check(case, [*lesson(case, range(30)), *wrong, *lesson(case, range(30, 60))])


@pytest.mark.parametrize("options", HEADS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_sums_that_no_samples_have_stay_defined(harness: Path, tmp_path: Path, options, seed):
    """Random bytes as state: answers mean nothing, and the sanitizers find nothing."""
    case = analytic_case((13, 4), options)
    rng = np.random.default_rng(seed)
    pieces = []
    for item, (name, data) in enumerate(zip(case.twin().names, case.twin().items(), strict=True)):
        if name in ("sums", "moments", "cw", "bias", "past"):
            words = rng.integers(0, 2**32, len(data) // 4, np.uint32)
            words = np.where(rng.random(len(words)) < 0.3, rng.choice([0, 1, 2**31 - 1, 2**31], len(words)), words)
            words = words & (2**31 - 1 if name == "past" else 2**32 - 1)
            pieces.append((item, 0, len(data), *map(int, words)))
    state = ("restore", len(pieces), tuple(word for piece in pieces for word in piece))
    calls = [state, ("scores", 1, ()), ("forget", 1, ()), *lesson(case, range(20))]
    calls += [("forget", 0, ()), ("scores", 1, ())]
    script = tmp_path / "script.bin"
    script.write_bytes(case.encode(calls))
    lines = [line.split() for line in program_lines([str(harness), str(script)])]
    assert len(lines) == len(calls) and lines[0][1] == struct.pack(">i", OK).hex()


FILES = {"mean": ("head_mean", "mapping", "rows"), "lda": ("head_lda", "cholesky", "mapping", "rows")}
CODE_LIMIT = {"mean": 2048, "lda": 5120}


@pytest.mark.parametrize("head", FILES)
def test_code_is_small(tmp_path: Path, head: str):
    """At -Os on a Cortex-M4, what a head links beside the learner."""
    need("arm-none-eabi-gcc")
    made = objects(tmp_path, [*CORTEX_M4[:3], "-Os", "-ffreestanding", *WARNINGS])
    own = [path for path in made if Path(path).stem in FILES[head]]
    sizes = subprocess.run(["arm-none-eabi-size", *own], capture_output=True, text=True, check=True).stdout
    rows = [[int(v) for v in line.split()[:3]] for line in sizes.splitlines()[1:]]
    text, data, bss = (sum(column) for column in zip(*rows, strict=True))
    assert len(own) == len(FILES[head]) and text <= CODE_LIMIT[head] and data == bss == 0


@pytest.mark.parametrize("options", HEADS, ids=str)
def test_sums_without_their_counts(check, options):
    """A merge that was given the sums alone: means are clamped where no samples could lead, here and in the twin."""
    case = analytic_case((13, 4), options)
    sums = [call for call in merge_calls(case, taught(case, range(40))) if call[1] != 1]
    calls = [("begin", 0, ()), ("add", 1, case.latent(1)), *sums, *[("step", 0, ())] * 70, ("end", 0, ())]
    check(case, [*calls, ("scores", 3, ()), *lesson(case, range(9))])
