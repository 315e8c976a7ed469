# SPDX-License-Identifier: Apache-2.0
"""State out and in again: a learner that takes over another's state goes on as that one does; damage is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tests.learn.script import Call, Case
from tests.learn.test_govern import CALL, HOLD, of_classes, separable, show, state_after

E_FORMAT, E_RANGE = "fffffff9", "fffffffb"
CONFIGS = [{}, {"reject": 10}, {"policy": "random", "hold_every": 0}, {"replay": 0}, {"hold": 0, "q_b": 8}]
CONFIGS += [{"q_b": 32}, {"head": "float32"}, {"head": "mean"}, {"head": "lda"}, {"policy": "generative"}]


def put_back(items: list[bytes]) -> Call:
    """The call that writes all items, in two pieces each, and restores."""
    words = []
    for number, data in enumerate(items):
        half = len(data) // 3
        for offset, part in ((0, data[:half]), (half, data[half:])):
            words += [number, offset, len(part)]
            words += struct.unpack(f"<{-(-len(part) // 4)}I", part + bytes(-len(part) % 4))
    return ("restore", 2 * len(items), tuple(words))


def run(harness, tmp_path, case: Case, calls: list[Call]) -> list[list[str]]:
    from tests.learn.script import program_lines

    script = tmp_path / "script.bin"
    script.write_bytes(case.encode(calls))
    return [line.split() for line in program_lines([str(harness), str(script)])]


def learned(config: dict) -> tuple[Case, list[Call], list[Call]]:
    """A case, the calls of two experiences, and those of a third."""
    case = separable(config)
    before = show(case, *of_classes((0, 1), 30)) + show(case, *of_classes((1, 2), 30))
    return case, before, [*show(case, *of_classes((2, 3), 30)), ("scores", 7, ()), ("decide", 7, ())]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_restored_learner_goes_on_alike(harness, tmp_path, config):
    case, before, after = learned(config)
    straight = run(harness, tmp_path, case, before + after)[len(before) :]
    other = Case(case.head, case.scale, case.words, case.config, case.table, seed=99)
    lines = run(harness, tmp_path, other, [put_back(state_after(case, before).items()), *after])
    assert lines[0][1] == "00000000"
    assert lines[1:] == straight


def changed(case: Case, calls: list[Call], name: str, offset: int, value: int, size: str = "I") -> list[bytes]:
    """Return the items after the calls, with one number in one of them changed."""
    twin = state_after(case, calls)
    items = [bytearray(item) for item in twin.items()]
    struct.pack_into(f"<{size}", items[twin.names.index(name)], offset, value)
    return [bytes(item) for item in items]


BAD = [  # item, offset in it, value, type: what no learner between experiences holds
    ("state", 8, 10000, "i"),  # exponents of the rows
    ("state", 12, -10000, "i"),
    ("state", 16, 2, "I"),  # an open experience
    ("state", 20, 2**31, "I"),  # finished experiences
    ("state", 28, 21, "I"),  # samples in the buffer of 20
    ("state", 32, 18, "I"),  # samples in the memory of 17
    ("state", 56, 10, "I"),  # held-back samples in 9 slots
    ("state", 60, 7, "I"),  # and of the open experience, in 6
    ("state", 68, 5, "I"),  # a verdict
    ("past", 4, 2**31, "I"),
    ("cur", 0, 2**32 - 1, "I"),
    ("seen", 0, 0, "I"),  # replayed samples of a class that was not seen
    ("hold seen", 4, 0, "I"),
    ("hold counts", 8, 2**31, "I"),
    ("replay labels", 2, 4, "H"),  # classes outside the head
    ("replay labels", 32, 65535, "H"),
    ("hold labels", 0, 4, "H"),
    ("hold new labels", 2, 9, "H"),
    ("buffer labels", 4, 4, "H"),
]


@pytest.mark.parametrize("change", BAD, ids=str)
def test_a_state_that_cannot_be_is_refused(harness, tmp_path, change):
    """The learner is then a new one, with seed 0, and learns."""
    case, before, after = learned({})
    calls = [*before, put_back(changed(case, before, *change)), *after]
    lines = run(harness, tmp_path, case, calls)
    assert lines[len(before)][1] == E_FORMAT
    fresh = Case(case.head, case.scale, case.words, case.config, case.table, seed=0)
    assert lines[len(before) + 1 :] == run(harness, tmp_path, fresh, after)


def test_quotas_are_held(harness, tmp_path):
    """Class-balanced slots that one class has filled beyond its quota would leave others none."""
    case, before, _ = learned({})
    twin = state_after(case, before)
    items = twin.items()
    place = twin.names.index("replay labels")
    items[place] = np.zeros(17, "<u2").tobytes()
    assert run(harness, tmp_path, case, [put_back(items)])[0][1] == E_FORMAT


@pytest.mark.parametrize("piece", [(99, 0, 4, 0), (1, 13, 4, 0), (1, 2**32 - 1, 4, 0), (1, 17, 0)], ids=str)
def test_writes_outside_an_item_are_refused(harness, tmp_path, piece):
    case = separable({})
    lines = run(harness, tmp_path, case, [CALL["begin"], CALL["end"], ("restore", 1, piece)])
    assert lines[-1][1] == E_RANGE and lines[-1][2:] == lines[-2][2:]


def test_random_damage_never_breaks_memory(harness, tmp_path):
    """Whatever bytes are written: refused, or a learner that goes on inside its memory (the sanitizers watch)."""
    rng = np.random.default_rng(1)
    for trial in range(12):
        case, before, after = learned(HOLD | {"policy": ["balanced", "random"][trial % 2], "reject": 5})
        items = [bytearray(item) for item in state_after(case, before).items()]
        for item in items[1:] if trial % 3 else items[:4]:
            for place in rng.integers(0, len(item), 1 + trial % 2):
                item[place] = int(rng.integers(0, 256))
        calls = [put_back([bytes(item) for item in items]), *after, ("forget", 1, ())]
        assert run(harness, tmp_path, case, calls)[0][1] in (E_FORMAT, "00000000")


@pytest.mark.parametrize("q_b", [8, 16, 32])
def test_weights_that_have_no_opposite(harness, tmp_path, q_b):
    """-2^15 and -2^31, which no learner stores, are taken like any other weight (the sanitizers watch)."""
    case, before, after = learned({"q_b": q_b})
    twin = state_after(case, before)
    items = twin.items()
    size = len(items[twin.names.index("cw")])
    for name in ("cw", "tw"):
        items[twin.names.index(name)] = (bytes(3 if q_b == 32 else 1) + b"\x80") * (size // (4 if q_b == 32 else 2))
    assert run(harness, tmp_path, case, [put_back(items), *after])[0][1] == "00000000"
