# SPDX-License-Identifier: Apache-2.0
"""The generated learning files, tied to a model of four lines: they compile, link, and learn as the twin does."""

from __future__ import annotations

import subprocess
import zlib
from pathlib import Path

import jinja2
import numpy as np
import pytest

from bnngen.continual.twin import MORE
from bnngen.ir import HeadInput
from bnngen.lower.learning import LearnConfig, learn_buffers, learning_constants
from bnngen.lower.learning.view import LEARN_TEMPLATES, learn_view
from tests.learn.script import RUNTIME, WARNINGS, Case
from tests.learn.test_targets import need

TEMPLATES = RUNTIME.parent / "templates"
ROWS, SIZE = 20, 6
MODEL = """
#include "bnn/bnn.h"
/* An image is the number of a feature vector; its latent is the same number. */
typedef struct { uint8_t *arena; const int16_t *row; } bnn_toy;
extern const int16_t toy_rows[ROWS][SIZE];
static inline void bnn_toy_front(bnn_toy *m, const uint8_t *image) { m->row = toy_rows[image[0]]; }
static inline void bnn_toy_pack(bnn_toy *m, uint32_t *latent)
{
    latent[0] = (uint32_t)(m->row - toy_rows[0]) / SIZE;
}
static inline void bnn_toy_unpack(bnn_toy *m, const uint32_t *latent) { m->row = toy_rows[latent[0]]; }
static inline void bnn_toy_tail(bnn_toy *m) { (void)m; }
static inline const void *bnn_toy_features(const bnn_toy *m) { return m->row; }
"""
MAIN = """
#include <stdio.h>
#include "toy_learn.h"
#include "rows.h"
static uint64_t arena[WORDS];
int main(void)
{
    bnn_toy model = {(uint8_t *)arena, NULL};
    bnn_toy_learn learn;
    bnn_learn_item items[BNN_LEARN_ITEMS];
    int32_t scores[BNN_TOY_CAPACITY];
    uint8_t image;
    bnn_toy_learn_init(&learn, &model, 9);
    bnn_toy_learn_begin(&learn);
    for (image = 0; image < ROWS; image++) {
        bnn_toy_learn_add(&learn, &image, image % 3u);
    }
    while (bnn_toy_learn_step(&learn) == BNN_MORE) {
    }
    bnn_toy_learn_end(&learn);
    image = 4;
    bnn_toy_learn_scores(&learn, &image, scores);
    for (uint32_t i = 0; i < bnn_learner_items(&learn.learner, items); i++) {
        printf("%u ", (unsigned)bnn_crc32(0, items[i].data, items[i].bytes));
    }
    printf("%u\\n", (unsigned)bnn_crc32(0, scores, sizeof scores));
    return 0;
}
"""


def toy() -> Case:
    rng = np.random.default_rng(12)
    table = rng.integers(0, 32767, (ROWS, SIZE)).astype(np.int16)
    return Case(HeadInput("features", 0.0, 3.0, 4), 3.0 / 32767, 1, LearnConfig(replay=8, buffer=12), table, 9)


def write_sources(case: Case, folder: Path) -> None:
    """Render the templates, and write the model, its rows and a main around them."""
    program = learning_constants(case.graph, case.config)
    offsets, end = {}, 0
    for name, size, align, _ in learn_buffers(program):
        offsets[name], end = end, -(-(end + size) // align) * align
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for template, name in LEARN_TEMPLATES.items():
        text = env.get_template(template).render(v=learn_view("toy", program, offsets))
        (folder / name.format(m="toy")).write_text(text)
    rows = ", ".join("{" + ", ".join(map(str, row)) + "}" for row in case.table)
    numbers = f"#define ROWS {ROWS}\n#define SIZE {SIZE}u\n"
    (folder / "toy.h").write_text("#ifndef TOY_H\n#define TOY_H\n" + numbers + MODEL + "#endif\n")
    (folder / "rows.h").write_text(f"const int16_t toy_rows[{ROWS}][{SIZE}] = {{{rows}}};\n")
    (folder / "main.c").write_text(MAIN.replace("WORDS", str(-(-end // 8))))


def twin_numbers(case: Case) -> list[int]:
    """Return what the program prints: checksums of the state and of the scores of image 4."""
    twin = case.twin()
    twin.begin()
    for row in range(ROWS):
        twin.add(np.array([row], np.uint32), row % 3)
    while twin.step() == MORE:
        pass
    twin.end()
    return [*(zlib.crc32(item) for item in twin.items()), zlib.crc32(twin.scores(case.table[4:5]).tobytes())]


def test_generated_files_learn_like_the_twin(tmp_path: Path):
    case = toy()
    write_sources(case, tmp_path)
    sources = [*map(str, (RUNTIME / "learn").glob("*.c")), str(tmp_path / "toy_learn.c"), str(tmp_path / "main.c")]
    command = ["gcc", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", *WARNINGS]
    program = str(tmp_path / "toy")
    paths = [f"-I{RUNTIME / 'include'}", f"-I{tmp_path}"]
    subprocess.run([*command, *paths, *sources, "-o", program], check=True, timeout=120)
    out = subprocess.run([program], capture_output=True, text=True, check=True, timeout=60).stdout
    assert [int(word) for word in out.split()] == twin_numbers(case)


@pytest.mark.parametrize("compiler", ["clang -std=c99", "g++ -x c++", "arm-none-eabi-gcc -mcpu=cortex-m4 -mthumb"])
def test_generated_files_compile_without_warnings(tmp_path: Path, compiler: str):
    command = compiler.split()
    need(command[0])
    write_sources(toy(), tmp_path)
    cplusplus = "c++" in command
    warnings = [w for w in WARNINGS if not (cplusplus and w in ("-std=c99", "-Wstrict-prototypes"))]
    paths = [f"-I{RUNTIME / 'include'}", f"-I{tmp_path}", "-ffreestanding"]
    subprocess.run(
        [*command, *warnings, *paths, "-c", str(tmp_path / "toy_learn.c"), "-o", str(tmp_path / "x.o")],
        check=True,
        timeout=60,
    )
