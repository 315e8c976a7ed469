# SPDX-License-Identifier: Apache-2.0
"""Analytic heads against textbook formulas: exact, independent of the order, forgetting nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from bnngen.continual.methods import METHODS, MethodSetting, Tuning
from tests.methods.data import CLASSES, SIZE, SIZES, setting

ANALYTIC = ("nearest-mean", "fixed-covariance", "fixed-projections", "slda", "slda-projections", "ridge")
PLAIN = Tuning(root=False, raw=False, projections=24)


@pytest.mark.parametrize("name", ANALYTIC)
def test_the_order_of_the_samples_does_not_matter(name, stream):
    x, y = stream
    once, again = (METHODS[name](setting(tuning=PLAIN)) for _ in range(2))
    once.learn(x, y)
    shuffled = np.random.default_rng(1).permutation(len(y))
    for part in np.array_split(shuffled, 7):
        again.learn(x[part], y[part])
    np.testing.assert_allclose(once.scores(x[:50]), again.scores(x[:50]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ANALYTIC)
def test_classes_never_seen_cannot_win(name, stream):
    x, y = stream
    method = METHODS[name](setting(tuning=PLAIN))
    method.learn(x[y < 2], y[y < 2])
    assert np.isneginf(method.scores(x)[:, 2:]).all()
    assert np.isfinite(method.scores(x)[:, :2]).all()


def test_streaming_discriminant_is_linear_discriminant_analysis(stream):
    """With equal priors and the pooled covariance (divided by N - C) it is scikit-learn's, up to a constant."""
    x, y = stream
    method = METHODS["slda"](setting(tuning=replace(PLAIN, shrinkage=0.3)))  # above what few samples ask for
    for part in np.array_split(np.arange(len(y)), 5):
        method.learn(x[part], y[part])
    freedom = (len(y) - CLASSES) / len(y)  # scikit-learn divides by N
    within = np.stack([x[y == c] - x[y == c].mean(axis=0) for c in range(CLASSES)]).reshape(-1, SIZE)
    covariance = within.T @ within / len(y) / freedom
    target = 0.7 * covariance + 0.3 * np.trace(covariance) / SIZE * np.eye(SIZE)
    np.testing.assert_allclose(method.covariance(), target, rtol=1e-3, atol=1e-5)
    sk = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3, priors=np.full(CLASSES, 1 / CLASSES)).fit(x, y)
    assert (sk.predict(x) == method.scores(x).argmax(axis=1)).mean() > 0.98


def test_few_samples_are_shrunk_more(stream):
    """One sample of each class has no scatter: the nearest mean. A few give a covariance that can be inverted."""
    x, y = stream
    first = np.array([np.flatnonzero(y == c)[0] for c in range(CLASSES)])
    slda, mean = METHODS["slda"](setting(tuning=PLAIN)), METHODS["nearest-mean"](setting(tuning=PLAIN))
    for method in (slda, mean):
        method.learn(x[first], y[first])
    assert (slda.scores(x).argmax(axis=1) == mean.scores(x).argmax(axis=1)).all()
    slda.learn(x[:3], y[:3])
    assert np.linalg.cond(slda.covariance()) < 100


def test_ridge_solves_the_normal_equations(stream):
    x, y = stream
    method = METHODS["ridge"](setting(tuning=PLAIN))
    method.learn(x, y)
    h = method.map(x).astype(np.float64)
    penalty = PLAIN.ridge * (h**2).sum() / h.shape[1]
    want = Ridge(penalty, fit_intercept=False).fit(h, np.eye(CLASSES)[y]).predict(h)
    np.testing.assert_allclose(method.scores(x), want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("raw", [False, True])
def test_projections_are_signs_above_a_median(raw, stream):
    x, _ = stream
    tuning = replace(PLAIN, raw=raw, activation="sign")
    features = METHODS["ridge"](setting(tuning=tuning)).map
    assert set(np.unique(features.matrix)) == {-1.0, 1.0}
    h = features(setting().pretraining)
    assert set(np.unique(h[:, :24])) == {-1.0, 1.0}
    assert abs(h[:, :24].mean(axis=0)).max() < 0.01  # half of the pre-training samples lie above
    assert h.shape[1] == features.size == 24 + raw * SIZE
    relu = METHODS["ridge"](setting(tuning=replace(tuning, activation="relu"))).map(x)
    assert relu[:, :24].min() == 0
    np.testing.assert_array_equal(relu[:, :24] > 0, features(x)[:, :24] > 0)


def test_constants_come_from_pretraining_alone(stream):
    """Nothing of the stream enters a threshold or a fixed covariance."""
    x, y = stream
    method = METHODS["fixed-projections"](setting(tuning=PLAIN))
    before = method.map.threshold.copy(), method.precision.copy()
    method.learn(x * 100, y)
    np.testing.assert_array_equal(before[0], method.map.threshold)
    np.testing.assert_array_equal(before[1], method.precision)
    with pytest.raises(AssertionError, match="labelled"):
        METHODS["fixed-covariance"](MethodSetting(CLASSES, SIZE, setting().pretraining))


@pytest.mark.parametrize(("name", "state", "work"), SIZES)
def test_memory_is_itemised(name, state, work):
    """Bytes counted by hand for 5 classes, 16 features: see tests/methods/data.py."""
    memory = METHODS[name](setting(tuning=PLAIN)).memory()
    assert memory.state == state
    assert memory.work == work


def test_principal_axes_are_those_of_the_pretraining_noise(stream):
    """Uncorrelated over the pre-training classes, the noisiest first; all axes together change nothing."""
    x, y = stream
    few = METHODS["fixed-covariance"](setting(tuning=replace(PLAIN, subspace=6, shrinkage=0.0)))
    spread = np.linalg.inv(few.precision)
    np.testing.assert_allclose(spread, np.diag(np.diag(spread)), atol=1e-4)
    assert (np.diff(np.diag(spread)) < 0).all()
    assert few.map(x).shape == (len(x), 6) and few.memory().state["class sums"] == 4 * CLASSES * 6
    rotated, plain = (METHODS["slda"](setting(tuning=replace(PLAIN, subspace=d))) for d in (SIZE, 0))
    for method in (rotated, plain):
        method.learn(x, y)
    np.testing.assert_allclose(rotated.scores(x), plain.scores(x), rtol=2e-3, atol=2e-2)
