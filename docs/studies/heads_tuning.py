# SPDX-License-Identifier: Apache-2.0
"""Tuning of the heads on CIFAR-100 alone: run `python docs/studies/heads_tuning.py FEATURES.npz TABLE [--orders N]`.

FEATURES.npz: float32 features that the integer backbone computes; arrays pretraining [N, D] and
pretraining_labels [N] of images of classes 0 to 79, x [M, D] and y [M] of training images of classes 80 to 99,
and threshold, low, high [D], the 1-bit levels in the model's metadata. The last 100 images of each stream class
are the validation set; the rest is the stream. Test images are not read.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bnngen.continual.methods import METHODS, Levels, MethodSetting, Tuning
from bnngen.lower.learning import LearnConfig

Array = np.ndarray
HELD_OUT, CLASSES = 100, 20
TABLES: dict[str, Callable[[Study], None]] = {}


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

    def setting(self, **options: object) -> MethodSetting:
        """Return a setting; options are those of LearnConfig and of Tuning, by name."""
        config = {k: v for k, v in options.items() if k in LearnConfig.__dataclass_fields__}
        tuning = {k: v for k, v in options.items() if k in Tuning.__dataclass_fields__}
        return MethodSetting(
            CLASSES,
            self.pretraining.shape[1],
            self.pretraining,
            self.pretraining_labels,
            config=LearnConfig(**{"capacity": CLASSES, **config}),
            tuning=Tuning(**tuning),
        )

    def experiences(self, order: int, groups: int) -> Iterable[tuple[Array, Array]]:
        """Yield the experiences of scenario NC: CLASSES / groups new classes each, in random order."""
        rng, (x, y) = np.random.default_rng(1000 + order), self.train
        for classes in np.split(rng.permutation(CLASSES), groups):
            places = rng.permutation(np.flatnonzero(np.isin(y, classes)))
            yield x[places], y[places]

    def accuracy(self, name: str, setting: MethodSetting, groups: int = 10) -> Array:
        """Return the accuracy over all classes after the last experience, one of each order."""
        found = []
        for order in range(self.orders):
            method = METHODS[name](replace(setting, seed=order))
            for x, y in self.experiences(order, groups):
                method.learn(x, y)
            x, y = self.held_out
            found.append((method.scores(x).argmax(axis=1) == y).mean())
        return np.array(found)

    def row(self, label: str, name: str, **options: object) -> None:
        """Print a line: accuracy in % for 10 x 2 and 5 x 4 classes, its spread over orders, and the memory."""
        setting = self.setting(**options)
        if options.get("own_levels"):
            setting = replace(setting, levels=self.levels)
        ten, five = (100 * self.accuracy(name, setting, groups) for groups in (10, 5))
        method = METHODS[name](setting)
        print(f"{label:42s} {ten.mean():6.2f} ({ten.std():4.2f}) {five.mean():6.2f}"
              f"  state {method.state_bytes / 1024:8.1f} KiB, peak {method.peak_bytes / 1024:8.1f}", flush=True)


def table(function: Callable[[Study], None]) -> Callable[[Study], None]:
    """Register a table under its function's name."""
    TABLES[function.__name__] = function
    return function


@table
def analytic(study: Study) -> None:
    """Means and covariances: root, shrinkage, blend with the pre-training covariance."""
    for root in (False, True):
        study.row(f"nearest mean, root {root}", "nearest-mean", root=root)
        for s in (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
            study.row(f"fixed covariance, root {root}, shrinkage {s}", "fixed-covariance", root=root, shrinkage=s)
        for s in (0.0, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2):
            study.row(f"slda, root {root}, shrinkage {s}", "slda", root=root, shrinkage=s)
        for blend in (0.25, 0.5, 0.75):
            study.row(f"slda, root {root}, blend {blend}", "slda", root=root, shrinkage=0.02, blend=blend)


@table
def ridge(study: Study) -> None:
    """Random projections: activation, threshold, number, penalty."""
    for activation, threshold in (("sign", "median"), ("sign", "zero"), ("relu", "median"), ("relu", "zero")):
        for penalty in (0.001, 0.01, 0.03, 0.1):
            study.row(f"{activation}, {threshold}, 512, {penalty}", "ridge", activation=activation,
                      threshold=threshold, ridge=penalty)  # fmt: skip
    for projections in (64, 128, 256, 512, 1024):
        for penalty in (0.003, 0.01, 0.03, 0.1, 0.3):
            study.row(f"sign, median, {projections}, {penalty}", "ridge", projections=projections, ridge=penalty)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--orders", type=int, default=3)
    options = parser.parse_args()
    TABLES[options.table](Study.load(options.features, options.orders))


if __name__ == "__main__":
    main()
