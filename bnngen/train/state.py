# SPDX-License-Identifier: Apache-2.0
"""The state of a training run between two epochs, on disk: what `resume` continues from.

OUT.ckpt/state.npz holds the weights, the optimizer's variables, the weights of the best epoch so far, the
log, and what the run was started with. It is replaced as a whole, so that an interruption at any moment
leaves the old or the new state.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bnngen.errors import UsageError

SCHEMA = 1


@dataclass
class EpochLog:
    """One line of the log. Losses are cross-entropy in nats, accuracies are shares, lr is the last step's."""

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float


@dataclass
class RunState:
    """identity: what must be equal for a run to be the same run (data checksum, seed, schedule, ...)."""

    identity: dict[str, object]
    log: list[EpochLog] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    optimizer: list[np.ndarray] = field(default_factory=list)
    best_weights: list[np.ndarray] = field(default_factory=list)

    @property
    def best(self) -> EpochLog:
        """The epoch of the best accuracy on the validation images; among equals that of the lowest loss."""
        return max(self.log, key=lambda e: (e.val_accuracy, -e.val_loss))


def state_file(out: Path) -> Path:
    """Where the state of the run that writes `out` is kept."""
    return out.with_suffix(".ckpt") / "state.npz"


def save_state(file: Path, state: RunState) -> None:
    """Write the state atomically: a temporary file beside it, synced, then renamed over it."""
    groups = {"weights": state.weights, "optimizer": state.optimizer, "best": state.best_weights}
    arrays = {f"{group}_{i:03d}": a for group, parts in groups.items() for i, a in enumerate(parts)}
    header = {"schema": SCHEMA, "identity": state.identity, "log": [vars(e) for e in state.log]}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    with open(partial, "wb") as stream:
        np.savez(stream, **arrays)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, file)


def load_state(file: Path, identity: dict[str, object]) -> RunState:
    """Read the state of the run `identity`; raises UsageError where there is none, or it is another run's."""
    if not file.exists():
        raise UsageError("there is no training run to resume", where=str(file),
                         why="the state is written after the first epoch and removed after the last",
                         fix="start without --resume")
    with np.load(file, allow_pickle=False) as archive:
        header = json.loads(archive["header"].tobytes())
        group = {name: [archive[k] for k in sorted(archive.files) if k.startswith(f"{name}_")]
                 for name in ("weights", "optimizer", "best")}
    started = header["identity"]
    changed = [key for key in identity if started.get(key) != identity[key]]
    if header["schema"] != SCHEMA or changed:
        key = changed[0] if changed else "schema"
        raise UsageError("the interrupted run was started with other settings", where=str(file),
                         why=f"{key} was {started.get(key)!r} and is now {identity.get(key)!r}",
                         fix="resume with the same settings, or start anew without --resume")
    log = [EpochLog(**line) for line in header["log"]]
    return RunState(identity, log, group["weights"], group["optimizer"], group["best"])
