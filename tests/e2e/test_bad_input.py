# SPDX-License-Identifier: Apache-2.0
"""A user's mistakes: one clear message, a status, no traceback, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import takewhile

import numpy as np
import pytest

from tests.e2e.conftest import ROOT, absent, need_tools


def test_a_file_that_is_not_onnx(bnngen):
    (bnngen.folder / "model.onnx").write_bytes(b"PK\x03\x04 this is a zip")
    bnngen("build").refused("model.onnx", "not an ONNX file")
    assert not (bnngen.folder / "build").exists()


def test_a_truncated_onnx_file(bnngen, digits):
    data = (digits.folder / "model.onnx").read_bytes()
    for keep in (0, 100, len(data) // 2, len(data) - 1):
        (bnngen.folder / "model.onnx").write_bytes(data[:keep])
        bnngen("build").refused("model.onnx")


def test_no_model_at_all(bnngen):
    bnngen("build").refused("there is no model", "bnngen export")
    bnngen("export").refused("there is no model", "bnngen train")


def test_a_layer_that_is_not_supported(bnngen):
    larq = pytest.importorskip("larq", reason="needs the extra bnngen[train]")
    import tensorflow as tf

    image = tf.keras.Input((16, 16, 1))
    x = tf.keras.layers.Conv2DTranspose(4, 3, name="grow")(image)
    x = larq.layers.QuantConv2D(8, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="b")(x)
    x = tf.keras.layers.Dense(3, name="logits")(tf.keras.layers.GlobalAveragePooling2D()(x))
    tf.keras.Model(image, x).save(bnngen.folder / "model.keras")
    ran = bnngen("export", "model", "--calibrate", "digits", "--input-scale", "0.0078125", "--input-offset", "-1")
    ran.refused("grow", "Conv2DTranspose")
    assert not (bnngen.folder / "model.onnx").exists()


def test_no_calibration_sample(bnngen, digits):
    for name in ("model.keras", "model.meta.json"):
        shutil.copy(digits.folder / name, bnngen.folder)
    bnngen("export", "model").refused("no calibration sample", "--calibrate")


def save_images(path, shape, labels, dtype=np.uint8):
    x = np.zeros((len(labels), *shape), dtype)
    np.savez(path, x_train=x, y_train=labels, x_test=x, y_test=labels)


def test_images_of_the_wrong_shape(digits):
    save_images(digits.folder / "wide.npz", (8, 9, 3), np.arange(6) % 2)
    digits("validate", "--data", "wide.npz").refused("8x9x3", "16x16x1")
    digits("learn", "--data", "wide.npz").refused("8x9x3", "16x16x1")
    from PIL import Image

    Image.new("L", (5, 4)).save(digits.folder / "small.png")
    digits("run", "small.png").refused("small.png", "4 high and 5 wide", "16 x 16")


def test_labels_out_of_range(bnngen):
    save_images(bnngen.folder / "bad.npz", (16, 16, 1), np.array([0, 1, -3]))
    bnngen("train", "--data", "bad.npz").refused("label -3", "y_train of bad")


def test_data_that_do_not_exist(bnngen):
    bnngen("train", "--data", "nowhere.npz").refused("nowhere.npz")


def test_replay_memories_that_cannot_be(digits):
    digits("build", "--replay", "-1").refused("--replay -1")
    digits("build", "--replay", "65536").refused("--replay 65536", "16 bits")


def test_a_replay_memory_larger_than_the_ram(digits):
    digits("build", "--target", "stm32f405", "--replay", "60000").refused("bytes too many", "replay", "131,072")


def test_a_target_that_does_not_exist(digits):
    digits("build", "--target", "stm32f504").refused("stm32f504", "did you mean 'stm32f405'")


@pytest.mark.parametrize(("target", "tool"), [("rpi4", "aarch64-linux-gnu-gcc"), ("stm32f405", "arm-none-eabi-gcc")])
def test_a_missing_compiler(digits, tmp_path, target, tool):
    make = shutil.which("make")
    (tmp_path / "make").symlink_to(make)
    digits("build", "--target", target, PATH=str(tmp_path)).refused(tool, "apt-get install")


def test_a_missing_emulator(digits, tmp_path):
    need_tools("rpi4")
    for tool in ("make", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-ar", "aarch64-linux-gnu-as", "sh", "mkdir", "rm"):
        found = shutil.which(tool)
        if found:
            (tmp_path / tool).symlink_to(found)
    digits("validate", "--target", "rpi4", "--limit", "1", PATH=str(tmp_path)).refused(
        "qemu-aarch64", "apt-get install"
    )


def test_flash_without_a_probe(digits):
    need_tools("stm32f405")
    digits.good("build", "--target", "stm32f405")
    text = digits.good("flash", "--target", "stm32f405", "--dry-run")
    assert text.startswith("st-flash --reset write build/") and "0x08000000" in text
    if shutil.which("st-flash") is None:
        absent("missing: st-flash (bnngen doctor)")
    digits("flash", "--target", "stm32f405").refused("no debug probe")


def test_flash_before_build(bnngen):
    bnngen("flash", "--target", "stm32f405").refused("model has not been built for stm32f405", "bnngen build model")


def test_training_can_be_interrupted_and_resumed(bnngen):
    """Ctrl-C in the middle: status 130, how to go on, and the resumed run ends as an uninterrupted one does."""
    pytest.importorskip("larq", reason="needs the extra bnngen[train]")
    train = ("train", "binary-chain", "--data", "digits", "--epochs", "3", "-o", "model.keras")
    argv = [sys.executable, "-m", "bnngen.cli", *train]
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    log = bnngen.folder / "stderr.txt"
    with log.open("w") as stream:
        running = subprocess.Popen(argv, cwd=bnngen.folder, env=env, stderr=stream, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 180
        while (
            not (bnngen.folder / "model.ckpt" / "state.npz").exists()
            and running.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130, log.read_text()
    assert "--resume" in log.read_text() and "Traceback" not in log.read_text()
    assert not (bnngen.folder / "model.keras").exists()
    bnngen.good(*train, "--resume")
    interrupted = (bnngen.folder / "model.log.csv").read_text().splitlines()
    bnngen.good(*train[:-1], "whole.keras")
    whole = (bnngen.folder / "whole.log.csv").read_text().splitlines()

    def figures(lines):
        return [line.rsplit(",", 1)[0] for line in lines]  # all but the seconds

    assert figures(interrupted) == figures(whole)


def test_flash_refuses_another_or_an_unfinished_build(digits, bnngen):
    """What is written to a board is the model that is here, from a build that ended well."""
    need_tools("stm32f405")
    (bnngen.folder / "model.onnx").write_bytes((digits.folder / "model.onnx").read_bytes())
    bnngen.good("build", "--target", "stm32f405")
    bnngen.good("flash", "--target", "stm32f405", "--dry-run")
    bnngen("build", "--target", "stm32f405", "--replay", "60000").refused("bytes too many")
    bnngen("flash", "--target", "stm32f405", "--dry-run").refused("the last build did not end well")
    bnngen.good("build", "--target", "stm32f405")
    digits.good("export", "model", "-o", str(bnngen.folder / "model.onnx"), "--cut", "none")
    bnngen("flash", "--target", "stm32f405", "--dry-run").refused("was built from another file than model.onnx")


def test_two_builds_of_one_project_wait_for_each_other(digits, bnngen):
    (bnngen.folder / "model.onnx").write_bytes((digits.folder / "model.onnx").read_bytes())
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    commands = [[sys.executable, "-m", "bnngen.cli", "build", "--replay", count] for count in ("5", "50")]
    running = [subprocess.Popen(c, cwd=bnngen.folder, env=env, stdout=subprocess.DEVNULL) for c in commands]
    assert [process.wait(120) for process in running] == [0, 0]


def test_export_overwrites_nothing_but_onnx_files(digits):
    before = (digits.folder / "model.keras").read_bytes()
    digits("export", "model", "-o", "model.keras").refused("model.keras", "-o model.onnx")
    assert (digits.folder / "model.keras").read_bytes() == before


def test_names_with_brackets_are_names(digits):
    from PIL import Image

    Image.new("L", (16, 16)).save(digits.folder / "im[red].png")
    assert "im[red].png" in digits.good("run", "im[red].png")


def test_sixteen_bit_images_are_refused(digits):
    from PIL import Image

    Image.new("I;16", (16, 16)).save(digits.folder / "deep.png")
    digits("run", "deep.png").refused("deep.png", "more than 8 bits")


def test_training_that_cannot_work_is_refused_before_or_without_loss(bnngen):
    pytest.importorskip("larq", reason="needs the extra bnngen[train]")
    save_images(bnngen.folder / "small.npz", (3, 3, 1), np.arange(12) % 2)
    bnngen("train", "quicknet-nano", "--data", "small.npz").refused("too small for quicknet-nano")
    bnngen("train", "binary-chain", "--lr", "nan").refused("--lr nan")
    save_images(bnngen.folder / "one.npz", (16, 16, 1), np.zeros(12, int))
    bnngen("train", "binary-chain", "--data", "one.npz").refused("one class alone")


def test_a_damaged_program_is_named(digits):
    digits.good("build", "--target", "host")
    project = digits.folder / "build" / "model-host"
    program = project / json.loads((project / "manifest.json").read_text(encoding="utf-8"))["model"]
    program.write_bytes(b"")
    digits("run", "--data", "digits", "--limit", "3").refused("is not a program", "build again")
    program.unlink()
    digits.good("build", "--target", "host")


@pytest.mark.parametrize("seconds", [0.1, 0.2, 0.3, 0.4])
def test_ctrl_c_while_it_starts(tmp_path, seconds):
    """The interpreter itself needs some hundredths of a second, the imports of a command half a second."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    hold = "import sys, time; sys.stdout.write('!'); sys.stdout.flush()"
    code = f"{hold}; from bnngen.cli import main; main(['targets'])"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    process.stdout.read(1)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err + out
    assert (process.returncode, err) in ((130, "\nbnngen: stopped\n"), (-signal.SIGINT, "\nbnngen: stopped\n"), (0, ""))


@pytest.mark.parametrize(("module", "package"), [("jinja2", "jinja2"), ("PIL", "pillow"), ("rich", "rich")])
def test_a_package_that_is_not_installed(bnngen, module, package):
    code = f"import sys; sys.modules[{module!r}] = None; from bnngen.cli import main; main(['targets'])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=bnngen.folder, env=environment, capture_output=True,
                          text=True, timeout=60, check=False)  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"error: {package} is not installed" in done.stderr and f"pip install {package}" in done.stderr


def test_every_package_that_is_needed_is_known_by_its_module():
    import tomllib

    from bnngen.cli import PACKAGES

    needed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {"".join(takewhile(lambda c: c not in "<>=~!; ", line)) for line in needed}
    assert set(PACKAGES.values()) == names
