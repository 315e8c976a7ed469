# SPDX-License-Identifier: Apache-2.0
"""What an analytic head in integers must keep: `python docs/studies/heads_precision.py FEATURES.npz`.

FEATURES.npz as for heads_tuning.py, which stands beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from heads_tuning import CLASSES, Array, Study

from bnngen.continual.methods import MethodSetting, Tuning
from bnngen.continual.methods.analytic import StreamingDiscriminant


def precision(study: Study) -> None:
    """What integers must keep: bits of features, of the correlation matrix and of rows; sweeps of Gauss-Seidel."""
    for label, size in (("128 features", 0), ("128 + 256 projections", 256)):
        head = StreamingDiscriminant(MethodSetting(CLASSES, study.pretraining.shape[1], study.pretraining,
                                                   tuning=Tuning()), size)  # fmt: skip
        h, v = (head.map(x).astype(np.float64) for x in (study.train[0], study.held_out[0]))
        for count in (8, 5, 4, 3, 2):
            top = np.quantile(h, 0.9995)
            whole = [rounded(np.clip(f, -top, top), count + (size > 0)) for f in (h, v)]
            print(f"{label}: features of {count} bits {solved(study, *whole):.2f}", flush=True)
        for shrinkage in (0.05, 0.2):
            for count in (8, 6, 5):
                found = solved(study, h, v, shrinkage=shrinkage, matrix=count)
                print(f"{label}: shrinkage {shrinkage}, correlations of {count} bits {found:.2f}")
            for count in (10, 8, 6):
                print(f"{label}: shrinkage {shrinkage}, rows of {count} bits "
                      f"{solved(study, h, v, shrinkage=shrinkage, rows=count):.2f}")  # fmt: skip
            for sweeps in (2, 4, 8, 16, 32):
                found = solved(study, h, v, shrinkage=shrinkage, sweeps=sweeps)
                print(f"{label}: shrinkage {shrinkage}, {sweeps} sweeps {found:.2f}", flush=True)


def solved(study: Study, h: Array, v: Array, shrinkage: float = 0.05, **limits: int) -> float:
    """Return the accuracy in % of a discriminant with limited matrix (bits), rows (bits), sweeps."""
    y = study.train[1]
    means = np.stack([h[y == c].mean(axis=0) for c in range(CLASSES)])
    scatter = (h - means[y]).T @ (h - means[y]) / (len(y) - CLASSES)
    spread = np.sqrt(np.maximum(np.diag(scatter), 1e-12))
    correlation = scatter / np.outer(spread, spread)
    if "matrix" in limits:
        off = correlation - np.diag(np.diag(correlation))
        correlation = rounded(off, limits["matrix"]) + np.eye(len(off))
    matrix, target = (1 - shrinkage) * correlation + shrinkage * np.eye(len(correlation)), means / spread
    rows = swept(matrix, target, limits["sweeps"]) if "sweeps" in limits else np.linalg.solve(matrix, target.T).T
    rows = rows / spread
    if "rows" in limits:
        rows = rounded(rows, limits["rows"])
    return 100 * ((v @ rows.T - (means * rows).sum(axis=1) / 2).argmax(axis=1) == study.held_out[1]).mean()


def swept(matrix: Array, target: Array, sweeps: int) -> Array:
    """Return an approximate solution [C, P] of rows @ matrix = target, by Gauss-Seidel."""
    rows = np.zeros_like(target)
    for _ in range(sweeps):
        for i in range(len(matrix)):
            rows[:, i] += (target[:, i] - rows @ matrix[:, i]) / matrix[i, i]
    return rows


def rounded(x: Array, bits: int) -> Array:
    """Return x rounded to signed integers of `bits` bits times one scale; unsigned ones where no x is negative."""
    most = 2 ** (bits - (x.min() < 0)) - 1
    step = abs(x).max() / most
    return np.rint(x / step) * step


if __name__ == "__main__":
    precision(Study.load(Path(sys.argv[1]), 1))
