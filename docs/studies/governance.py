# SPDX-License-Identifier: Apache-2.0
"""Governed learning on CIFAR-100: run `python docs/studies/governance.py FEATURES.npz TABLE [--seeds N]`.

FEATURES.npz is that of heads_tuning.py. The NumPy twin learns: its numbers are those of the compiled runtime on
the same latents. Of each class the last 100 images are the test set of this study; that of CIFAR-100 is not read.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnngen.continual.twin import MORE, Twin
from bnngen.continual.twin_govern import ACCEPTED, Held
from bnngen.ir import HeadInput
from bnngen.lower.learning import LearnConfig

Array = np.ndarray
CLASSES, HELD_OUT, UNSEEN = 20, 100, -(2**31)
TABLES: dict[str, Callable[[Study], None]] = {}


@dataclass(frozen=True)
class Study:
    """Features as an int16 stream, split, and what turns them into latents and back."""

    train: tuple[Array, Array]
    test: tuple[Array, Array]
    foreign: Array
    levels: tuple[Array, Array, Array]
    head: HeadInput
    scale: float
    seeds: int

    @classmethod
    def load(cls, path: Path, seeds: int) -> Study:
        with np.load(path) as file:
            known, x, y = file["pretraining"], file["x"], file["y"].astype(int) - int(file["y"].min())
            levels = [file[name].astype(float) for name in ("threshold", "low", "high")]
        scale = float(np.abs(known).max()) / 32767
        stream = [np.clip(np.rint(v / scale), -32768, 32767).astype(np.int64) for v in (known, x, *levels)]
        rank = np.array([np.count_nonzero(y[:n] == c) for n, c in enumerate(y)])
        held = rank >= np.bincount(y)[y] - HELD_OUT
        head = HeadInput("features", float(known.min()), float(known.max()), CLASSES)
        x = stream[1]
        return cls((x[~held], y[~held]), (x[held], y[held]), stream[0], tuple(stream[2:]), head, scale, seeds)

    def twin(self, seed: int, **options: object) -> Twin:
        """Return a learner of packed latents."""
        size = self.levels[0].size
        return Twin(self.head, self.scale, (size, size // 32), LearnConfig(**options), self.unpack, seed)

    def pack(self, x: Array) -> Array:
        """Return the latents, uint32 [N, words], of features [N, D]."""
        return np.packbits(x < self.levels[0], axis=1, bitorder="little").view("<u4")

    def unpack(self, latents: Array) -> Array:
        """Return the two levels for the bits of latents."""
        below = np.unpackbits(np.ascontiguousarray(latents, "<u4").view(np.uint8), axis=1, bitorder="little")
        return np.where(below == 1, self.levels[1], self.levels[2])

    def choose(self, classes: Array, most: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return at most `most` training samples of each class, in random order."""
        x, y = self.train
        places = np.concatenate([rng.permutation(np.flatnonzero(y == c))[:most] for c in classes])
        places = rng.permutation(places)
        return x[places], y[places]

    def learn(self, twin: Twin, x: Array, y: Array) -> bool:
        """Run one experience; return whether it was accepted, or not judged at all."""
        twin.begin()
        for latent, label in zip(self.pack(x), y, strict=True):
            twin.add(latent, int(label))
        while twin.step() == MORE:
            pass
        twin.end()
        return twin.held.verdict in (0, ACCEPTED)

    def accuracy(self, twin: Twin, classes: Array) -> float:
        """Return the accuracy over test samples of the classes, in percent."""
        mine = np.isin(self.test[1], classes)
        return 100 * float((twin.scores(self.test[0][mine]).argmax(axis=1) == self.test[1][mine]).mean())


def table(function: Callable[[Study], None]) -> Callable[[Study], None]:
    """Offer a function as a table of the command line."""
    TABLES[function.__name__] = function
    return function


def mean_std(values: list[float]) -> str:
    return f"{np.mean(values):.1f} +- {np.std(values, ddof=1):.1f}"


def spoil(y: Array, classes: Array, share: float, rng: np.random.Generator) -> Array:
    """Return labels of which a share is moved to another of the classes."""
    wrong = rng.permutation(len(y))[: round(share * len(y))]
    spoilt, place = y.copy(), {int(c): i for i, c in enumerate(classes)}
    for n in wrong:
        spoilt[n] = classes[(place[int(y[n])] + rng.integers(1, len(classes))) % len(classes)]
    return spoilt


@table
def wrong_labels(study: Study) -> None:
    """CWR*, 20 classes in five experiences, a share of all labels wrong."""
    print("| wrong labels | replay 0 | replay 300 |\n|---|---|---|")
    for share in (0.0, 0.05, 0.2):
        cells = []
        for replay in (0, 300):
            found = []
            for seed in range(study.seeds):
                rng = np.random.default_rng(seed)
                twin, order = study.twin(seed, replay=replay), rng.permutation(CLASSES)
                for group in order.reshape(5, 4):
                    x, y = study.choose(group, 400, rng)
                    study.learn(twin, x, spoil(y, group, share, rng))
                found.append(study.accuracy(twin, order))
            cells.append(mean_std(found))
        print(f"| {share:.0%} | {' | '.join(cells)} |")


