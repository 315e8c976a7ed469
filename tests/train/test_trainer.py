# SPDX-License-Identifier: Apache-2.0
"""A training run: resumable to the same bits, honest about what it measured, clear when it fails."""

from __future__ import annotations

import csv
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
larq = pytest.importorskip("larq")

from bnngen.data import load  # noqa: E402
from bnngen.errors import DataError, TrainingInterrupted, UsageError  # noqa: E402
from bnngen.train.config import BACKBONE_NAMES, Form, TrainConfig, TrainResult, command  # noqa: E402
from bnngen.train.run import learning_rate  # noqa: E402
from bnngen.train.state import state_file  # noqa: E402
from bnngen.train.trainer import train  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("default")]  # TensorFlow 2.15 warns about itself


def three_classes(folder: Path) -> str:
    """A small data set that can be learned: class c is a bright bar in column c of noise."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 120), ("test", 30)):
        y = np.arange(count) % 3
        x = rng.integers(0, 120, (count, 8, 8, 1), dtype=np.uint8)
        for image, label in zip(x, y, strict=True):
            image[:, 1 + 2 * label] = 255
        arrays |= {f"x_{split}": x, f"y_{split}": y}
    path = folder / "bars.npz"
    np.savez(path, **arrays, classes=np.array(["left", "middle", "right"]))
    return str(path)


def config(folder: Path, name: str, **changed: object) -> TrainConfig:
    plain = TrainConfig("quicknet-nano", three_classes(folder), folder / name, epochs=3, batch=40)
    return replace(plain, **changed)


def interrupt_at(step: int):
    """A progress callable that presses Ctrl-C once `step` steps are done."""

    def progress(what: str, done: int, total: int) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGINT)

    return progress


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    folder = tmp_path_factory.mktemp("finished")
    return train(config(folder, "whole.keras"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state file of a run that was stopped after its first epoch."""
    cut = config(tmp_path_factory.mktemp("stopped"), "cut.keras")
    with pytest.raises(TrainingInterrupted):
        train(cut, interrupt_at(4))
    return state_file(cut.out)


def test_interrupted_run_resumes_to_the_same_model(tmp_path: Path, finished: TrainResult) -> None:
    cut = config(tmp_path, "whole.keras")
    with pytest.raises(TrainingInterrupted, match="stopped after 1 of 3 epochs") as caught:
        train(cut, interrupt_at(5))  # in the middle of the second epoch of three steps
    assert "--resume" in caught.value.fix and caught.value.where == str(state_file(cut.out))
    assert not cut.out.exists()
    result = train(replace(cut, resume=True))
    assert result.model.read_bytes() == finished.model.read_bytes()
    assert result.meta.read_bytes() == finished.meta.read_bytes()
    assert result.calibration.read_bytes() == finished.calibration.read_bytes()
    assert not state_file(cut.out).parent.exists()


def test_a_torn_state_file_is_not_used(tmp_path: Path) -> None:
    cut = config(tmp_path, "torn.keras")
    with pytest.raises(TrainingInterrupted):
        train(cut, interrupt_at(4))
    state_file(cut.out).with_suffix(".partial").write_bytes(b"half of a newer state")
    assert train(replace(cut, resume=True)).model.exists()


def test_resume_with_other_settings_is_refused(tmp_path: Path) -> None:
    cut = config(tmp_path, "other.keras")
    with pytest.raises(TrainingInterrupted):
        train(cut, interrupt_at(4))
    with pytest.raises(UsageError, match="other settings") as caught:
        train(replace(cut, resume=True, seed=2))
    assert caught.value.why == "seed was 1 and is now 2"


def test_resume_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no training run to resume"):
        train(config(tmp_path, "none.keras", resume=True))


def test_an_interrupted_run_is_not_lost_when_resume_is_forgotten(tmp_path: Path) -> None:
    cut = config(tmp_path, "forgotten.keras")
    with pytest.raises(TrainingInterrupted):
        train(cut, interrupt_at(4))
    reached = state_file(cut.out).read_bytes()
    with pytest.raises(UsageError, match="interrupted run") as caught:
        train(cut)
    assert caught.value.where == str(state_file(cut.out)) and "--resume" in caught.value.fix
    assert str(state_file(cut.out).parent) in caught.value.fix and "-o" in caught.value.fix
    assert state_file(cut.out).read_bytes() == reached
    with pytest.raises(UsageError, match="exclude each other"):
        train(replace(cut, resume=True, restart=True))


