# SPDX-License-Identifier: Apache-2.0
"""Several devices and several processes train what one does; where one of them fails, none waits for ever."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
larq = pytest.importorskip("larq")

from bnngen.errors import UsageError  # noqa: E402
from bnngen.train.team import gather_team, read_cluster  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("default")]

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("worker.py")
SECONDS = 240  # for a worker; it takes about ten
# 378 training images: the last batch of an epoch would be one image, for two replicas.
DIGITS = {"backbone": "quicknet-nano-s", "data": "digits", "classes": [0, 1, 2], "epochs": 3, "batch": 29}


def free_ports(count: int) -> list[int]:
    """Ports of this computer that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def start(folder: Path, request: dict, **environment: str) -> subprocess.Popen:
    """Start worker.py with a request; what it writes beside is in its own folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "request.json"
    file.write_text(json.dumps(request | {"config": request["config"] | {"out": str(folder / "m.keras")}}))
    env = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""} | environment
    return subprocess.Popen([sys.executable, str(WORKER), str(file)], env=env, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def outcome(process: subprocess.Popen) -> dict | int:
    """What the worker printed, or the signal that ended it."""
    try:
        out, err = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    if process.returncode < 0:
        return process.returncode
    assert process.returncode == 0, err
    return json.loads(out.strip().splitlines()[-1])


def single(folder: Path, request: dict) -> dict | int:
    return outcome(start(folder, request))


def pair(folders: tuple[Path, Path], *requests: dict) -> list[dict | int]:
    """Run two workers of one cluster, each with its request and folder; return their outcomes."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for index, (folder, request) in enumerate(zip(folders, requests, strict=True)):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        processes.append(start(folder, request, TF_CONFIG=json.dumps(cluster)))
    try:
        return [outcome(process) for process in processes]
    finally:
        for process in processes:
            process.kill()


def both(**changed: object) -> dict:
    """The request of a worker of two."""
    return {"config": DIGITS | {"strategy": "multiworker"} | changed}


def log_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "m.log.csv", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("two")
    return folder, pair((folder / "chief", folder / "worker"), both(), both())


def test_two_workers_train_and_the_chief_writes(two_workers: tuple[Path, list[dict]]) -> None:
    folder, (chief, worker) = two_workers
    assert chief["chief"] and not worker["chief"]
    assert chief["test_accuracy"] == worker["test_accuracy"] > 0.9  # a third would be guessing
    written = sorted(path.name for path in (folder / "chief").iterdir())
    assert written == ["m.calib.npz", "m.keras", "m.log.csv", "m.meta.json", "request.json"]
    assert [path.name for path in (folder / "worker").iterdir()] == ["request.json"]
    kinds = {type(layer).__name__ for layer in tf.keras.models.load_model(folder / "chief/m.keras").layers}
    assert "BatchNormalization" in kinds and "SyncBatchNormalization" not in kinds


@pytest.mark.slow
def test_two_devices_of_one_process_give_the_model_of_two_processes(
        tmp_path: Path, two_workers: tuple[Path, list[dict]]) -> None:
    request = {"config": DIGITS | {"strategy": "mirrored"}, "cpus": 2}
    assert single(tmp_path, request)["test_accuracy"] == two_workers[1][0]["test_accuracy"]
    assert (tmp_path / "m.keras").read_bytes() == (two_workers[0] / "chief/m.keras").read_bytes()


