# SPDX-License-Identifier: Apache-2.0
"""The training curve is drawn from a log, the same bytes each time, and refuses what is no log."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from bnngen.errors import DataError
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