@table
def roll_back(study: Study) -> None:
    """Eight classes learned clean, then one experience of two classes: how often it would be refused."""
    kinds = ("clean", "5 % wrong", "20 % wrong", "50 % wrong", "known classes", "other images")
    print(f"| rule | held back a class | {' | '.join(kinds)} |\n|---|---|{'---|' * len(kinds)}")
    for held in (2, 5, 10, 20):
        refused: dict[tuple[str, str], list[bool]] = {}
        for seed in range(study.seeds):
            first = _first_experience(study, seed, held)
            for kind in kinds:
                counts = _second_experience(study, deepcopy(first), seed, kind)
                for rule, is_refused in RULES.items():
                    refused.setdefault((rule, kind), []).append(is_refused(counts))
        for rule in RULES:
            shares = [100 * np.mean(refused[rule, kind]) for kind in kinds]
            print(f"| {rule} | {held} | {' | '.join(f'{share:.0f}' for share in shares)} |", flush=True)


RULES: dict[str, Callable[[Held], bool]] = {  # refused by the rule alone
    "new 40": lambda h: 100 * h.new * h.known < 40 * h.before * h.filled,
    "new 70": lambda h: 100 * h.new * h.known < 70 * h.before * h.filled,
    "new 80": lambda h: 100 * h.new * h.known < 80 * h.before * h.filled,
    "drop 10": lambda h: 100 * (h.before - h.after) > 10 * h.known,
    "drop 20": lambda h: 100 * (h.before - h.after) > 20 * h.known,
    "least 60": lambda h: 100 * (h.after + h.new) < 60 * h.judged,
}


def _first_experience(study: Study, seed: int, held: int) -> Twin:
    rng = np.random.default_rng(seed)
    twin = study.twin(seed, hold_every=400 // held, hold=8 * held, hold_new=8 * held, accept_new=0)
    study.learn(twin, *study.choose(rng.permutation(CLASSES)[:8], 400, rng))
    return twin


def _second_experience(study: Study, twin: Twin, seed: int, kind: str) -> Held:
    order = np.random.default_rng(seed).permutation(CLASSES)
    rng = np.random.default_rng(1000 + seed)
    x, y = study.choose(order[8:10], 400, rng)
    shares = {"5 % wrong": 0.05, "20 % wrong": 0.2, "50 % wrong": 0.5}
    if kind == "other images":  # of classes of the pre-training, with the labels of the new ones
        x = study.foreign[rng.integers(0, len(study.foreign), len(y))]
    elif kind == "known classes":  # images of the new classes with labels of known ones, at random
        y = order[rng.integers(0, 8, len(y))]
    else:
        y = spoil(y, order[8:10], shares.get(kind, 0.0), rng)
    study.learn(twin, x, y)
    return twin.held


@table
def unknown(study: Study) -> None:
    """Ten classes learned in five experiences, ten others to tell apart: by which score, what a threshold does."""
    names = ("margin to the second", "largest score", "softmax", "largest - mean")
    rocs: dict[str, list[float]] = {name: [] for name in names}
    rates: dict[str, list[tuple[float, float]]] = {}
    for seed in range(study.seeds):
        rng = np.random.default_rng(seed)
        order = rng.permutation(CLASSES)
        twins = {
            "held back": study.twin(seed, hold_every=10, hold=200, reject=10, accept_new=0),
            "replay memory": study.twin(seed, reject=10),
        }
        for group in order[:10].reshape(5, 2):
            x, y = study.choose(group, 400, rng)
            for twin in twins.values():
                study.learn(twin, x, y)
        known = np.isin(study.test[1], order[:10])
        for name, twin in twins.items():
            out = np.array([twin.decide(s) < 0 for s in twin.scores(study.test[0])])
            rates.setdefault(name, []).append((100 * out[known].mean(), 100 * out[~known].mean()))
        scores = twins["replay memory"].scores(study.test[0])
        for name, value in _unknown_scores(scores[:, np.sort(order[:10])].astype(float)).items():
            rocs[name].append(100 * auroc(value[known], value[~known]))
    print("| score | AUROC |\n|---|---|")
    for name in names:
        print(f"| {name} | {mean_std(rocs[name])} |")
    print("\n| threshold (10 %) from | known rejected | unknown rejected |\n|---|---|---|")
    for name, pairs in rates.items():
        print(f"| {name} | {' | '.join(mean_std(list(column)) for column in zip(*pairs, strict=True))} |")


def _unknown_scores(scores: Array) -> dict[str, Array]:
    ordered = np.sort(scores, axis=1)
    softmax = np.exp((scores - ordered[:, -1:]) / scores.std())
    return {
        "margin to the second": ordered[:, -1] - ordered[:, -2],
        "largest score": ordered[:, -1],
        "softmax": 1 / softmax.sum(axis=1),
        "largest - mean": ordered[:, -1] - scores.mean(axis=1),
    }


def auroc(known: Array, unknown: Array) -> float:
    """Return the probability that a known sample scores above an unknown one, ties as one half."""
    ranks = np.searchsorted(np.sort(unknown), known, "left") + np.searchsorted(np.sort(unknown), known, "right")
    return float(ranks.mean() / 2 / len(unknown))


@table
def few_shot(study: Study) -> None:
    """20 classes, a few labels each, one pass in experiences of at most 32 samples."""
    print("| labels a class | replay 0 | replay 100 | replay 300 |\n|---|---|---|---|")
    for labels in (1, 5, 20, 100):
        cells = []
        for replay in (0, 100, 300):
            found = []
            for seed in range(study.seeds):
                rng = np.random.default_rng(seed)
                twin = study.twin(seed, replay=replay, buffer=32)
                x, y = study.choose(np.arange(CLASSES), labels, rng)
                for at in range(0, len(y), 32):
                    study.learn(twin, x[at : at + 32], y[at : at + 32])
                found.append(study.accuracy(twin, np.arange(CLASSES)))
            cells.append(mean_std(found))
        print(f"| {labels} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("features", type=Path)
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    TABLES[options.table](Study.load(options.features, options.seeds))


if __name__ == "__main__":
    main()