@pytest.mark.slow
def test_one_device_takes_the_same_steps(tmp_path: Path) -> None:
    """One step on the whole set, of a smooth twin, differs by rounding alone; in the binary one signs may flip.

    Adam's first step is lr * g / |g|: where g is rounding noise around 0 its sign, and the weight, are arbitrary.
    """
    plain = DIGITS | {"epochs": 1, "batch": 1000, "lr": 1e-3}
    form = {"float_weights": True}
    single(tmp_path / "one", {"config": plain, "form": form})
    single(tmp_path / "two", {"config": plain | {"strategy": "mirrored"}, "cpus": 2, "form": form})
    one, two = (tf.keras.models.load_model(tmp_path / name / "m.keras", compile=False) for name in ("one", "two"))
    learned = []
    for a, b in zip(one.weights, two.weights, strict=True):
        difference = np.abs(a.numpy() - b.numpy())
        if "moving" in a.name:
            assert difference.max() < 1e-5 * max(1, np.abs(a.numpy()).max()), a.name
        else:
            learned.append(difference.ravel())
    learned = np.concatenate(learned)
    assert learned.max() <= 2.01e-3 and (learned > 1e-5).mean() < 0.002
    losses = [float(log_of(tmp_path / name)[0]["train_loss"]) for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_interrupted_workers_resume_to_the_same_model(tmp_path: Path, two_workers: tuple[Path, list[dict]]) -> None:
    """Ctrl-C at all workers in the second epoch. Only the chief has the state: it sends it to the others."""
    folders = (tmp_path / "chief", tmp_path / "worker")
    stopped = pair(folders, *(both() | {"stop_at": 18} for _ in folders))
    assert [result["error"] for result in stopped] == ["TrainingInterrupted"] * 2
    assert (tmp_path / "chief/m.ckpt/state.npz").exists() and not (tmp_path / "worker/m.ckpt").exists()
    resumed = pair(folders, both(resume=True), both(resume=True))
    assert resumed[0]["test_accuracy"] == resumed[1]["test_accuracy"]
    assert (tmp_path / "chief/m.keras").read_bytes() == (two_workers[0] / "chief/m.keras").read_bytes()


def test_a_lost_worker_ends_the_run_with_a_word(tmp_path: Path) -> None:
    kill = both() | {"stop_at": 18, "kill": True}
    chief, worker = pair((tmp_path / "chief", tmp_path / "worker"), both(), kill)
    assert worker == -9
    assert chief["error"] == "TrainingInterrupted" and "another worker was lost" in chief["message"]
    assert "stopped after 1 of 3 epochs" in chief["message"] and "--resume" in chief["fix"]


@pytest.mark.slow
@pytest.mark.parametrize(("changed", "chief_says", "worker_says"), [
    ({"seed": 2}, "worker 1 was started with other settings or data", "worker 1 was started with other"),
    ({"data": "nowhere.npz"}, "worker 1 could not start", "nowhere.npz"),
])
def test_workers_that_do_not_fit_stop_together(tmp_path: Path, changed: dict, chief_says: str,
                                               worker_says: str) -> None:
    chief, worker = pair((tmp_path / "chief", tmp_path / "worker"), both(), both(**changed))
    assert chief_says in chief["message"] and chief["fix"]
    assert worker_says in worker["message"] + worker["why"]


@pytest.mark.slow
def test_resume_without_a_state_is_said_by_all(tmp_path: Path) -> None:
    chief, worker = pair((tmp_path / "chief", tmp_path / "worker"), both(resume=True), both(resume=True))
    assert "no training run to resume" in chief["message"] and "worker 0 could not start" in worker["message"]


@pytest.mark.slow
def test_a_run_on_two_devices_goes_on_on_one(tmp_path: Path) -> None:
    """The state is that of the plain model: hosts may come and go between two epochs."""
    request = {"config": DIGITS | {"strategy": "mirrored"}, "cpus": 2}
    assert single(tmp_path, request | {"stop_at": 18})["error"] == "TrainingInterrupted"
    assert single(tmp_path, {"config": DIGITS | {"resume": True}})["test_accuracy"] > 0.9


def cluster(kind: str = "worker", index: int = 0, **jobs: list[str]) -> str:
    return json.dumps({"cluster": jobs or {"worker": ["a:1", "b:1"]}, "task": {"type": kind, "index": index}})


def test_workers_are_numbered_with_the_chief_first() -> None:
    assert [read_cluster(cluster(index=i)) for i in (0, 1)] == [(2, 0), (2, 1)]
    with_chief = {"chief": ["c:1"], "worker": ["a:1", "b:1"]}
    assert read_cluster(cluster("chief", 0, **with_chief)) == (3, 0)
    assert read_cluster(cluster("worker", 1, **with_chief)) == (3, 2)


@pytest.mark.parametrize(("text", "why"), [
    ("{", "not what TensorFlow reads"), ("[]", "not what TensorFlow reads"), ('{"cluster": {}}', "'task'"),
    (cluster(index=2), "no worker 2"), (cluster(index=-1), "no worker -1"), (cluster("evaluator"), "no evaluator 0"),
    (cluster(ps=["a:1"], worker=["b:1"]), "at most one chief"), (cluster(chief=["a:1"]), "at most one chief"),
])
def test_a_bad_cluster_is_explained(text: str, why: str) -> None:
    with pytest.raises(UsageError, match="TF_CONFIG does not describe this worker") as caught:
        read_cluster(text)
    assert why in caught.value.why and "TF_CONFIG=" in caught.value.fix


@pytest.mark.parametrize("text", [None, ""])
def test_without_a_cluster_the_variable_is_asked_for(text: str | None) -> None:
    with pytest.raises(UsageError, match="needs TF_CONFIG") as caught:
        read_cluster(text)
    assert "worker" in caught.value.fix


def test_mirroring_on_one_device_is_refused() -> None:
    if len(tf.config.list_logical_devices("GPU")) > 1:
        pytest.skip("there are several GPUs to mirror on")
    with pytest.raises(UsageError, match="finds one device"):
        gather_team("mirrored")