def test_restart_forgets_the_interrupted_run(tmp_path: Path, finished: TrainResult) -> None:
    cut = config(tmp_path, "whole.keras", seed=2)
    with pytest.raises(TrainingInterrupted):
        train(cut, interrupt_at(4))
    result = train(replace(cut, seed=1, restart=True))
    assert result.model.read_bytes() == finished.model.read_bytes()
    assert not state_file(cut.out).parent.exists()


def test_restart_stopped_in_its_first_epoch_can_be_started_again(tmp_path: Path) -> None:
    cut = config(tmp_path, "again.keras")
    with pytest.raises(TrainingInterrupted):
        train(cut, interrupt_at(4))
    with pytest.raises(TrainingInterrupted, match="in the first epoch") as caught:
        train(replace(cut, restart=True), interrupt_at(1))
    assert "--restart" in caught.value.fix


def damage(file: Path, kind: str) -> None:
    if kind == "empty":
        file.write_bytes(b"")
    elif kind == "cut":
        file.write_bytes(file.read_bytes()[:-1000])
    elif kind == "flipped":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 255
        file.write_bytes(content)
    else:
        with np.load(file) as archive:
            arrays = {key: archive[key] for key in archive.files}
        if kind == "no header":
            del arrays["header"]
        else:
            arrays["weights_000"] = arrays["weights_000"][..., :1]
        np.savez(file, **arrays)


@pytest.mark.parametrize("kind", ["empty", "cut", "flipped", "no header", "other shapes"])
def test_a_damaged_state_is_explained(tmp_path: Path, kind: str, stopped: Path) -> None:
    cut = config(tmp_path, "cut.keras", resume=True)
    file = state_file(cut.out)
    file.parent.mkdir()
    file.write_bytes(stopped.read_bytes())
    damage(file, kind)
    with pytest.raises(DataError, match="state of the interrupted run is damaged") as caught:
        train(cut)
    assert caught.value.where == str(file) and caught.value.why and "--restart" in caught.value.fix
    assert file.exists()


def test_interruption_in_the_first_epoch_says_that_nothing_was_kept(tmp_path: Path) -> None:
    with pytest.raises(TrainingInterrupted, match="in the first epoch"):
        train(config(tmp_path, "early.keras"), interrupt_at(1))


