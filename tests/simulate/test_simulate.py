# SPDX-License-Identifier: Apache-2.0
"""`bnngen simulate` on the digits: cut tensors stand for pixels, stopped jobs go on, tables pair seeds."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bnngen.data import load
from tests.e2e.conftest import ROOT, good, in_process

MODEL = ("simulate", "--model", "quicknet-nano-digits04")
SMALL = ("--seeds", "2", "--train-limit", "30", "--test-limit", "10", "--workers", "2")
MARKS = ("experience", "classes", "samples", "steps", "state", "accuracy_seen", "accuracy_all", "forgetting")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("simulate")


@pytest.fixture
def bnngen(capsys, folder, monkeypatch):
    """Run a command in the module's folder, with a cache there."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return in_process(capsys)


@pytest.fixture
def cut(bnngen, folder):
    """The folder of an experiment that several tests look at; done once."""
    if not (folder / "cut" / "summary.csv").exists():
        good(bnngen(*MODEL, *SMALL, "-o", "cut"))
    return folder / "cut"


def documents(out: Path) -> dict[tuple[str, int], list[dict]]:
    """Return what is measured by (run, seed): all but times."""
    found = {}
    for path in sorted(out.glob("seeds/*/*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = [{mark: row[mark] for mark in MARKS} for row in document["experiences"]]
        found[document["run"], document["seed"]] = rows
    return found


def table(path: Path) -> list[dict]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_cut_tensors_leave_the_same_bytes_as_pixels(bnngen, folder):
    last = good(bnngen(*MODEL, *SMALL, "--json", "-o", "cut")).splitlines()[-1]
    good(bnngen(*MODEL, *SMALL, "--pixels", "-o", "pixels"))
    cut, pixels = documents(folder / "cut"), documents(folder / "pixels")
    assert cut == pixels and len(cut) == 2
    assert all(len(row["state"]) > 5 for rows in cut.values() for row in rows)
    said = json.loads(last)
    finals = [rows[-1]["accuracy_all"] for rows in cut.values()]
    assert said["final_accuracy_mean"] == pytest.approx(np.mean(finals))
    assert said["final_accuracy_std"] == pytest.approx(np.std(finals, ddof=1))
    assert 0.5 < said["final_accuracy_mean"] <= 1
    for name in ("accuracy", "accuracy-seen", "forgetting", "confusion"):
        assert (folder / "cut" / f"{name}.png").stat().st_size > 5000
    rows = table(folder / "cut" / "results.csv")
    assert len(rows) == 2 * 5 and rows[-1]["accuracy_all"] == rows[-1]["accuracy_seen"]


def test_the_same_command_again_learns_nothing_anew(bnngen, folder, cut):
    before = {path: path.stat().st_mtime_ns for path in (folder / "cut").glob("seeds/*/*")}
    good(bnngen(*MODEL, *SMALL, "-o", "cut"))
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "cut").glob("seeds/*/*")}


def test_a_job_that_was_stopped_goes_on(bnngen, folder, cut):
    """Three experiences of seed 1 are there, a fourth was being written; the file of labels was damaged meanwhile."""
    wanted = documents(folder / "cut")
    path = next((folder / "cut").glob("seeds/*/1.json"))
    rows = json.loads(path.read_text(encoding="utf-8"))["experiences"]
    kept = [row | {"test_seconds": 1234.0} for row in rows[:3]]
    path.with_suffix(".part").write_text("".join(json.dumps(row) + "\n" for row in kept) + '{"exp', encoding="utf-8")
    path.unlink()
    labels = next((folder / "cut" / "inputs").glob("*.npz"))
    labels.write_bytes(labels.read_bytes()[:100])
    good(bnngen(*MODEL, *SMALL, "-o", "cut"))
    assert documents(folder / "cut") == wanted
    again = json.loads(path.read_text(encoding="utf-8"))["experiences"]
    assert [row["test_seconds"] == 1234.0 for row in again] == [True, True, True, False, False]
    assert not path.with_suffix(".part").exists()


def test_a_state_that_differs_is_an_error(bnngen, folder, cut):
    path = next((folder / "cut").glob("seeds/*/0.json"))
    text = path.read_text(encoding="utf-8")
    row = json.loads(text)["experiences"][0]
    row["state"][4] ^= 1
    path.unlink()
    path.with_suffix(".part").write_text(json.dumps(row) + "\n", encoding="utf-8")
    bnngen(*MODEL, *SMALL, "-o", "cut").refused("learned otherwise")
    path.with_suffix(".part").unlink()
    path.write_text(text, encoding="utf-8")


