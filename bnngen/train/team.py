# SPDX-License-Identifier: Apache-2.0
"""The processes and devices that train one model together, through tf.distribute.

Every worker does the same thing on its own copy of the data: it draws the same batches and takes its replicas' share of
each. Only the chief writes files. Where one worker cannot start, all of them stop instead of waiting for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import tensorflow as tf

from bnngen.errors import BnngenError, UsageError

T = TypeVar("T")
EXAMPLE = ('TF_CONFIG=\'{"cluster": {"worker": ["host-a:2222", "host-b:2222"]}, '
           '"task": {"type": "worker", "index": 0}}\'')


@dataclass(frozen=True)
class Team:
    """workers: number of processes; index: which of them this is, 0 is the chief."""

    strategy: tf.distribute.Strategy
    workers: int = 1
    index: int = 0

    @property
    def chief(self) -> bool:
        """True for the one that writes."""
        return self.index == 0

    @property
    def replicas(self) -> int:
        """Devices over which a batch is spread, those of all workers."""
        return self.strategy.num_replicas_in_sync

    def shares(self, *batch: np.ndarray) -> tuple[object, ...]:
        """Spread arrays over the replicas along their first axis; each worker takes the shares of its own."""
        parts = [np.array_split(array, self.replicas) for array in batch]
        return tuple(self._placed(lambda i, part=part: part[i]) for part in parts)

    def filled(self, batch: np.ndarray, more: np.ndarray) -> np.ndarray:
        """Return the batch, or where it is smaller than the team as many as there are replicas: none can do nothing."""
        return batch if len(batch) >= self.replicas else np.resize(np.concatenate([batch, more]), self.replicas)

    def sum(self, value: object) -> tf.Tensor:
        """Add up what the replicas of all workers returned."""
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)

    def together(self, act: Callable[[], T]) -> T:
        """Return act(). Where it raises BnngenError on one worker, raise on all of them."""
        result, error = None, None
        try:
            result = act()
        except BnngenError as problem:
            error = problem
        failed = self._gathered(np.uint16([error is not None]))[:, 0]
        if error is not None:
            raise error
        if failed.any():
            raise UsageError(f"worker {int(np.argmax(failed))} could not start", why="its own output says why",
                             fix="mend that, and start all workers again")
        return result

    def agree(self, digest: bytes, what: str) -> None:
        """Raise UsageError on all workers where they do not have the same digest, of an even number of bytes."""
        all_digests = self._gathered(np.frombuffer(digest, np.uint16))
        differs = (all_digests != all_digests[0]).any(axis=1)
        if differs.any():
            raise UsageError(f"worker {int(np.argmax(differs))} was started with {what} than the chief",
                             why="all workers do the same run, each on its share of every batch",
                             fix="start every worker with the same command, data and files")

    def from_chief(self, read: Callable[[], bytes]) -> bytes:
        """Return on every worker what read() returns on the chief; UsageError where it fails there."""
        if self.workers == 1:
            return read()
        content = self.together(lambda: read() if self.chief else b"")
        size = self._gathered(np.frombuffer(np.uint64(len(content)).tobytes(), np.uint16))[0]
        size = int(np.frombuffer(size.tobytes(), np.uint64)[0])
        padded = np.frombuffer(content + bytes(size + size % 2 - len(content)), np.uint16)
        return self._added(padded).tobytes()[:size]

    def wait(self) -> None:
        """Return when every worker has come here: none leaves while another still needs it."""
        self._gathered(np.zeros(1, np.uint16))

    def _gathered(self, row: np.ndarray) -> np.ndarray:
        """Return every worker's row, uint16 [workers, n]."""
        rows = np.zeros((self.workers, len(row)), np.uint16)
        rows[self.index] = row
        return self._added(rows)

    def _added(self, value: np.ndarray) -> np.ndarray:
        """Add up the workers' arrays, uint16, of which all but one are 0: float32 holds them exactly."""
        if self.workers == 1:
            return value
        first = self.index * (self.replicas // self.workers)  # one replica of this worker brings the value
        zeros = np.zeros_like(value)
        placed = self._placed(lambda i: (value if i == first else zeros).astype(np.float32))
        return self.sum(placed).numpy().astype(np.uint16)

    def _placed(self, value_of: Callable[[int], np.ndarray]) -> object:
        """Return a value for each replica of this worker; value_of takes the replica's number among all."""
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(value_of(context.replica_id_in_sync_group)))


def gather_team(strategy: str) -> Team:
    """Return the team of a strategy (config.STRATEGIES).

    With several workers it must be called before TensorFlow computes anything, and returns when all are there.
    Raises UsageError where there is nothing to spread the work over, or TF_CONFIG does not describe the workers.
    """
    if strategy == "none":
        return Team(tf.distribute.get_strategy())
    if strategy == "multiworker":
        workers, index = read_cluster(os.environ.get("TF_CONFIG"))
        return Team(tf.distribute.MultiWorkerMirroredStrategy(), workers, index)
    team = Team(tf.distribute.MirroredStrategy())
    if team.replicas == 1:
        raise UsageError("--strategy mirrored finds one device", why="there is nothing to spread a batch over",
                         fix="leave --strategy out")
    return team


def read_cluster(text: str | None) -> tuple[int, int]:
    """Return (workers, index) from TF_CONFIG. Raises UsageError where it does not describe workers, and this one."""
    if not text:
        raise UsageError("--strategy multiworker needs TF_CONFIG", fix=f"set it on every host, for example {EXAMPLE}",
                         why="the environment variable names all workers, and which of them this is")
    try:
        description = json.loads(text)
        cluster, task = description["cluster"], description["task"]
        jobs = {job: [str(address) for address in addresses] for job, addresses in cluster.items()}
        kind, index = task["type"], int(task["index"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _bad_cluster(f"it is not what TensorFlow reads ({type(error).__name__}: {error})") from error
    if set(jobs) - {"chief", "worker"} or not jobs.get("worker") or len(jobs.get("chief", [])) > 1:
        raise _bad_cluster(f"the cluster is {sorted(jobs)}: workers, and at most one chief, can train")
    if not 0 <= index < len(jobs.get(kind, [])):
        raise _bad_cluster(f"there is no {kind} {index} in the cluster")
    chiefs = len(jobs.get("chief", []))
    return chiefs + len(jobs["worker"]), index + (chiefs if kind == "worker" else 0)


def _bad_cluster(why: str) -> UsageError:
    return UsageError("TF_CONFIG does not describe this worker", where="TF_CONFIG", why=why,
                      fix=f"write for example {EXAMPLE}")
