# SPDX-License-Identifier: Apache-2.0
"""Tuning of the heads on CIFAR-100 alone: `python docs/studies/heads_tuning.py FEATURES.npz TABLE [--orders N]`.

FEATURES.npz: float32 features that the integer backbone computes; arrays pretraining [N, D] and
pretraining_labels [N] of images of classes 0 to 79, x [M, D] and y [M] of training images of classes 80 to 99,
and threshold, low, high [D], the 1-bit levels in the model's metadata. The last 100 images of each stream class
are the validation set; the rest is the stream. Test images are not read.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bnngen.continual.methods import METHODS, Levels, Method, MethodSetting, Tuning
from bnngen.continual.methods.analytic import ClassMeans, FixedCovariance, RidgeRegression, StreamingDiscriminant
from bnngen.lower.learning import LearnConfig

Array = np.ndarray
HELD_OUT, CLASSES, CHUNK = 100, 20, 32
TABLES: dict[str, Callable[[Study], None]] = {}
ORDER_FREE = ("nearest-mean", "fixed-covariance", "fixed-projections", "slda", "slda-projections", "ridge", "joint")
HEAD = {"lr": 0.1, "epochs": 6, "batch": 64, "buffer": 300, "replay": 300, "centre": True}


@dataclass(frozen=True)
class Study:
    """The features, and how many orders of the classes every row is run over."""

    pretraining: Array
    pretraining_labels: Array
    train: tuple[Array, Array]
    held_out: tuple[Array, Array]
    levels: Levels
    orders: int

    @classmethod
    def load(cls, path: Path, orders: int) -> Study:
        with np.load(path) as file:
            x, y = file["x"], file["y"].astype(int) - file["y"].min()
            rank = np.array([np.count_nonzero(y[:n] == c) for n, c in enumerate(y)])
            held = rank >= np.bincount(y)[y] - HELD_OUT
            levels = Levels.one_bit(file["threshold"], file["low"], file["high"])
            known = file["pretraining"], file["pretraining_labels"].astype(int)
        return cls(*known, (x[~held], y[~held]), (x[held], y[held]), levels, orders)

    def make(self, name: str, seed: int, **options: object) -> Method:
        """Return a method; options are those of LearnConfig and of Tuning, by name."""
        config = {k: v for k, v in options.items() if k in LearnConfig.__dataclass_fields__}
        tuning = {k: v for k, v in options.items() if k in Tuning.__dataclass_fields__}
        known, size = (self.pretraining, self.pretraining_labels), self.pretraining.shape[1]
        setting = MethodSetting(
            CLASSES, size, *known, config=LearnConfig(**config), tuning=Tuning(**tuning), seed=seed
        )
        return METHODS[name](replace(setting, levels=options.get("levels")))

    def shown(self, classes: Array, rng: np.random.Generator, most: int | None = None) -> Array:
        """Return places of training samples of the classes, at most `most` of each, in random order."""
        each = [rng.permutation(np.flatnonzero(self.train[1] == c))[:most] for c in classes]
        return rng.permutation(np.concatenate(each))

    def experiences(self, order: int, groups: int) -> Iterator[tuple[Array, Array]]:
        """Yield the experiences of scenario NC: CLASSES / groups new classes each, in random order."""
        rng = np.random.default_rng(1000 + order)
        for classes in np.split(rng.permutation(CLASSES), groups):
            places = self.shown(classes, rng)
            yield self.train[0][places], self.train[1][places]

    def accuracy(self, name: str, groups: int, options: dict) -> Array:
        """Return the accuracy over all classes after the last experience in %, one of each order."""
        found = []
        for order in range(self.orders):
            method = self.make(name, order, **options)
            for x, y in self.experiences(order, groups):
                method.learn(x, y)
            found.append(100 * right(method, *self.held_out).mean())
        return np.array(found)

    def row(self, label: str, name: str, **options: object) -> None:
        """Print a line: NC 10 x 2 with its standard error over orders, NC 5 x 4, and the memory."""
        ten = self.accuracy(name, 10, options)
        five = ten if name in ORDER_FREE else self.accuracy(name, 5, options)
        method = self.make(name, 0, **options)
        error = ten.std(ddof=1) / self.orders**0.5 if self.orders > 1 else 0
        memory = f"state {method.state_bytes / 1024:6.1f} KiB, peak {method.peak_bytes / 1024:6.1f}"
        print(f"{label:46s} {ten.mean():6.2f} +- {error:4.2f} {five.mean():6.2f}  {memory}", flush=True)


def right(method: Method, x: Array, y: Array) -> Array:
    """Return whether each sample is classified correctly."""
    return method.scores(x).argmax(axis=1) == y


def table(function: Callable[[Study], None]) -> Callable[[Study], None]:
    """Register a table under its function's name."""
    TABLES[function.__name__] = function
    return function


