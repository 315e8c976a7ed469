# SPDX-License-Identifier: Apache-2.0
"""The pictures: the same bytes each time, whole or not there, and a clear word on what cannot be drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from bnngen.errors import DataError, UsageError
from bnngen.report.learning_curve import plot_learning
from bnngen.report.training_curve import draw_training_curve

HEADER = "epoch,lr,train_loss,train_accuracy,val_loss,val_accuracy,seconds\n"


def test_curve_is_drawn_and_repeatable(tmp_path: Path) -> None:
    log = tmp_path / "m.log.csv"
    log.write_text(HEADER + "1,0.1,2.0,0.3,1.9,0.35,4\n2,0.1,1.5,0.5,1.4,0.55,4\n")
    for name in ("a.png", "b.png"):
        draw_training_curve(log, tmp_path / name, "model m")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1000, 420)
        colours = {colour[:3] for _, colour in image.convert("RGBA").getcolors(1 << 20)}
    assert {(31, 119, 180), (255, 127, 14)} <= colours  # both lines


@pytest.mark.parametrize(("text", "message"), [
    (HEADER, "is empty"), ("epoch,lr\n1,0.1\n", "not a training log"),
    (HEADER + "1,0.1,abc,0.3,1.9,0.35,4\n", "not a training log"), (HEADER + "1,0.1\n", "not a training log"),
])
def test_what_is_no_log_is_refused(tmp_path: Path, text: str, message: str) -> None:
    log = tmp_path / "m.log.csv"
    log.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        draw_training_curve(log, tmp_path / "m.png")
    assert caught.value.where == str(log) and caught.value.fix
    assert not (tmp_path / "m.png").exists()


def training(png: Path) -> None:
    log = png.parent.parent / "m.log.csv"
    log.write_text(HEADER + "1,0.1,2.0,0.3,1.9,0.35,4\n2,0.1,1.5,0.5,1.4,0.55,4\n")
    draw_training_curve(log, png)


def learning(png: Path) -> None:
    assert plot_learning({"on the board": [0.9, 0.8]}, ["0, 1", "2"], "three classes", png) == png


@pytest.mark.parametrize("draw", [training, learning])
def test_a_picture_that_cannot_be_written_is_a_usage_error(
        tmp_path: Path, draw: Callable[[Path], None]) -> None:
    folder = tmp_path / "pictures" / "folder"
    folder.mkdir(parents=True)
    for png in (tmp_path / "nowhere" / "m.png", folder):
        with pytest.raises(UsageError, match="cannot write the picture") as caught:
            draw(png)
        assert caught.value.where == str(png) and caught.value.why and caught.value.fix
    assert list(folder.parent.iterdir()) == [folder] and not list(folder.iterdir())
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("draw", [training, learning])
def test_a_failure_leaves_the_old_picture(
        tmp_path: Path, draw: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full after the first bytes: the picture of an earlier run stands, and nothing beside it."""
    (tmp_path / "pictures").mkdir()
    png = tmp_path / "pictures" / "m.png"
    draw(png)
    earlier = png.read_bytes()

    def full(figure: Figure, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half a picture")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Figure, "savefig", full)
        with pytest.raises(UsageError, match="cannot write the picture"):
            draw(png)
    assert png.read_bytes() == earlier and list(png.parent.iterdir()) == [png]
    draw(png)
    assert png.read_bytes() == earlier


def test_a_picture_needs_no_suffix(tmp_path: Path) -> None:
    learning(tmp_path / "curve")
    with Image.open(tmp_path / "curve") as image:
        assert image.format == "PNG"
