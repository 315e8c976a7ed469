# SPDX-License-Identifier: Apache-2.0
"""The command line in this process, around a small model: which folder, which options, which words."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import click
import pytest

from bnngen import resources
from bnngen.cli import model
from bnngen.cli.build import MADE_FROM
from bnngen.cli.commands import cli
from bnngen.errors import BudgetError
from bnngen.lower import lower
from bnngen.lower.learning import LearnConfig, learn_buffers, learning_constants
from bnngen.passes import run_passes
from bnngen.passes.latent import latent_ops
from bnngen.pipeline import Compiled, check_ram
from bnngen.plan import LearnBuffer, make_plan
from bnngen.targets import load_target
from tests import graphs, onnx_files
from tests.e2e.conftest import Ran, absent, in_process, need_tools


@pytest.fixture
def bnngen(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder and return a Ran."""
    monkeypatch.chdir(tmp_path)

    return in_process(capsys)


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
    assert sorted(path.name for path in Path("build").iterdir() if path.is_dir()) == ["early-host", "v1.2-host"]
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


MISTAKES = [
    ("learn", "--seed", "-1"), ("learn", "--seed", str(2**64)), ("learn", "--test-limit", "0"),
    ("learn", "--train-limit", "-3"), ("learn", "--train-limit", "0"), ("learn", "--first", "0"),
    ("learn", "--per-experience", "0"), ("learn", "--learn-batch", "0"), ("learn", "--learn-epochs", "0"),
    ("learn", "--learn-rate", "0"), ("validate", "--random", "0"), ("validate", "--random", "-2"),
    ("validate", "--limit", "-5"), ("validate", "--limit", "0"), ("run", "--limit", "0"), ("train", "--seed", "-1"),
    ("demo", "--seed", "-1"), ("build", "--q-f", "3"), ("build", "--q-f", "9"), ("build", "--q-b", "12"),
    ("build", "--nonsense", "1"), ("build", "--activation-bits", "4"),
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=" ".join)
def test_values_that_cannot_work_are_refused_before_any_work(bnngen, mistake):
    command, option, value = mistake
    save_model("model.onnx")
    ran = bnngen(command, option, value)
    ran.refused(option, f"bnngen {command} --help")
    assert ran.status == 2 and not Path("build").exists()


@pytest.mark.parametrize("out", ["nowhere/curve.png", "curve.docx", "."])
def test_a_picture_that_cannot_be_written_is_refused_before_the_session(bnngen, out):
    save_model("model.onnx")
    bnngen("learn", "-o", out).refused(out, "-o")
    assert not Path("build").exists()


def test_a_file_in_the_place_of_the_build_folder(bnngen):
    save_model("model.onnx")
    Path("build").write_text("mine")
    bnngen("build").refused("build")
    assert Path("build").read_text() == "mine"


def test_the_fix_for_a_missing_model_is_a_command_that_works(bnngen, monkeypatch):
    shipped = Path("shipped").absolute()
    shipped.mkdir()
    (shipped / "nano.keras").touch()
    monkeypatch.setattr(model, "checkpoints", lambda: shipped)
    bnngen("build", "nano").refused("there is no nano.onnx", "bnngen export nano")
    ran = bnngen("build")
    ran.refused("there is no model.onnx", "bnngen export")
    assert "bnngen brings" not in ran.err, "there is no .onnx to name"
    bnngen("export", "mine").refused("there is no mine.keras", "bnngen train", "bnngen brings nano")


def test_the_head_has_the_bits_that_were_asked_for(bnngen):
    save_model("model.onnx")
    good(bnngen("build", "--q-f", "6", "--q-b", "8"))
    code = Path("build/model-host/small_learn.c").read_text()
    for name, value in (("p_max", 2**6 - 1), ("w_max", 2**5 - 1), ("g_max", 2**7 - 1)):
        assert f" {value}, /* {name} */" in code, code


def test_an_emulated_board_is_called_emulated(bnngen):
    need_tools("stm32f405")
    save_model("model.onnx")
    good(bnngen("build", "--target", "stm32f405"))
    bnngen("flash", "--tool", "gdb").refused("--server", "--emulated")
    if shutil.which("gdb-multiarch") is None:
        absent("missing: gdb-multiarch (bnngen doctor)")
    said = good(bnngen("flash", "--emulated"))
    assert "to an EMULATED STM32F405RG" in said and "the emulated board runs model" in said
    ran = bnngen("flash", "--server", "localhost:9")
    ran.refused("there is no gdb server")
    assert "behind the gdb server localhost:9" in ran.out


def test_every_option_says_what_it_does():
    silent = [
        f"{name} {parameter.opts[0]}"
        for name, command in cli.commands.items()
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert silent == []


def test_a_missing_tool_fails_under_ci_and_skips_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="arm-none-eabi-gcc"):
        need_tools("stm32f405")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="arm-none-eabi-gcc"):
        need_tools("stm32f405")


def test_a_model_without_a_head_is_told_why_it_cannot_learn(bnngen):
    meta = onnx_files.with_ranges("conv/scale") | {"latent": None, "head": None}
    Path("model.onnx").write_bytes(onnx_files.make_model(meta=meta).SerializeToString())
    bnngen("learn").refused("no learned head", "exported with --cut none", "--cut features")
    nodes = [*onnx_files.small_nodes()[:-1], onnx_files.node("Relu", "hidden", "scores", "end")]
    other = onnx_files.make_model(nodes, meta, hidden__kernel=onnx_files.WEIGHTS["hidden/kernel"][:, :3])
    Path("other.onnx").write_bytes(other.SerializeToString())
    ran = bnngen("learn", "--model", "other")
    ran.refused("no learned head", "does not end in one", "Dense(classes)")
    assert "--cut" not in ran.err and not Path("build").exists()


def test_what_fills_the_memory_decides_what_is_advised():
    """A head of many classes leads the list of buffers: other samples or types would not help."""
    board = load_target("stm32f405")
    small = replace(board, budget=replace(board.budget, ram_bytes=16_384))
    graph = run_passes(graphs.residual())
    for capacity, replay, first in ((4000, 10, "a smaller learned head"), (10, 8000, "fewer --replay")):
        sized = replace(graph, meta=replace(graph.meta, head=replace(graph.meta.head, capacity=capacity)))
        learning = learning_constants(sized, LearnConfig(replay=replay, buffer=20))
        program = lower(sized, latent=(latent_ops(sized).pack, latent_ops(sized).unpack))
        plan = make_plan(program, [LearnBuffer(*buffer) for buffer in learn_buffers(learning)])
        with pytest.raises(BudgetError) as caught:
            check_ram(Compiled(small, sized, program, learning, plan))
        assert caught.value.fix.startswith(first)
        assert ("--capacity N" in caught.value.fix and "--cut none" in caught.value.fix) == (capacity == 4000)


@pytest.mark.parametrize("left", [b"", b"\x7fELF"], ids=["empty", "cut off"])
def test_a_build_goes_over_one_that_was_stopped(bnngen, left):
    """What the compiler was writing when the process was killed is newer than its source, and no object."""
    need_tools("host")
    save_model("model.onnx")
    good(bnngen("build"))
    folder = Path("build/model-host")
    (folder / MADE_FROM).unlink()
    (folder / "small").unlink()
    (folder / "libsmall.a").unlink()
    for path in (folder / "small.o", next((folder / "bnn").rglob("*.o"))):
        path.write_bytes(left)
    assert "every score is equal" in good(bnngen("validate", "--random", "2"))