@table
def methods(study: Study) -> None:
    """All methods at the options that this study chose."""
    for name in ("naive", "cwr", "sgd-replay", "cwr-replay"):
        study.row(name, name, **{**HEAD, "centre": False, "lr": 0.05})
    for name in ("naive", "cwr", "sgd-replay", "cwr-replay", "generative", "sgd-generative"):
        study.row(f"{name}, centred", name, **HEAD)
    for name in ("nearest-mean", "fixed-covariance", "fixed-projections", "slda", "slda-projections", "ridge"):
        study.row(name, name)
    for k in (1, 3, 5):
        study.row(f"hamming, k = {k}, 1000 latents", "hamming", replay=1000, neighbours=k)
    for slots in (300, 1000):
        study.row(f"memory only, {slots} latents", "memory-only", replay=slots, centre=True)
    study.row("joint (softmax regression)", "joint")


@table
def covariance(study: Study) -> None:
    """Square roots, shrinkage, blend with the pre-training covariance."""
    for root in (False, True):
        study.row(f"nearest mean, root {root}", "nearest-mean", root=root)
        for name in ("fixed-covariance", "slda"):
            for amount in (0.01, 0.05, 0.1, 0.2, 0.5):
                study.row(f"{name}, root {root}, shrinkage {amount}", name, root=root, shrinkage=amount)
    for size in (16, 32, 48, 64, 96):
        for name in ("nearest-mean", "fixed-covariance", "slda"):
            study.row(f"{name}, {size} principal axes", name, subspace=size)
    for blend in (0.25, 0.5, 0.75):
        study.row(f"slda, blend {blend}", "slda", blend=blend)


@table
def projections(study: Study) -> None:
    """Random projections: what comes out of them, how many, and what is solved for."""
    for activation in ("sign", "relu"):
        for threshold in ("median", "zero"):
            options = {"activation": activation, "threshold": threshold, "raw": False, "projections": 512}
            study.row(f"ridge, {activation}, {threshold}, 512", "ridge", **options)
    for penalty in (0.001, 0.01, 0.1, 0.3):
        study.row(f"ridge, relu, 512, penalty {penalty}", "ridge", projections=512, raw=False, ridge=penalty)
    for raw in (False, True):
        for size in (128, 256, 512) if raw else (64, 128, 256, 512, 1024):
            for name in ("ridge", "slda-projections", "fixed-projections"):
                study.row(f"{name}, {size}, with features {raw}", name, projections=size, raw=raw)


@table
def gradient(study: Study) -> None:
    """CWR*: input, learning rate, epochs, minibatch, mix, buffer, replay."""
    for centre in (False, True):
        for lr in (0.02, 0.05, 0.1, 0.2):
            for replay_slots in (0, 300):
                options = {**HEAD, "lr": lr, "replay": replay_slots, "centre": centre}
                study.row(f"cwr, replay {replay_slots}, lr {lr}, centre {centre}", "cwr-replay", **options)
    choices = (("epochs", (3, 12)), ("batch", (16, 32, 128)), ("new_per_batch", (4, 8, 16, 32)),
               ("buffer", (100, 800)), ("replay", (100, 1000, 5000)), ("policy", ("random",)))  # fmt: skip
    for option, values in choices:
        for value in values:
            study.row(f"cwr, {option} {value}", "cwr-replay", **{**HEAD, option: value})


@table
def bits(study: Study) -> None:
    """Latents of 1 to 32 bits."""
    for slots in (300, 1000):
        study.row(f"1 bit, {slots}", "cwr-replay", **{**HEAD, "replay": slots})
        for count in (2, 4, 8):
            for spacing in ("quantile", "uniform"):
                options = {**HEAD, "replay": slots, "bits": count, "spacing": spacing}
                study.row(f"{count} bits, {spacing}, {slots}", "cwr-replay", **options)
        study.row(f"float, {slots}", "cwr-replay", **{**HEAD, "replay": slots, "bits": 32})


@table
def thresholds(study: Study) -> None:
    """Where the threshold of a 1-bit latent is."""
    for label, levels in one_bit_levels(study).items():
        study.row(f"1 bit, {label}", "cwr-replay", **HEAD, levels=levels)


