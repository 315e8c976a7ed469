# SPDX-License-Identifier: Apache-2.0
"""The state of a training run between two epochs, on disk: what `resume` continues from.

OUT.ckpt/state.npz holds the weights, the optimizer's variables, the weights of the best epoch so far, the
log, and what the run was started with. It is replaced as a whole, so that an interruption at any moment
leaves the old or the new state.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bnngen.errors import DataError, UsageError

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


def refuse_lost_state(file: Path) -> None:
    """Raise UsageError where a run that neither resumes nor restarts would replace the state of another."""
    if file.exists():
        raise UsageError("there is an interrupted run, or one that kept its state", where=str(file),
                         why="starting anew would replace what it has reached",
                         fix="give --resume to continue it; or, to start anew, give --restart, delete "
                         f"{file.parent}, or choose another -o")


def load_state(file: Path, identity: dict[str, object], content: BinaryIO | None = None) -> RunState:
    """Read the state of the run `identity`, from `content` where the file itself is another worker's.

    Raises UsageError where there is none, or it is another run's, and DataError where it cannot be read.
    """
    if content is None and not file.exists():
        raise UsageError("there is no training run to resume", where=str(file),
                         why="the state is written after the first epoch and removed after the last",
                         fix="start without --resume")
    try:
        header, group = _read(file) if content is None else _parsed(content)
        started, schema = header["identity"], header["schema"]
        log = [EpochLog(**line) for line in header["log"]]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(file, error) from error
    changed = [key for key in identity if started.get(key) != identity[key]]
    if schema != SCHEMA or changed:
        key = changed[0] if changed else "schema"
        raise UsageError("the interrupted run was started with other settings", where=str(file),
                         why=f"{key} was {started.get(key)!r} and is now {identity.get(key)!r}",
                         fix="resume with the same settings, or start anew with --restart")
    return RunState(identity, log, group["weights"], group["optimizer"], group["best"])


def damaged(file: Path, error: Exception) -> DataError:
    """What to say of a state that cannot be read, or that fits no model of its own settings."""
    return DataError("the state of the interrupted run is damaged", where=str(file),
                     why=str(error) or repr(error),
                     fix="restore the file from a copy, or start anew with --restart")


def _read(file: Path) -> tuple[dict, dict[str, list[np.ndarray]]]:
    # Opened here, because np.load leaves a file open that turns out to be no archive.
    with open(file, "rb") as stream:
        return _parsed(stream)


def _parsed(stream: BinaryIO) -> tuple[dict, dict[str, list[np.ndarray]]]:
    with np.load(stream, allow_pickle=False) as archive:
        header = json.loads(archive["header"].tobytes())
        return header, {name: [archive[k] for k in sorted(archive.files) if k.startswith(f"{name}_")]
                        for name in ("weights", "optimizer", "best")}
