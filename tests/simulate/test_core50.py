# SPDX-License-Identifier: Apache-2.0
"""CORe50's layout on a small tree: sessions, objects, lists of two runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bnngen.continual.scenarios import shown_as
from bnngen.data.core50 import load_core50
from bnngen.errors import DataError

OBJECTS, FRAMES = 3, 2


def frame(session: int, item: int, number: int) -> tuple[str, np.ndarray]:
    """Return an image's name below the images, and pixels that say which it is: each 4 x 4 block is of one value."""
    name = f"s{session}/o{item}/C_{session:02}_{item:02}_{number:03}.png"
    blocks = np.random.default_rng([session, item, number]).integers(0, 256, (32, 32, 3), np.uint8)
    return name, blocks.repeat(4, axis=0).repeat(4, axis=1)


def make_tree(folder: Path) -> tuple[Path, Path]:
    """Sessions 1 and 2 are trained on, 3 is tested; run 1 has the experiences of run 0 in another order."""
    lists = folder / "batches_filelists" / "NICv2_tiny"
    lines: dict[int, list[str]] = {1: [], 2: [], 3: []}
    for session in lines:
        for item in range(1, OBJECTS + 1):
            for number in range(FRAMES):
                name, pixels = frame(session, item, number)
                path = folder / "core50_128x128" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
                lines[session].append(f"{name} {item - 1}")
    for run, order in enumerate(([1, 2], [2, 1])):
        (lists / f"run{run}").mkdir(parents=True)
        for number, session in enumerate(order):
            text = "\n".join(lines[session]) + "\n"
            (lists / f"run{run}" / f"train_batch_{number:02}_filelist.txt").write_text(text, encoding="utf-8")
        (lists / f"run{run}" / "test_filelist.txt").write_text("\n".join(lines[3]), encoding="utf-8")
    return folder, lists


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path)


def test_runs_and_images(tree):
    core = load_core50(*tree)
    data = core.dataset(None)
    assert data.shape == (128, 128, 3) and len(data.x_train) == 12 and len(data.x_test) == 6
    assert data.classes == ("o1", "o2", "o3")
    assert sorted(core.places) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    first = core.places[0, 0]
    assert [data.x_train.paths[p] for p in first] == [frame(1, o, n)[0] for o in (1, 2, 3) for n in (0, 1)]
    assert np.array_equal(first, core.places[1, 1])
    stream = shown_as(data.y_train, [core.places[0, 0], core.places[0, 1]])
    assert stream[0].classes == (0, 1, 2) and stream[1].classes == ()


def test_images_are_averaged_to_the_models_size(tree):
    data = load_core50(*tree).dataset((32, 32, 3))
    place = data.x_train.paths.index(frame(2, 3, 1)[0])
    assert np.array_equal(data.x_train[place : place + 1][0], frame(2, 3, 1)[1][::4, ::4])
    with pytest.raises(DataError, match="128 high"):
        load_core50(*tree).dataset((48, 48, 3)).x_train[0:1]


def test_names_of_the_classes(tree):
    (tree[1].parent / "core50_labels.txt").write_text("plug\nphone\ncup\n", encoding="utf-8")
    assert load_core50(*tree).classes == ("plug", "phone", "cup")


def broken(tree: tuple[Path, Path], case: str) -> None:
    lists = tree[1]
    batch = lists / "run0" / "train_batch_00_filelist.txt"
    if case == "no batches":
        for path in (lists / "run0").glob("train*"):
            path.unlink()
    elif case == "no test list":
        for path in lists.glob("run*/test_filelist.txt"):
            path.unlink()
    elif case == "other test images":
        (lists / "run1" / "test_filelist.txt").write_text("s3/o1/C_03_01_000.png 0\n", encoding="utf-8")
    elif case == "a line without a label":
        batch.write_text("s1/o1/C_01_01_000.png\n", encoding="utf-8")
    elif case == "an empty list":
        batch.write_text("\n", encoding="utf-8")
    else:
        (tree[0] / "core50_128x128" / frame(1, 2, 1)[0]).unlink()


CASES = ["no batches", "no test list", "other test images", "a line without a label", "an empty list", "an image gone"]


@pytest.mark.parametrize("case", CASES)
def test_what_is_missing_is_named(tree, case):
    broken(tree, case)
    with pytest.raises(DataError) as error:
        load_core50(*tree)
    assert error.value.where and error.value.fix


def test_folders_that_are_not_there(tree, tmp_path):
    with pytest.raises(DataError, match="no folder of lists"):
        load_core50(tree[0], tmp_path / "nowhere")
    with pytest.raises(DataError, match="no run"):
        load_core50(tree[0], tree[0] / "core50_128x128")
    with pytest.raises(DataError, match="images"):
        load_core50(tmp_path / "nowhere", tree[1])
