# SPDX-License-Identifier: Apache-2.0
"""Jobs on the cores of this machine, or on a Dask or Ray cluster that the user has.

Jobs are data and write their own result files, so that a cluster's workers need bnngen installed and the same files
under the same paths as this machine: the output folder and the cache on a shared file system.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from bnngen.errors import BnngenError, ToolError, UsageError
from bnngen.simulate.config import Job
from bnngen.simulate.job import Failure, run_job

CLUSTERS = {  # module of the client, name on the command line, how to install it
    "dask": ("distributed", "dask", "pip install distributed"),
    "ray": ("ray", "ray", "pip install ray"),
}
POLL_S = 0.3


class Pool(Protocol):
    """Where jobs run. submit: returns a handle at once. take: None while a job runs, else (its failure or None,)."""

    def submit(self, job: Job) -> Any: ...
    def take(self, handle: Any) -> tuple[Failure | None] | None: ...
    def close(self, stop: bool) -> None: ...


class LocalPool:
    """Processes of this machine."""

    def __init__(self, workers: int) -> None:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # a process a core: no threads beside it
            os.environ.setdefault(name, "1")
        spawn = multiprocessing.get_context("spawn")  # threads of this process hold locks that a fork would copy
        self.pool = ProcessPoolExecutor(workers, spawn, initializer=_leave_interrupts_to_the_parent)

    def submit(self, job: Job) -> Any:
        return self.pool.submit(run_job, job)

    def take(self, handle: Any) -> tuple[Failure | None] | None:
        if not handle.done():
            return None
        try:
            return (handle.result(),)
        except BrokenProcessPool as error:
            raise BnngenError(
                "a worker process has ended", why=str(error), fix="too little memory? try fewer --workers"
            ) from error

    def close(self, stop: bool) -> None:
        processes = list((self.pool._processes or {}).values()) if stop else []
        self.pool.shutdown(wait=not stop, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class DaskPool:
    """A Dask cluster; address None: what Dask's own settings say, else one on this machine."""

    def __init__(self, address: str | None) -> None:
        distributed = _import(*CLUSTERS["dask"])
        try:
            self.client = distributed.Client(address, timeout="10s") if address else distributed.Client()
        except (OSError, ValueError, TimeoutError) as error:
            raise _unreachable("dask", address, error) from error

    def submit(self, job: Job) -> Any:
        return self.client.submit(run_job, job, pure=False)

    def take(self, handle: Any) -> tuple[Failure | None] | None:
        return (handle.result(),) if handle.done() else None

    def close(self, stop: bool) -> None:
        self.client.close()  # a client that goes takes its jobs with it


class RayPool:
    """A Ray cluster; address None: the one that this machine belongs to, else one on this machine."""

    def __init__(self, address: str | None) -> None:
        self.ray = _import(*CLUSTERS["ray"])
        try:
            self.ray.init(address=address, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _unreachable("ray", address, error) from error
        self.run = self.ray.remote(run_job)

    def submit(self, job: Job) -> Any:
        return self.run.remote(job)

    def take(self, handle: Any) -> tuple[Failure | None] | None:
        ready, _ = self.ray.wait([handle], timeout=0)
        return (self.ray.get(handle),) if ready else None

    def close(self, stop: bool) -> None:
        self.ray.shutdown()


def _import(module: str, name: str, install: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ToolError(
            f"{error.name} is not installed",
            where=f"--cluster {name}",
            why=f"jobs are handed to the cluster by its own client, {module}",
            fix=install,
        ) from error


def _unreachable(name: str, address: str | None, error: Exception) -> ToolError:
    return ToolError(
        f"no {name} cluster answers",
        where=f"--cluster {name}:{address}" if address else f"--cluster {name}",
        why=str(error).splitlines()[0] if str(error) else type(error).__name__,
        fix="check its address, and that it runs",
    )


def open_pool(cluster: str | None, workers: int) -> Pool:
    """Return where jobs run: "dask", "dask:ADDRESS", "ray", "ray:ADDRESS", or None for processes of this machine."""
    if cluster is None:
        return LocalPool(workers)
    check_cluster(cluster)
    name, _, address = cluster.partition(":")
    return (DaskPool if name == "dask" else RayPool)(address or None)


def check_cluster(cluster: str) -> None:
    """Raise UsageError for a cluster of another kind, ToolError where its client is not installed."""
    name = cluster.partition(":")[0]
    if name not in CLUSTERS:
        raise UsageError(
            f"there is no cluster called {name!r}",
            where="--cluster",
            fix=f"{' or '.join(CLUSTERS)}, perhaps with :ADDRESS",
        )
    _import(*CLUSTERS[name])


def run_jobs(jobs: Sequence[Job], pool: Pool, tick: Callable[[], None]) -> None:
    """Do all jobs; `tick` is called while they run. Raises the first failure; what the others have done is kept."""
    finished = False
    try:
        running = [pool.submit(job) for job in jobs]
        while running:
            left = []
            for handle in running:
                outcome = pool.take(handle)
                if outcome is None:
                    left.append(handle)
                elif outcome[0] is not None:
                    raise outcome[0].error()
            running = left
            tick()
            time.sleep(POLL_S if running else 0)
        finished = True
    finally:
        pool.close(stop=not finished)
