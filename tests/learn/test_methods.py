# SPDX-License-Identifier: Apache-2.0
"""Streams, metrics and the methods compared; and that the integer learner learns real data as well as they do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnngen.continual.methods import METHODS, MethodSetting, Tuning, run_method
from bnngen.continual.metrics import history
from bnngen.continual.stream import NewClasses, new_classes, test_images
from bnngen.data import Dataset, load
from bnngen.errors import UsageError
from bnngen.ir import HeadInput
from bnngen.lower.learning import LearnConfig
from tests.learn.twin_method import TwinMethod, levels_of, pack

CLASSES, SIZE = 10, 64
CONFIG = LearnConfig(capacity=CLASSES)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """The digits as features: the mean of each 2x2 block of pixels, [N, 64], 0 to 4."""
    data = load("digits")

    def blocks(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), 8, 2, 8, 2).mean(axis=(2, 4), dtype=np.float32).reshape(len(x), -1) / 64

    return replace(data, x_train=blocks(data.x_train), x_test=blocks(data.x_test))


@pytest.fixture(scope="module")
def final(digits: Dataset) -> dict[str, float]:
    """Accuracy over all ten digits after 0 to 4 at once and then 5 to 9 one at a time."""
    experiences = new_classes(digits, NewClasses(tuple(range(CLASSES)), 5, 1))
    levels = levels_of(experiences[0].images)  # future classes enter no level and no range
    head = HeadInput("pixels", 0.0, float(experiences[0].images.max()), CLASSES)
    floats = MethodSetting(CLASSES, SIZE, config=CONFIG, tuning=Tuning(bits=32, root=False))
    methods = {
        "integer": TwinMethod(head, CONFIG, levels),
        "integer, 32 bits": TwinMethod(head, replace(CONFIG, q_b=32), levels),
        "float32 head": TwinMethod(head, replace(CONFIG, head="float32"), levels),
        "generative": TwinMethod(head, replace(CONFIG, policy="generative"), levels),
        "no replay": TwinMethod(head, replace(CONFIG, replay=0), levels),
        "float, 1-bit latents": METHODS["cwr-replay"](replace(floats, levels=levels, tuning=Tuning(bits=1))),
        "float, float latents": METHODS["cwr-replay"](floats),
        "sgd": METHODS["naive"](floats),
        "nearest mean": METHODS["nearest-mean"](floats),
        "joint": METHODS["joint"](floats),
    }
    test = digits.x_test, digits.y_test
    return {name: run_method(m, experiences, test).accuracy_seen(5) for name, m in methods.items()}


def test_integer_learner_is_as_good_as_its_float_twin(final):
    assert final["integer"] > 0.88
    assert final["integer"] > final["float, 1-bit latents"] - 0.03
    assert final["integer"] > final["nearest mean"]


def test_wider_heads_learn_as_the_float_method_does(final):
    """CWR* in float32 on the device, and with weights of 32 bits, against continual/methods' CWR*: apart by noise, as
    the samples that they draw differ."""
    for name in ("integer, 32 bits", "float32 head"):
        assert abs(final[name] - final["float, 1-bit latents"]) < 0.03
    assert abs(final["integer, 32 bits"] - final["float32 head"]) < 0.015


def test_generated_samples_stand_for_stored_ones(final):
    """10 x 4 x 65 bytes instead of 300 x 10."""
    assert final["generative"] > final["no replay"] + 0.2
    assert final["generative"] > final["integer"] - 0.06


def test_methods_stand_where_they_should(final):
    """Forgetting without CWR* and replay; all data at once is the best; 1-bit latents cost a little."""
    assert final["sgd"] < 0.3
    assert max(final.values()) == final["joint"] > 0.93
    assert final["float, float latents"] > final["float, 1-bit latents"] - 0.02


def test_stream_shows_each_class_once(digits):
    plan = NewClasses((3, 8, 0, 5, 9, 1, 7, 2, 6, 4), 4, 2, train_cap=20, seed=3)
    experiences = new_classes(digits, plan)
    assert [len(e.classes) for e in experiences] == [4, 2, 2, 2]
    assert sum((e.classes for e in experiences), ()) == plan.order
    for e in experiences:
        assert sorted(np.unique(e.labels)) == sorted(e.classes)
        assert (np.bincount(e.labels)[list(e.classes)] == 20).all()
    again = new_classes(digits, plan)
    assert all(np.array_equal(a.images, b.images) for a, b in zip(experiences, again, strict=True))
    other = new_classes(digits, replace(plan, seed=4))
    assert not np.array_equal(experiences[0].images, other[0].images)


def test_last_experience_may_be_smaller(digits):
    experiences = new_classes(digits, NewClasses((1, 2, 3, 4, 5), 2, 2))
    assert [e.classes for e in experiences] == [(1, 2), (3, 4), (5,)]


def test_test_images_are_capped_by_class(digits):
    _, labels = test_images(digits, (7, 2), cap=5)
    assert labels.tolist() == [7] * 5 + [2] * 5


@pytest.mark.parametrize("plan", [NewClasses((0, 0, 1), 1, 1), NewClasses((0, 10), 1, 1), NewClasses((0, 1), 0, 1),
                                  NewClasses((0, 1), 3, 1), NewClasses((0, 1), 1, 0)])  # fmt: skip
def test_a_plan_that_cannot_be_is_refused(digits, plan):
    with pytest.raises(UsageError) as caught:
        new_classes(digits, plan)
    assert caught.value.fix


def test_metrics_of_a_worked_example():
    """Four test samples, classes 0 0 1 2; half of class 0 is wrong by the end."""
    labels = np.array([0, 0, 1, 2])
    h = history([(0,), (1,), (2,)], labels, [np.array([0, 0, 0, 0]), np.array([0, 1, 1, 0]), np.array([0, 2, 1, 2])])
    assert [h.accuracy_seen(i) for i in range(3)] == [1.0, pytest.approx(2 / 3), 0.75]


def test_packing_puts_channel_c_at_bit_c():
    """Bit 1 where the feature is below its threshold; the rest of the last word is 0."""
    levels = levels_of(np.array([[0.0] * 40, [2.0] * 40]))
    x = np.full((1, 40), 2.0)
    x[0, [0, 33]] = 0.0
    assert pack(x, levels).tolist() == [[1, 2]]
    assert levels.round_trip(x).tolist() == x.tolist()
