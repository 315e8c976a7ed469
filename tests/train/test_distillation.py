# SPDX-License-Identifier: Apache-2.0
"""Learning from a teacher: what the loss is, that it is learned, and what is no teacher."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
larq = pytest.importorskip("larq")

from bnngen.errors import UsageError  # noqa: E402
from bnngen.train.config import Form, TrainConfig, TrainResult, command, identity  # noqa: E402
from bnngen.train.teacher import distillation, load_teacher  # noqa: E402
from bnngen.train.trainer import train  # noqa: E402
from tests.train.test_trainer import config, three_classes  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("default")]

CLASSES = ["left", "middle", "right"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    folder = tmp_path_factory.mktemp("teacher")
    float_form = Form(float_weights=True)
    return train(config(folder, "t.keras", backbone="quicknet-nano-s", form=float_form, epochs=20, batch=20))


def test_distillation_is_the_divergence_of_the_softened_scores() -> None:
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 5, 4)).astype(np.float32) * 3
    p, q = (np.exp(z / 3) / np.exp(z / 3).sum(axis=1, keepdims=True) for z in (teacher, student))
    expected = 9 * (p * np.log(p / q)).sum(axis=1)
    np.testing.assert_allclose(distillation(teacher, student, 3.0).numpy(), expected, rtol=1e-4)
    assert np.abs(distillation(teacher, teacher + 7, 3.0).numpy()).max() < 1e-5


def test_a_float_twin_has_no_quantizer_and_learns(teacher: TrainResult) -> None:
    model = tf.keras.models.load_model(teacher.model, compile=False)
    assert not any(isinstance(layer, larq.layers.QuantConv2D) for layer in model.layers)
    assert teacher.test_accuracy > 0.9


def test_teacher_gives_its_scores_before_softmax(teacher: TrainResult) -> None:
    """But for a constant of each image, since it saw a softmax."""
    loaded = load_teacher(teacher.model, (8, 8, 1), CLASSES)
    x = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)
    before = tf.keras.Model(loaded.model.input, loaded.model.get_layer("logits").output)
    difference = loaded.logits(tf.constant(x)).numpy() - before(x.astype(np.float32) / 128 - 1).numpy()
    assert np.abs(difference - difference.mean(axis=1, keepdims=True)).max() < 1e-3


def agreement(model: Path, teacher: Path, folder: Path) -> float:
    """Mean distance of the two models' probabilities on the training images."""
    with np.load(three_classes(folder)) as data:
        x = data["x_train"].astype(np.float32) / 128 - 1
    a, b = (tf.keras.models.load_model(path, compile=False)(x).numpy() for path in (model, teacher))
    return float(np.abs(a - b).mean())


def test_the_teacher_alone_is_enough(tmp_path: Path, teacher: TrainResult) -> None:
    """With weight 1 the labels are not in the loss, and the student still learns what the teacher says."""
    student = config(tmp_path, "s.keras", backbone="quicknet-nano-s", epochs=20, batch=20, teacher=teacher.model,
                     distill_weight=1.0, temperature=2.0)
    result = train(student)
    assert result.test_accuracy > 0.9
    untaught = train(replace(student, out=tmp_path / "n.keras", epochs=1, teacher=None, distill_weight=None,
                             temperature=None))
    assert agreement(result.model, teacher.model, tmp_path) < 0.5 * agreement(untaught.model, teacher.model, tmp_path)


def test_run_is_told_apart_by_its_teacher_and_form(tmp_path: Path, teacher: TrainResult) -> None:
    from bnngen.data import load
    data = load(three_classes(tmp_path))
    plain = config(tmp_path, "s.keras")
    changes = [{"teacher": teacher.model, "distill_weight": 0.5}, {"form": Form(width=0.5)}, {"precision": "mixed"},
               {"form": Form(input_encoding="bitplanes")}, {"form": Form(float_weights=True)},
               {"teacher": teacher.model, "temperature": 2.0}, {}]
    seen = [json.dumps(identity(replace(plain, **change), data)) for change in changes]
    assert len(set(seen)) == len(changes)
    assert identity(replace(plain, strategy="mirrored"), data) == identity(plain, data)


def test_command_says_form_precision_and_teacher(tmp_path: Path) -> None:
    full = config(tmp_path, "m.keras", form=Form(0.5, "thermometer", True), precision="mixed_bfloat16",
                  teacher=Path("/a/t.keras"), distill_weight=0.7, temperature=3.0, strategy="mirrored")
    assert command(full).endswith("--seed 1 --width 0.5 --input-encoding thermometer --float "
                                  "--precision mixed_bfloat16 --teacher t.keras --distill-weight 0.7 "
                                  "--temperature 3 -o m.keras")


@pytest.mark.parametrize(("changed", "message"), [
    ({"distill_weight": 0.5}, "--distill-weight without a teacher"),
    ({"temperature": 2.0}, "--temperature without a teacher"),
    ({"teacher": Path("nowhere.keras")}, "there is no teacher"),
    ({"teacher": "T", "distill_weight": 1.5}, "--distill-weight 1.5 is not a share"),
    ({"teacher": "T", "distill_weight": 0.0}, "--distill-weight 0.0 is not a share"),
    ({"teacher": "T", "temperature": 0.0}, "--temperature 0.0 is not positive"),
    ({"teacher": "T", "classes": (0, 1)}, "the teacher has another number of classes"),
    ({"teacher": "T", "classes": (2, 1, 0)}, "the teacher knows other classes"),
    ({"form": Form(width=0.0)}, "--width 0 is not possible"),
    ({"form": Form(input_encoding="morse")}, "--input-encoding morse is not known"),
    ({"strategy": "several"}, "--strategy several is not known"),
    ({"precision": "int3"}, "--precision int3 is not known"),
])
def test_requests_that_cannot_be_met(tmp_path: Path, teacher: TrainResult, changed: dict, message: str) -> None:
    if changed.get("teacher") == "T":
        changed = changed | {"teacher": teacher.model}
    with pytest.raises(UsageError, match=message) as caught:
        train(config(tmp_path, "x.keras", **changed))
    assert caught.value.fix and not (tmp_path / "x.keras").exists()


def test_a_teacher_of_other_images_is_refused(tmp_path: Path, teacher: TrainResult) -> None:
    with pytest.raises(UsageError, match="takes other images") as caught:
        train(TrainConfig("quicknet-nano-s", "digits", tmp_path / "x.keras", teacher=teacher.model))
    assert "[8, 8, 1]" in caught.value.why and "[16, 16, 1]" in caught.value.why


def test_what_is_no_model_is_no_teacher(tmp_path: Path, teacher: TrainResult) -> None:
    (tmp_path / "t.keras").write_bytes(b"no model")
    with pytest.raises(UsageError, match="teacher cannot be read"):
        train(config(tmp_path, "x.keras", teacher=tmp_path / "t.keras"))
    shutil.copy(teacher.model, tmp_path / "u.keras")
    (tmp_path / "u.meta.json").write_text('{"classes": 7}')
    with pytest.raises(UsageError, match="beside the teacher cannot be read"):
        train(config(tmp_path, "x.keras", teacher=tmp_path / "u.keras"))
    (tmp_path / "u.meta.json").unlink()  # without it the names are taken to be right
    assert load_teacher(tmp_path / "u.keras", (8, 8, 1), ["x", "y", "z"]).probabilities
