# SPDX-License-Identifier: Apache-2.0
"""Render a planned program into build/<model>-<target>/, whole or not at all."""

from __future__ import annotations

import filecmp
import json
import tempfile
from pathlib import Path

import jinja2

from bnngen import __version__, resources
from bnngen.emit.arrays import array_view
from bnngen.emit.make import make_view
from bnngen.emit.view import RUNTIME_ABI, ModelView, model_view, title
from bnngen.lower.learning import LearningProgram
from bnngen.lower.learning.view import LEARN_TEMPLATES, learn_view
from bnngen.lower.program import Program, value_bytes
from bnngen.lower.tail_view import TAIL_TEMPLATES, tail_view
from bnngen.plan import Plan
from bnngen.targets import Target

OURS, FREE = "SPDX-License-Identifier: Apache-2.0", "SPDX-License-Identifier: Apache-2.0 OR 0BSD"
RUNTIME_FILES = (".h", ".c", ".S")
MODEL_TEMPLATES = {
    "model.h.j2": "{m}.h",
    "model.c.j2": "{m}.c",
    "weights.h.j2": "{m}_weights.h",
    "weights.c.j2": "{m}_weights.c",
}


def emit_project(
    program: Program, plan: Plan, learning: LearningProgram | None, target: Target, directory: Path
) -> Path:
    """Write the project to `directory`, replacing what was there, and return it.

    It is written beside and renamed when complete, so an interrupted run leaves the old project or none. A
    directory that holds the same files already is left alone, with its objects: generation is deterministic.
    """
    files = render_files(program, plan, learning, target)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as scratch:
        fresh, old = Path(scratch) / "new", Path(scratch) / "old"
        fresh.mkdir()
        for name, text in files.items():
            (fresh / name).write_text(text, encoding="utf-8", newline="\n")
        copy_runtime(fresh / "bnn")
        if same_files(fresh, directory):
            return directory
        if directory.exists():
            directory.rename(old)
        fresh.rename(directory)
    return directory


def same_files(fresh: Path, directory: Path) -> bool:
    """True when every file of `fresh` stands in `directory` with the same bytes, and no other source does."""
    wanted = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    sources = {path.relative_to(directory) for path in directory.rglob("*") if path.suffix in RUNTIME_FILES}
    return sources <= wanted and all(
        (directory / name).is_file() and filecmp.cmp(fresh / name, directory / name, shallow=False) for name in wanted
    )


def render_files(program: Program, plan: Plan, learning: LearningProgram | None, target: Target) -> dict[str, str]:
    """Return every generated file, name -> text. The runtime, which is copied as it is, is not among them."""
    env, m = environment(), program.name
    view = model_view(program, plan, target.name)
    files = {name.format(m=m): env.get_template(template).render(v=view) for template, name in MODEL_TEMPLATES.items()}
    if learning is not None:
        learned = learn_view(m, learning, plan.learn_offsets(), RUNTIME_ABI)
        for template, name in LEARN_TEMPLATES.items():
            files[name.format(m=m)] = env.get_template(template).render(v=learned)
        files |= render_tail(env, m, learning, plan)
    files["main.c"] = env.get_template("main.c.j2").render(
        m=m, M=m.upper(), has_latent=view.has_latent, has_learn=learning is not None
    )
    memory = target.memory_view()
    if memory is not None:
        files["memory.ld"] = env.get_template("memory.ld.j2").render(memory)
    emulated = target.emulator_view()
    if emulated is not None:
        files["memory_emulator.ld"] = env.get_template("memory.ld.j2").render(emulated)
    build = make_view(view, target, [name for name in files if name.endswith(("_learn.c", "_tail.c"))])
    for name in ("Makefile", "CMakeLists.txt"):
        files[name] = env.get_template(f"{name}.j2").render(v=view, b=build)
    files["LICENSE"] = env.get_template("LICENSE.j2").render()
    files["plan.txt"] = plan.to_text()
    files["manifest.json"] = manifest(program, plan, view)
    return files


def render_tail(env: jinja2.Environment, m: str, learning: LearningProgram, plan: Plan) -> dict[str, str]:
    """Return the files of a trained tail; none where the network is frozen."""
    if learning.tail is None:
        return {}
    view = tail_view(m, learning.tail, learning.config, plan.learn_offsets())
    arrays = [array_view(f"bnn_{m}", array) for array in view.arrays]
    return {
        name.format(m=m): env.get_template(template).render(v=view, arrays=arrays)
        for template, name in TAIL_TEMPLATES.items()
    }


def environment() -> jinja2.Environment:
    """Return the one Jinja environment: undefined names are errors."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.templates()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def manifest(program: Program, plan: Plan, view: ModelView) -> str:
    """Return what tools need to know of the built model, as JSON with sorted keys."""
    steps = []
    for number, call in enumerate(program.inference()):
        value = program.values.get(call.write)
        dtype, shape = (value.dtype, value.shape) if value else ("s32", (view.classes,))
        steps.append(
            {
                "number": number,
                "layer": call.layer,
                "kernel": f"{call.kernel}_{call.variant}",
                "title": title(call),
                "tensor": call.tensor,
                "dtype": dtype,
                "shape": list(shape),
                "bytes": value_bytes(dtype, tuple(shape)),
            }
        )
    data = {
        "bnngen": __version__,
        "abi": view.abi,
        "model": view.name,
        "target": view.target,
        "arithmetic": "float32" if view.is_float else "integer",
        "hash": view.model_hash,
        "classes": list(program.classes),
        "trained_classes": list(program.trained_classes),
        "image": {"shape": list(program.image), "bytes": view.image_bytes},
        "arena_bytes": plan.arena_bytes,
        "inference_peak_bytes": plan.inference_peak_bytes,
        "const_bytes": program.const_bytes,
        "latent_words": view.latent_words,
        "cut": program.cut,
        "features": {"tensor": program.features, "count": view.features, "type": view.features_type},
        "capacity": program.capacity,
        "steps": steps,
        "segments": {name: len(calls) for name, calls in program.segments.items()},
        "buffers": [{"name": b.name, "kind": b.kind, "offset": b.offset, "bytes": b.bytes} for b in plan.buffers],
    }
    return json.dumps(data, indent=1, sort_keys=True) + "\n"


def copy_runtime(to: Path) -> None:
    """Copy the C runtime, sources and headers only, under the licence of generated code (templates/LICENSE.j2)."""
    source = resources.runtime()
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.suffix in RUNTIME_FILES:
            target = to / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text(encoding="utf-8")
            target.write_text(text.replace(OURS, FREE, 1), encoding="utf-8", newline="\n")
