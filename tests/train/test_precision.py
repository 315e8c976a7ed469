# SPDX-License-Identifier: Apache-2.0
"""Mixed precision: chosen by what the hardware has, and gone from the model that is kept."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

tf = pytest.importorskip("tensorflow")
larq = pytest.importorskip("larq")

from bnngen.errors import TrainingInterrupted, UsageError  # noqa: E402
from bnngen.train import precision  # noqa: E402
from bnngen.train.config import Form  # noqa: E402
from bnngen.train.trainer import train  # noqa: E402
from tests.train.test_trainer import config, interrupt_at  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("default")]


def machine(monkeypatch: pytest.MonkeyPatch, gpus: list[tuple[int, int]], flags: set[str]) -> None:
    """Let the machine have these GPUs, by compute capability, and these processor features."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus if kind == "GPU" else [])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": gpu})
    monkeypatch.setattr(precision, "cpu_flags", lambda: flags)


@pytest.mark.parametrize(("gpus", "flags", "policy"), [
    ([(9, 0)], set(), "mixed_bfloat16"), ([(8, 0), (8, 6)], set(), "mixed_bfloat16"),
    ([(7, 0)], {"avx512_bf16"}, "mixed_float16"), ([(8, 0), (7, 5)], set(), "mixed_float16"),
    ([], {"avx2", "avx512_bf16"}, "mixed_bfloat16"), ([], {"amx_bf16"}, "mixed_bfloat16"),
])
def test_mixed_is_what_the_hardware_is_fast_at(monkeypatch: pytest.MonkeyPatch, gpus: list, flags: set[str],
                                               policy: str) -> None:
    machine(monkeypatch, gpus, flags)
    assert precision.resolve("mixed") == policy


@pytest.mark.parametrize(("gpus", "what"), [([(6, 1)], "the GPU"), ([], "this CPU"), ([(8, 0), (6, 1)], "the GPU")])
def test_where_nothing_is_gained_it_is_said(monkeypatch: pytest.MonkeyPatch, gpus: list, what: str) -> None:
    machine(monkeypatch, gpus, {"avx2"})
    with pytest.raises(UsageError, match=f"gain nothing here: {what}") as caught:
        precision.resolve("mixed")
    assert "leave --precision out" in caught.value.fix
    assert precision.resolve("mixed_bfloat16") == "mixed_bfloat16"


def test_float16_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, [], {"avx512_bf16"})
    with pytest.raises(UsageError, match="needs a GPU"):
        precision.resolve("mixed_float16")


def test_processor_features_are_read_from_what_linux_lists(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu sse avx512_bf16\nbugs\t: none\n")
    assert precision.cpu_flags(tmp_path / "cpuinfo") == {"fpu", "sse", "avx512_bf16"}
    assert precision.cpu_flags(tmp_path / "nothing") == set()


def test_steps_are_mixed(tmp_path: Path) -> None:
    """They compute in bfloat16: the loss differs from float32's, a little."""
    same = {"backbone": "quicknet-nano-s", "epochs": 1}
    runs = [train(config(tmp_path, f"{name}.keras", precision=name, **same)) for name in ("float32", "mixed_bfloat16")]
    losses = [float(run.log.read_text().splitlines()[1].split(",")[2]) for run in runs]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.2)


def test_the_kept_model_is_float32(tmp_path: Path) -> None:
    """Shifts and slopes of our own, scaled kernels, an input code: none of them keeps the policy of the steps."""
    form = Form(width=0.25, input_encoding="thermometer")
    mixed = train(config(tmp_path, "m.keras", backbone="reactnet-18", precision="mixed_bfloat16", epochs=1, form=form))
    with zipfile.ZipFile(mixed.model) as archive:
        written = archive.read("config.json").decode()
    assert "bfloat16" not in written and json.loads(written)
    model = tf.keras.models.load_model(mixed.model, compile=False)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert tf.keras.mixed_precision.global_policy().name == "float32"


def test_a_mixed_run_resumes_as_mixed_alone(tmp_path: Path) -> None:
    mixed = config(tmp_path, "m.keras", precision="mixed_bfloat16")
    with pytest.raises(TrainingInterrupted):
        train(mixed, interrupt_at(5))
    with pytest.raises(UsageError, match="other settings") as caught:
        train(replace(mixed, resume=True, precision="float32"))
    assert caught.value.why == "precision was 'mixed_bfloat16' and is now 'float32'"
    cut = train(replace(mixed, resume=True)).model.read_bytes()
    assert train(replace(mixed, restart=True)).model.read_bytes() == cut
