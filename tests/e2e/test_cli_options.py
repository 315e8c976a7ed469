# SPDX-License-Identifier: Apache-2.0
"""The command line in this process, around a small model: which folder, which options, which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnngen import resources
from bnngen.cli import main
from tests import onnx_files
from tests.e2e.conftest import Ran, need_tools


@pytest.fixture
def bnngen(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder and return a Ran."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ran:
        status = 0
        try:
            main(list(arguments))
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capsys.readouterr()
        return Ran(status, said.out, said.err)

    return run


def save_model(path: str) -> None:
    """A model of images [8, 8, 2] and three scores; its metadata call it small."""
    Path(path).write_bytes(onnx_files.make_model(meta=onnx_files.with_ranges("conv/scale")).SerializeToString())


def good(ran: Ran) -> str:
    assert ran.status == 0, ran.out + ran.err
    return ran.out


def test_the_folder_is_named_by_the_file_and_the_c_code_by_the_model(bnngen):
    need_tools("host")
    for file in ("early.onnx", "v1.2.onnx"):
        save_model(file)
        good(bnngen("build", file))
    assert sorted(path.name for path in Path("build").iterdir()) == ["early-host", "v1.2-host"]
    assert Path("build/early-host/small.c").is_file() and Path("build/v1.2-host/small").is_file()


def test_flash_takes_the_named_model_and_no_other(bnngen):
    need_tools("stm32f405")
    save_model("other.onnx")
    good(bnngen("build", "other", "--target", "stm32f405"))
    bnngen("flash", "--model", "model", "--dry-run").refused(
        "model has not been built for stm32f405", "build/model-stm32f405", "bnngen build model --target stm32f405"
    )
    for given in ("other", "other.onnx"):
        assert "build/other-stm32f405/small_uart.bin" in good(bnngen("flash", "--model", given, "--dry-run"))


def test_flash_finds_what_was_built_for_a_description_of_ones_own(bnngen):
    need_tools("stm32f405")
    text = (resources.targets() / "stm32f405.toml").read_text(encoding="utf-8")
    Path("myboard.toml").write_text(text.replace('name   = "stm32f405"', 'name   = "myboard"'), encoding="utf-8")
    save_model("model.onnx")
    good(bnngen("build", "--target", "myboard.toml"))
    assert "build/model-myboard/" in good(bnngen("flash", "--target", "myboard.toml", "--dry-run"))