def test_a_sweep_and_methods_stand_in_one_table(bnngen, folder):
    options = (*MODEL, *SMALL, "-o", "sweep", "--evaluate-every", "5", "--json")
    out = good(bnngen(*options, "--replay", "20,60", "--qf", "8", "--qb", "16", "--methods", "nearest-mean"))
    runs = {row["run"]: row for row in json.loads(out.splitlines()[-1])["runs"]}
    assert list(runs) == ["replay 20", "replay 60", "nearest-mean"]
    assert runs["replay 60"]["learning_ram_bytes"] - runs["replay 20"]["learning_ram_bytes"] == 40 * (16 + 2)
    found = documents(folder / "sweep")
    pair = ("replay 20", "nearest-mean")
    first, other = ([found[name, seed][-1]["accuracy_all"] for seed in (0, 1)] for name in pair)
    assert runs["nearest-mean"]["difference_mean"] == pytest.approx(np.mean(other) - np.mean(first))
    assert found["replay 20", 0][0]["classes"] == found["nearest-mean", 0][0]["classes"], "the same experiences"
    assert found["replay 20", 0][0]["accuracy_all"] is None, "tested after every fifth experience alone"
    assert (folder / "sweep" / "memory.png").stat().st_size > 5000


def test_several_experiments_in_one_picture(bnngen, folder, cut):
    good(bnngen(*MODEL, *SMALL, "-o", "few", "--experiences", "2"))
    out = good(bnngen("results", "cut", "few", "-o", "both.png"))
    assert "cut: learned head" in out and "few: learned head" in out
    assert (folder / "both.png").stat().st_size > 5000
    bnngen("results", "nowhere").refused("no results")
    bnngen("results", "cut", "-o", "both.pdf").refused("PNG")


def test_state_and_peak_are_the_buffers_of_the_plan(bnngen, folder, cut):
    """CWR* 8/16 with 10 classes, 128 features, 300 latents of 16 bytes: past, seen, head and replay memory survive."""
    row = table(folder / "cut" / "summary.csv")[0]
    state = 2 * 4 * 10 + 2 * 10 * 128 + 300 * (16 + 2)
    assert int(row["state_bytes"]) == state
    document = json.loads(next((folder / "cut").glob("seeds/*/0.json")).read_text(encoding="utf-8"))
    assert state < int(row["learning_ram_bytes"]) <= sum(document["memory"].values()) + 4 * 128


PLAN = """
model = "quicknet-nano-digits04"
seeds = 2
train-limit = 20
test-limit = 5
baseline = "small, replay 20"

[[run]]
name = "small"
replay = [20, 40]
learn-epochs = 2

[[run]]
name = "SLDA"
method = "slda"
shrinkage = [0.02, 0.1]
"""


def test_a_plan(bnngen, folder):
    (folder / "plan.toml").write_text(PLAN, encoding="utf-8")
    good(bnngen("simulate", "--plan", "plan.toml", "--seeds", "1", "-o", "plan"))
    rows = table(folder / "plan" / "summary.csv")
    names = ["small, replay 20", "small, replay 40", "SLDA, shrinkage 0.02", "SLDA, shrinkage 0.1"]
    assert [row["run"] for row in rows] == names
    assert [row["seeds"] for row in rows] == ["1"] * 4, "the command line goes before the plan"
    assert rows[0]["difference_mean"] == "" and rows[2]["difference_mean"] != ""
    assert rows[0]["final_accuracy_ci95"] == "", "one seed has no interval"


WRONG_PLANS = {
    "no runs": "seeds = 2\n",
    "an unknown option": "colour = 1\n[[run]]\nname = 'a'\n",
    "an unknown key of a run": "[[run]]\nshade = 1\n",
    "an unknown method": "[[run]]\nmethod = 'magic'\n",
    "two of a name": "[[run]]\nname = 'a'\n[[run]]\nname = 'a'\n",
    "a baseline that is not there": "baseline = 'b'\n[[run]]\nname = 'a'\n",
    "a value of another type": "[[run]]\nname = 'a'\nreplay = 'many'\n",
    "no TOML": "[[run\n",
}


