# SPDX-License-Identifier: Apache-2.0
"""Reference methods of continual learning on given features, by name.

    method = METHODS["slda"](MethodSetting(capacity=10, size=128, pretraining=features))
    for x, y in experiences: method.learn(x, y)
    method.scores(test).argmax(axis=1), method.state_bytes, method.peak_bytes

Options, beside the head's own in `MethodSetting.config`, are those of `Tuning`: bits and spacing for the methods
that store latents, root, shrinkage and blend for the covariances, and so on.
"""

from __future__ import annotations

from bnngen.continual.methods.analytic import (
    FixedCovariance,
    NearestMean,
    StreamingDiscriminant,
    discriminant_projections,
    fixed_projections,
    ridge_projections,
)
from bnngen.continual.methods.generative import generative, sgd_generative
from bnngen.continual.methods.interface import Bytes, Factory, Method, MethodSetting, Tuning
from bnngen.continual.methods.levels import Levels, calibrate
from bnngen.continual.methods.run import run_method
from bnngen.continual.methods.sgd import cwr, cwr_replay, naive, sgd_replay
from bnngen.continual.methods.stored import HammingNeighbours, Joint, MemoryOnly

METHODS: dict[str, Factory] = {
    "naive": naive,
    "cwr": cwr,
    "sgd-replay": sgd_replay,
    "cwr-replay": cwr_replay,
    "generative": generative,
    "sgd-generative": sgd_generative,
    "nearest-mean": NearestMean,
    "fixed-covariance": FixedCovariance,
    "fixed-projections": fixed_projections,
    "slda": StreamingDiscriminant,
    "slda-projections": discriminant_projections,
    "ridge": ridge_projections,
    "hamming": HammingNeighbours,
    "memory-only": MemoryOnly,
    "joint": Joint,
}

__all__ = ["METHODS", "Bytes", "Factory", "Levels", "Method", "MethodSetting", "Tuning", "calibrate", "run_method"]