def test_model_is_the_one_that_was_measured(tmp_path: Path, finished: TrainResult) -> None:
    data = load(three_classes(tmp_path))
    model = tf.keras.models.load_model(finished.model, compile=False)
    scores = model.predict(data.x_test.astype(np.float32) / 128 - 1, verbose=0)
    assert (scores.argmax(axis=1) == data.y_test).mean() == pytest.approx(finished.test_accuracy)
    with open(finished.log, newline="") as stream:
        log = list(csv.DictReader(stream))
    assert [row["epoch"] for row in log] == ["1", "2", "3"]
    best = max(log, key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    assert int(best["epoch"]) == finished.best_epoch
    assert float(best["val_accuracy"]) == pytest.approx(finished.val_accuracy, abs=1e-5)


def test_meta_describes_the_model(tmp_path: Path, finished: TrainResult) -> None:
    meta = json.loads(finished.meta.read_text())
    assert meta["schema"] == 1 and meta["backbone"] == "quicknet-nano" and meta["name"] == "whole"
    assert meta["classes"] == ["left", "middle", "right"] and meta["trained_classes"] == [0, 1, 2]
    assert meta["input"] == {"shape": [8, 8, 1], "dtype": "uint8", "scale": 1 / 128, "offset": -1.0}
    assert meta["data_sha256"] == load(three_classes(tmp_path)).sha256
    assert meta["command"] == ("bnngen train quicknet-nano --data bars.npz --epochs 3 --batch 40 --lr 0.0025 "
                               "--seed 1 -o whole.keras")
    assert str(tmp_path) not in finished.meta.read_text()


def test_a_subset_in_any_order_gives_one_output_per_class(tmp_path: Path) -> None:
    result = train(config(tmp_path, "two.keras", classes=(2, 0), epochs=12, batch=20, note="bars on noise"))
    meta = json.loads(result.meta.read_text())
    assert meta["classes"] == ["right", "left"] and meta["trained_classes"] == [2, 0]
    assert meta["data_classes"] == ["left", "middle", "right"] and meta["data_note"] == "bars on noise"
    with np.load(result.calibration) as sample:
        assert set(sample["y"]) == {0, 2} and len(sample["x"]) == len(sample["y"]) == 72
        assert np.all(sample["x"][sample["y"] == 2][:, :, 5] == 255)
    assert result.test_accuracy == 1.0
    model = tf.keras.models.load_model(result.model, compile=False)
    data = load(three_classes(tmp_path))
    rights = data.x_test[data.y_test == 2].astype(np.float32) / 128 - 1
    assert set(model.predict(rights, verbose=0).argmax(axis=1)) == {0}


def test_weights_can_start_from_another_model(tmp_path: Path, finished: TrainResult) -> None:
    """Without a step that moves them, the backbone's weights are the donor's, and the smaller head is new."""
    result = train(config(tmp_path, "warm.keras", init=finished.model, classes=(0, 1), epochs=1, lr=1e-30))
    donor, model = (tf.keras.models.load_model(p, compile=False) for p in (finished.model, result.model))
    kernels = [layer.name for layer in donor.layers if layer.name.endswith("_conv")]
    assert len(kernels) == 9
    for name in kernels:
        assert np.array_equal(donor.get_layer(name).get_weights()[0], model.get_layer(name).get_weights()[0])
    assert model.get_layer("logits").units == 2
    with pytest.raises(UsageError, match="does not fit"):
        train(config(tmp_path, "chain.keras", backbone="binary-chain", init=finished.model))


@pytest.mark.parametrize(("changed", "message"), [
    ({"backbone": "resnet-9000"}, "no backbone 'resnet-9000'"),
    ({"out": Path("model.h5")}, "must be a .keras file"),
    ({"classes": (1, 1)}, "no choice of two or more different classes"),
    ({"classes": (1,)}, "no choice of two or more different classes"),
    ({"epochs": 0}, "--epochs 0 is not positive"),
    ({"lr": -1.0}, "--lr -1.0 is not positive"),
    ({"init": Path("nowhere.keras")}, "no model to start from"),
])
def test_requests_that_cannot_be_met(tmp_path: Path, changed: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        train(config(tmp_path, "x.keras", **changed))
    assert caught.value.fix


def test_unknown_class_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class 7"):
        train(config(tmp_path, "x.keras", classes=(0, 7)))


def few(folder: Path, train_count: int) -> str:
    """Grey images of two classes, so few that a tenth of them is none; class 1 is never tested."""
    path = folder / "few.npz"
    np.savez(path, x_train=np.zeros((train_count, 8, 8, 1), np.uint8), y_train=np.arange(train_count) % 2,
             x_test=np.zeros((2, 8, 8, 1), np.uint8), y_test=np.zeros(2, np.int64), classes=np.array(["a", "b"]))
    return str(path)


def test_four_images_are_enough_to_train(tmp_path: Path) -> None:
    result = train(config(tmp_path, "four.keras", data=few(tmp_path, 4), epochs=1))
    assert result.val_accuracy in (0.0, 1.0) and result.test_accuracy in (0.0, 1.0)


def test_too_few_images_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few training images"):
        train(config(tmp_path, "one.keras", data=few(tmp_path, 1)), interrupt_at(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bars.npz", "few.npz"]


class Crash(Exception):
    """The machine stops here: nothing after this point happens."""


def test_a_model_never_stands_beside_files_of_another_run(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever rename the second run stops at, a model that is there is beside its own meta, log and sample."""
    first = train(config(tmp_path, "twice.keras", epochs=1))
    files = (first.model, first.meta, first.calibration, first.log)
    old = {file: file.read_bytes() for file in files}
    rename, seen = os.replace, []

    def stopping(source: Path, target: Path) -> None:
        if Path(target) in files:
            seen.append(Path(target))
            if len(seen) == stop:
                raise Crash
        rename(source, target)

    again = config(tmp_path, "twice.keras", epochs=1, seed=2, classes=(0, 1), keep_state=True)
    for stop in (1, 2, 3, 4):
        for file, content in old.items():
            file.write_bytes(content)
        seen.clear()
        with monkeypatch.context() as patched, pytest.raises(Crash):
            patched.setattr(os, "replace", stopping)
            train(replace(again, resume=stop > 1))
        assert seen[-1:] != [first.model] or stop == 4
        if first.model.exists():
            assert {file: file.read_bytes() for file in files} == old
    result = train(replace(again, resume=True, keep_state=False))
    assert all(file.read_bytes() != content for file, content in old.items())
    names = ["bars.npz", "twice.calib.npz", "twice.keras", "twice.log.csv", "twice.meta.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names and result.model == first.model


def test_a_run_that_is_going_on_leaves_the_log_of_the_model(tmp_path: Path) -> None:
    first = train(config(tmp_path, "same.keras", epochs=1))
    log = first.log.read_bytes()
    with pytest.raises(TrainingInterrupted):
        train(config(tmp_path, "same.keras", seed=2), interrupt_at(4))
    assert first.log.read_bytes() == log
    with open(state_file(first.model).with_name("log.csv"), newline="") as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["1"]


def test_a_full_disk_leaves_the_earlier_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(config(tmp_path, "full.keras", epochs=1))
    files = (first.model, first.meta, first.calibration, first.log)
    old = {file: file.read_bytes() for file in files}

    def full(model: tf.keras.Model, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half a model")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(tf.keras.Model, "save", full)
        train(config(tmp_path, "full.keras", epochs=1, seed=2))
    assert {file: file.read_bytes() for file in files} == old
    names = ["bars.npz", "full.calib.npz", "full.ckpt", "full.keras", "full.log.csv", "full.meta.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    rates = [learning_rate(step, 1000, 2.0) for step in range(1000)]
    assert rates[0] == pytest.approx(2.0 / 50) and max(rates) == rates[49] == 2.0
    assert rates[:50] == sorted(rates[:50]) and rates[49:] == sorted(rates[49:], reverse=True)
    assert rates[525] == pytest.approx(1.0) and rates[-1] < 1e-5


def test_command_names_files_without_folders(tmp_path: Path) -> None:
    full = config(tmp_path, "m.keras", classes=(0, 2), augment=False, init=Path("/some/where/donor.keras"))
    assert command(full) == ("bnngen train quicknet-nano --data bars.npz --classes 0,2 --epochs 3 --batch 40 "
                             "--lr 0.0025 --seed 1 --no-augment --init donor.keras -o m.keras")


@pytest.mark.parametrize("backbone", BACKBONE_NAMES)
def test_every_backbone_learns_the_digits(tmp_path: Path, backbone: str) -> None:
    """Four epochs on five digits: far above the 20 % of guessing. The large ones are narrowed, to be quick."""
    width = 0.25 if backbone in ("quicknet-nano-l", "reactnet-18", "birealnet-18") else 1.0
    result = train(TrainConfig(backbone, "digits", tmp_path / "m.keras", epochs=4, classes=(0, 1, 2, 3, 4),
                               form=Form(width)))
    assert result.test_accuracy > (0.9 if width == 1 else 0.7)


@pytest.mark.parametrize("out", ["missing/m.keras", "/proc/m.keras", "folder.keras"])
def test_what_cannot_be_written_is_refused_before_the_data_are_read(tmp_path: Path, out: str) -> None:
    (tmp_path / "folder.keras").mkdir()
    with pytest.raises(UsageError) as caught:
        train(config(tmp_path, out, data="nowhere.npz"))
    assert caught.value.fix and not (tmp_path / "missing").exists()


def test_a_mistyped_backbone_is_recognized(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        train(config(tmp_path, "x.keras", backbone="quiknet-nano"))
    assert caught.value.fix == "did you mean 'quicknet-nano'?"


def test_test_images_of_classes_that_were_never_trained_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "few.npz"
    x = np.zeros((12, 8, 8, 1), np.uint8)
    np.savez(path, x_train=x, y_train=np.arange(12) % 2, x_test=x[:5], y_test=np.array([2, 2, 2, 1, 2]),
             classes=np.array(["a", "b", "c"]))
    assert train(config(tmp_path, "few.keras", data=str(path), epochs=1)).never_trained == 4


def test_progress_is_told_before_the_first_step_is_done(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    train(config(tmp_path, "p.keras", epochs=1), lambda *report: told.append(report))
    assert told == [("epoch 1/1", done, 3) for done in range(4)]
