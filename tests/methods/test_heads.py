# SPDX-License-Identifier: Apache-2.0
"""Every method on a stream of new classes: what learns, what forgets, what it takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnngen.continual.methods import METHODS, Tuning
from tests.methods.data import CLASSES, CONFIG, ROWS, setting

TUNINGS = {"cwr-replay": Tuning(bits=32), "generative": Tuning(components=2)}


def learned(name: str, stream, **config: object):
    x, y = stream
    method = METHODS[name](setting(TUNINGS.get(name, Tuning(projections=48)), **config))
    for c in (2, 0, 4, 1, 3):
        method.learn(x[y == c], y[y == c])
    return method


def accuracy(method, test) -> float:
    return float((method.scores(test[0]).argmax(axis=1) == test[1]).mean())


@pytest.fixture(scope="module")
def final(stream, unseen) -> dict[str, float]:
    """Accuracy over all classes, one class at a time."""
    return {name: accuracy(learned(name, stream), unseen) for name in METHODS}


def test_everything_but_the_naive_head_keeps_the_classes(final):
    assert final["naive"] < 0.5
    assert min(v for name, v in final.items() if name not in ("naive", "cwr")) > 0.7, final
    assert final["cwr"] > final["naive"] + 0.1


def test_all_data_at_once_bounds_the_gradient_heads(final):
    assert final["joint"] > 0.9
    assert final["joint"] + 0.02 > max(final["cwr-replay"], final["generative"], final["memory-only"])


@pytest.mark.parametrize("name", sorted(METHODS))
def test_same_seed_same_scores_and_bytes_that_add_up(name, stream):
    x, _ = stream
    one, two = learned(name, stream), learned(name, stream)
    np.testing.assert_array_equal(one.scores(x), two.scores(x))
    assert one.scores(x).dtype == np.float32
    assert 0 < one.state_bytes <= one.peak_bytes
    memory = one.memory()
    assert one.peak_bytes == sum(memory.state.values()) + sum(memory.work.values())
    assert one.constant_bytes == sum(memory.constants.values())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_an_empty_experience_teaches_nothing(name, stream):
    x, y = stream
    method = learned(name, stream)
    before = method.scores(x)
    method.learn(x[:0], y[:0])
    np.testing.assert_array_equal(before, method.scores(x))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_class_with_one_sample(name, stream):
    x, y = stream
    method = METHODS[name](setting(TUNINGS.get(name, Tuning(projections=48))))
    method.learn(x[y == 1], y[y == 1])
    method.learn(x[y == 0][:1], y[y == 0][:1])
    scores = method.scores(x)
    assert np.isfinite(scores[:, :2]).all() and np.isneginf(scores[:, 2:]).all()


def test_consolidation_of_a_worked_example(stream):
    """First experience: cw = tw - mean(tw). A class that returns with as many samples: the mean of old and new."""
    x, y = stream
    method = METHODS["cwr"](setting(Tuning(bits=32)))
    method.learn(x[y < 2], y[y < 2])
    np.testing.assert_allclose(method.weights[:2].mean(), 0, atol=1e-6)
    assert not method.weights[2:].any()
    before, cur = method.weights.copy(), np.array([60, 0, 0, 0, 0])
    trained = np.ones_like(before)
    trained[0, 0] = 17.0
    method.past = np.array([60.0, 60, 0, 0, 0])
    after = method._consolidated(trained, cur)
    np.testing.assert_allclose(after[0], (before[0] + trained[0] - trained[0].mean()) / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(after[1:], before[1:])


def test_centring_changes_what_the_head_reads_not_what_is_stored(stream):
    x, _ = stream
    plain, centred = (METHODS["cwr-replay"](setting(Tuning(centre=c))).codec for c in (False, True))
    np.testing.assert_array_equal(plain.encode(x), centred.encode(x))
    known = centred.operands(setting().pretraining)
    np.testing.assert_allclose(known.mean(axis=0), 0, atol=1e-4)
    assert abs(known.std() - 1) < 0.5


def test_the_price_of_consolidation_and_of_bits():
    """CWR* holds a second copy of the rows while it learns; latents shrink with their bits."""
    with_cwr, without = (METHODS[n](setting()) for n in ("cwr-replay", "sgd-replay"))
    assert with_cwr.state_bytes == without.state_bytes
    assert with_cwr.peak_bytes == without.peak_bytes + ROWS
    states = [METHODS["cwr-replay"](setting(Tuning(bits=b))).state_bytes for b in (1, 2, 4, 8, 32)]
    assert np.diff(states).tolist() == [CONFIG.replay * d for d in (2, 4, 8, 48)]


def test_neighbours_count_differing_bits(stream):
    x, y = stream
    method = METHODS["hamming"](setting(Tuning(neighbours=1), replay=CLASSES * 60))
    method.learn(x, y)
    codes = method.codec.encode(x[:40]).astype(int)
    kept, labels = method.memory_of.latents.astype(int), method.memory_of.labels
    nearest = abs(codes[:, None] - kept[None]).sum(axis=2).argmin(axis=1)
    assert (labels[nearest] == method.scores(x[:40]).argmax(axis=1)).all()


def test_random_memory_serves_as_well(stream, unseen):
    method = METHODS["cwr-replay"](replace(setting(TUNINGS["cwr-replay"], policy="random"), seed=3))
    x, y = stream
    for c in (2, 0, 4, 1, 3):
        method.learn(x[y == c], y[y == c])
    assert accuracy(method, unseen) > 0.7