def one_bit_levels(study: Study) -> dict[str, Levels]:
    """Return 1-bit levels by where their thresholds are; two means: least squares, of features or of their roots."""
    x, roots = study.pretraining, np.sqrt(study.pretraining)
    features, of_roots = two_means(x), two_means(roots)
    return {
        "the model's": study.levels,
        "mean": levels_at(x, x.mean(axis=0)),
        "median": levels_at(x, np.median(x, axis=0)),
        "two means": features,
        "two means of roots": Levels(of_roots.thresholds**2, of_roots.values**2),
    }


def two_means(x: Array) -> Levels:
    """Return the levels of least squared error (Lloyd 1982)."""
    levels = levels_at(x, x.mean(axis=0))
    for _ in range(30):
        levels = levels_at(x, levels.values.mean(axis=0))
    return levels


def levels_at(x: Array, threshold: Array) -> Levels:
    """Return levels whose values are the means on either side of a threshold [D]."""
    below = x < threshold
    low = np.where(below, x, 0).sum(axis=0) / np.maximum(below.sum(axis=0), 1)
    high = np.where(below, 0, x).sum(axis=0) / np.maximum((~below).sum(axis=0), 1)
    return Levels.one_bit(threshold, low, high)


@table
def generative(study: Study) -> None:
    """The generative memory: components, consolidation, buffer, how much a class weighs."""
    for components in (1, 2, 4, 8):
        for name in ("generative", "sgd-generative"):
            study.row(f"{name}, K = {components}", name, **HEAD, components=components)
    for pseudo in (15, 100, 1000):
        study.row(f"generative, K = 4, at most {pseudo} samples", "generative", **HEAD, pseudo=pseudo)
    for buffer in (100, 800):
        study.row(f"generative, K = 4, buffer {buffer}", "generative", **{**HEAD, "buffer": buffer})


@table
def few_shot(study: Study) -> None:
    """1, 5, 20, 100 labels a class, ten experiences of two classes, single pass in chunks of at most 32."""
    small = {**HEAD, "buffer": CHUNK, "batch": CHUNK}
    rows = [("nearest-mean", {}), ("cwr", small), ("cwr-replay", small), ("generative", small),
            ("hamming", {"replay": 2000, "neighbours": 5}), ("slda", {}), ("slda-projections", {})]  # fmt: skip
    rows += [("fixed-covariance", {"shrinkage": amount}) for amount in (0.05, 0.2, 0.5, 0.8)]
    for name, options in rows:
        found = [np.mean([few_labels(study, n, seed, name, options) for seed in range(study.orders)])
                 for n in (1, 5, 20, 100)]  # fmt: skip
        print(f"{name:20s} {options.get('shrinkage', ''):5} " + " ".join(f"{v:6.2f}" for v in found), flush=True)


def few_labels(study: Study, labels: int, seed: int, name: str, options: dict) -> float:
    """Return the accuracy in % after `labels` samples of each class."""
    rng, method = np.random.default_rng(seed), study.make(name, seed, **options)
    for classes in np.split(rng.permutation(CLASSES), 10):
        places = study.shown(classes, rng, labels)
        for start in range(0, len(places), CHUNK):
            chunk = places[start : start + CHUNK]
            method.learn(study.train[0][chunk], study.train[1][chunk])
    return 100 * right(method, *study.held_out).mean()