@pytest.mark.parametrize("case", WRONG_PLANS)
def test_wrong_plans_are_explained(bnngen, folder, case):
    (folder / "wrong.toml").write_text(WRONG_PLANS[case], encoding="utf-8")
    bnngen(*MODEL, "--plan", "wrong.toml", "-o", "wrong").refused()


REFUSED = {
    "scenario": ("--scenario", "xyz"),
    "no groups": ("--scenario", "nicv2"),
    "unknown groups": ("--scenario", "ni", "--groups", "track"),
    "classes that are not there": ("--classes", "3,12"),
    "one class": ("--classes", "3"),
    "longer than the capacity": ("--capacity", "5"),
    "more first than there are": ("--first", "11"),
    "more experiences than images": ("--scenario", "ni", "--experiences", "500"),
    "no lists": ("--scenario", "core50"),
    "another cluster": ("--cluster", "slurm"),
    "unknown method": ("--methods", "magic"),
    "a method without pre-training": ("--methods", "ridge"),
    "float32": ("--activations", "float32"),
    "an impossible value of several": ("--replay", "20,x"),
    "no model": ("--model", "nothing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(bnngen, case):
    bnngen(*MODEL, *SMALL, "-o", "refused", *REFUSED[case]).refused()


def test_data_with_tracks_and_speakers(bnngen, folder):
    data = load("digits")
    keep = np.concatenate([np.flatnonzero(data.y_train == c)[:12] for c in range(4)])
    arrays = {"x_train": data.x_train[keep], "y_train": data.y_train[keep]}
    arrays |= {"track_train": np.tile(np.arange(12) // 3, 4), "speaker_train": np.tile(np.arange(12) % 2, 4)}
    tested = np.flatnonzero(data.y_test < 4)
    np.savez(folder / "tracks.npz", **arrays, x_test=data.x_test[tested], y_test=data.y_test[tested])
    small = (*MODEL, "--data", "tracks.npz", "--seeds", "1")
    good(bnngen(*small, "--scenario", "nicv2", "--groups-per-experience", "2", "--evaluate-every", "3", "-o", "nic"))
    nic = next(iter(documents(folder / "nic").values()))
    assert [row["samples"] for row in nic] == [6] * 8, "four classes, two turns of two tracks of three each"
    good(bnngen(*small, "--scenario", "group", "--groups", "speaker", "-o", "speakers"))
    speakers = next(iter(documents(folder / "speakers").values()))
    assert [row["samples"] for row in speakers] == [24, 24] and speakers[0]["classes"] == [0, 1, 2, 3]
    good(bnngen(*small, "--scenario", "ni", "--experiences", "3", "-o", "ni"))
    assert [row["samples"] for row in next(iter(documents(folder / "ni").values()))] == [16, 16, 16]


def test_core50_from_its_lists(bnngen, folder):
    from tests.simulate.test_core50 import make_tree

    images, lists = make_tree(folder / "core50")
    core = ("simulate", "--model", "quicknet-nano-cifar100", "--scenario", "core50", "--data", str(images))
    good(bnngen(*core, "--lists", str(lists), "--seeds", "2", "-o", "core"))
    found = documents(folder / "core")
    assert [row["samples"] for row in found["learned head", 0]] == [6, 6]
    bnngen(*core, "--lists", str(lists), "--seeds", "3", "-o", "core").refused("run 2")


def test_ctrl_c_keeps_what_is_done(folder, bnngen):
    """One process at a time over many seeds, stopped after the first result; the next command does the rest."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "bnngen.cli", *MODEL, "--seeds", "12", "--workers", "1", "-o", "stopped"]
    process = subprocess.Popen(argv, cwd=folder, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list((folder / "stopped").glob("seeds/*/0.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said and "of 12 jobs are done" in said and "goes on from there" in said
    done = list((folder / "stopped").glob("seeds/*/*.json"))
    assert 1 <= len(done) < 12
    good(bnngen(*MODEL, "--seeds", "12", "--workers", "2", "-o", "stopped"))
    assert len(documents(folder / "stopped")) == 12
    good(bnngen(*MODEL, "--seeds", "12", "--workers", "2", "-o", "whole"))
    assert documents(folder / "stopped") == documents(folder / "whole")
