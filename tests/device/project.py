# SPDX-License-Identifier: Apache-2.0
"""A project like a generated one around tests/device/tiny, and the tiny model in NumPy."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np

from bnngen import resources
from bnngen.targets import Target

HERE = Path(__file__).resolve().parent
WARNINGS = "-std=c99 -Wall -Wextra -pedantic -Wconversion -Wshadow -Wstrict-prototypes -Werror"
HASH = "0123456789abcdef0123456789abcdef"
CAPACITY = 4
FAULT, OVERFLOW, SILENCE, DEEP = 0xEE, 0xCC, 0xDD, 0xBB
MODEL_OBJECTS = ("main", "tiny", "tiny_learn")


@dataclass(frozen=True)
class Changes:
    """What a test wants differently: more compiler flags, no learning, another linker view."""

    cflags: str = ""
    learn: bool = True
    memory: dict | None = None


def write_project(directory: Path, target: Target, changes: Changes = Changes()) -> Path:
    """Write a complete project into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copytree(resources.runtime(), directory / "bnn", dirs_exist_ok=True)
    for path in (HERE / "tiny").iterdir():
        shutil.copy(path, directory)
    env = jinja2.Environment(loader=jinja2.FileSystemLoader(resources.templates()), trim_blocks=True,
                             lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    main = env.get_template("main.c.j2").render(m="tiny", M="TINY", has_latent=True, has_learn=changes.learn)
    (directory / "main.c").write_text(main, encoding="utf-8")
    for name, memory in (("memory.ld", target.memory_view()), ("memory_emulator.ld", target.emulator_view())):
        if memory is not None:
            script = env.get_template("memory.ld.j2").render(**(memory | (changes.memory or {})))
            (directory / name).write_text(script, encoding="utf-8")
    (directory / "manifest.json").write_text(json.dumps({"model": "tiny"}), encoding="utf-8")
    (directory / "Makefile").write_text(makefile(target, changes), encoding="utf-8")
    return directory


def makefile(target: Target, changes: Changes) -> str:
    """A plain Makefile from the same view that the generated one is made of."""
    view = target.make_view()
    objects = [f"{name}.o" for name in MODEL_OBJECTS]
    objects += [f"bnn/{source}".removesuffix(".c") + ".o" for source in view["port_sources"]]
    lines = [
        f"CC = {view['cc']}",
        f"CFLAGS = {WARNINGS} {' '.join(view['cflags'])} -I. -Ibnn/include {changes.cflags}",
        f"LDFLAGS = {' '.join(view['ldflags'])} {changes.cflags}",
        "all: " + " ".join(f"tiny{suffix}" for suffix, _ in view["programs"]),
    ]
    for suffix, io in view["programs"]:
        io_object = f"bnn/{io}".removesuffix(".c") + ".o"
        script = view["scripts"].get(suffix, view["linker_script"])
        link = f"$(LDFLAGS) -T {script}" if script else "$(LDFLAGS)"
        lines += [f"tiny{suffix}: {' '.join(objects)} {io_object}",
                  f"\t$(CC) {link} {' '.join(view['cflags'])} -o $@ $^ {' '.join(view['libs'])}"]
        if view["objcopy"]:
            raw = f"tiny{suffix}".removesuffix(".elf")
            lines += [f"\t{view['objcopy']} -O {kind} $@ {raw}.{suffix}"
                      for kind, suffix in (("binary", "bin"), ("ihex", "hex"))]
    return "\n".join([*lines, "%.o: %.c", "\t$(CC) $(CFLAGS) -c -o $@ $<", ""])


def features(image: np.ndarray) -> np.ndarray:
    """int8 [8]: the model's front, in NumPy."""
    return (image.reshape(8, 6).astype(np.int32).sum(1) // 8 - 96).astype(np.int8)


def scores(image: np.ndarray) -> np.ndarray:
    """int32 [3]: the model's scores, in NumPy."""
    f, c = np.arange(8)[:, None], np.arange(3)
    return features(image).astype(np.int32) @ ((5 * f + 3 * c) % 7 - 3)


def images(count: int, seed: int = 0) -> np.ndarray:
    """uint8 [count, 48], reproducible."""
    return np.random.default_rng(seed).integers(0, 256, (count, 48), np.uint8)