def half_learned(study: Study, seed: int, name: str, options: dict, known: int) -> tuple[Method, Array]:
    """Return a method that learned `known` of ten classes, two at a time, and those ten."""
    rng, method = np.random.default_rng(seed), study.make(name, seed, **options)
    classes = rng.permutation(CLASSES)[:10]
    for group in np.split(classes[:known], known // 2):
        places = study.shown(group, rng)
        method.learn(study.train[0][places], study.train[1][places])
    return method, classes


@table
def rejection(study: Study) -> None:
    """Ten of twenty classes learned: AUROC in % of known against unknown held-out samples, by score."""
    rows = [(n, {}) for n in ("nearest-mean", "fixed-covariance", "slda", "slda-projections", "ridge")]
    rows += [("cwr-replay", {**HEAD, "centre": False, "lr": 0.05}), ("cwr-replay", HEAD), ("generative", HEAD)]
    for name, options in rows:
        found: dict[str, list[float]] = {}
        for seed in range(study.orders):
            method, classes = half_learned(study, seed, name, options, 10)
            x, y = study.held_out
            known = np.isin(y, classes)
            for score, value in certainties(method, x, study.pretraining).items():
                found.setdefault(score, []).append(auroc(value[known], value[~known]))
        print(f"{name:18s}", {score: round(np.mean(v), 1) for score, v in found.items()}, flush=True)


def certainties(method: Method, x: Array, pretraining: Array) -> dict[str, Array]:
    """Return scores [N] that might tell known from unknown."""
    z = method.scores(x).astype(np.float64)
    z = z[:, np.isfinite(z[0])]
    ranked = np.sort(z, axis=1)
    best, soft = ranked[:, -1], np.exp(z - ranked[:, -1:])
    found = {"max": best, "margin": best - ranked[:, -2], "softmax": 1 / soft.sum(axis=1)}
    found["max - mean"] = best - z.mean(axis=1)
    if isinstance(method, ClassMeans) and not isinstance(method, RidgeRegression):
        background = method.map(pretraining).mean(axis=0)
        row = precision_of(method) @ background
        found["max - background"] = best - (method.map(x) @ row - background @ row / 2)
    elif hasattr(method, "codec"):
        found["max / norm"] = best / np.linalg.norm(method.codec.operands(x), axis=1)
    return found


def precision_of(method: ClassMeans) -> Array:
    """Return the inverse of the covariance that a head works with (the identity: nearest mean)."""
    if isinstance(method, FixedCovariance):
        return method.precision
    return np.linalg.inv(method.covariance()) if isinstance(method, StreamingDiscriminant) else np.eye(method.map.size)


def auroc(high: Array, low: Array) -> float:
    """Return the probability in % that a draw of `high` is above one of `low` (ties count half)."""
    below = np.searchsorted(np.sort(low), high, side="left") + np.searchsorted(np.sort(low), high, side="right")
    return float(50 * below.mean() / len(low))


@table
def rollback(study: Study) -> None:
    """Eight classes learned, then two with a share of wrong labels: true harm; how often "accuracy on held-back
    samples of the new classes below 0.7 (0.8) of that of the old" rolls back; AUROC of three statistics."""
    for name, options in (("slda", {}), ("fixed-covariance", {}), ("cwr-replay", HEAD)):
        harm: dict[float, list] = {}
        seen: dict[tuple[float, int], list] = {}
        for seed in range(study.orders):
            spoil_last(study, seed, (name, options), harm, seen)
        print(name, {share: np.round(100 * np.mean(v, axis=0), 1).tolist() for share, v in harm.items()})
        for held in (2, 5, 10, 20, 50):
            clean, line = np.array(seen[0, held]), f"  {held:2d} a class:"
            for share in harm:
                new, old, change = np.array(seen[share, held]).T
                tests = [auroc(clean[:, 0], new), auroc(clean[:, 2], change)]
                rates = [100 * np.mean(new < a * old) for a in (0.7, 0.8)]
                line += f" [{share:g}: back {rates[0]:.0f} {rates[1]:.0f}, new {tests[0]:.0f}, old {tests[1]:.0f}]"
            print(line, flush=True)


def spoil_last(study: Study, seed: int, method_of: tuple[str, dict], harm: dict, seen: dict) -> None:
    """Add true accuracies (all ten classes, old, new) to harm and held-back ones (new, old, change of old) to seen."""
    method, classes = half_learned(study, seed, *method_of, 8)
    rng, (x, y) = np.random.default_rng(seed), study.held_out
    places = study.shown(classes[8:], rng)
    old, new, before = np.isin(y, classes[:8]), np.isin(y, classes[8:]), right(method, x, y)
    for share in (0, 0.05, 0.2, 0.5, 1.0):
        candidate = copy.deepcopy(method)
        candidate.learn(study.train[0][places], spoiled(study.train[1][places], share, classes, rng))
        after, answers = right(candidate, x, y), candidate.scores(x).argmax(axis=1)
        harm.setdefault(share, []).append((after[old | new].mean(), after[old].mean(), after[new].mean()))
        for held in (2, 5, 10, 20, 50):
            for _ in range(20):
                kept = [rng.choice(np.flatnonzero(y == c), held, replace=False) for c in classes]
                of_old, of_new = np.concatenate(kept[:8]), np.concatenate(kept[8:])
                hit = (answers[of_new] == spoiled(y[of_new], share, classes, rng)).mean()
                change = after[of_old].mean() - before[of_old].mean()
                seen.setdefault((share, held), []).append((hit, after[of_old].mean(), change))


def spoiled(labels: Array, share: float, classes: Array, rng: np.random.Generator) -> Array:
    """Return the labels, `share` of them replaced by another class."""
    wrong = rng.random(len(labels)) < share
    other = np.array([rng.choice(classes[classes != c]) for c in labels])
    return np.where(wrong, other, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--orders", type=int, default=4)
    options = parser.parse_args()
    TABLES[options.table](Study.load(options.features, options.orders))


if __name__ == "__main__":
    main()
