# SPDX-License-Identifier: Apache-2.0
"""What an experiment consists of: runs (settings), seeds, and jobs (one run of one seed) that any process can do."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bnngen.continual.scenarios import Scenario
from bnngen.lower.learning import LearnConfig

FORMAT = 2  # of the result files; part of every key
CUT, PIXELS, FEATURES = "cut", "pixels", "features"


@dataclass(frozen=True)
class Memory:
    """Bytes that learning takes. state: what survives between experiences. peak: the most alive at once while learning,
    state included. items: every buffer by name."""

    state: int
    peak: int
    items: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """Files that a job reads. kind: what `train` and `test` hold, one row a sample: CUT, PIXELS or FEATURES.

    stream: .npz with y_train, y_test, test (places), perhaps groups, and part_RUN_NUMBER (places) of written lists.
    scale: real value of one unit of a feature; dtype: of the features.
    """

    kind: str
    train: str
    test: str
    stream: str
    dtype: str = "u1"
    scale: float = 1.0


@dataclass(frozen=True)
class Reference:
    """A NumPy method of continual/methods beside the compiled runs. method: its name. tuning: fields of Tuning by name.
    pretraining: .npz with features and labels of images of pre-training, or None. levels: .npz of a model's levels."""

    method: str
    tuning: dict[str, object]
    config: LearnConfig
    capacity: int
    pretraining: str | None = None


@dataclass(frozen=True)
class Run:
    """One setting, for all seeds. program: the compiled project's folder, None for a reference method.

    identity: what the results depend on beside scenario and data, for the key. memory: None for a reference method,
    which counts its own.
    """

    name: str
    inputs: Inputs
    program: str | None
    reference: Reference | None
    memory: Memory | None
    identity: dict[str, object]


@dataclass(frozen=True)
class Job:
    """One run of one seed. out: file of the result; evaluate_every: experiences between two tests."""

    run: Run
    scenario: Scenario
    seed: int
    out: str
    evaluate_every: int = 1

    @property
    def part(self) -> Path:
        """Where the experiences stand, a line each, until the job is done."""
        return Path(self.out).with_suffix(".part")


def key_of(run: Run, scenario: Scenario, data: dict[str, object], evaluate_every: int) -> str:
    """Return 16 hexadecimal digits over all that decides the results of a run."""
    content = {
        "format": FORMAT,
        "run": run.identity,
        "scenario": asdict(scenario),
        "data": data,
        "evaluate_every": evaluate_every,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def slug(name: str) -> str:
    """Return a name as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-") or "run"
