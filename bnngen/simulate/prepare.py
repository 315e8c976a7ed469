# SPDX-License-Identifier: Apache-2.0
"""Everything that jobs read, made beforehand: compiled programs, cached tensors, labels and written lists."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bnngen import __version__
from bnngen.continual.methods import METHODS
from bnngen.continual.scenarios import NEEDS_GROUPS, Scenario
from bnngen.continual.stream import capped
from bnngen.data import Dataset
from bnngen.device.compile import open_build
from bnngen.device.session import connect
from bnngen.errors import DataError, UsageError
from bnngen.pipeline import BuildOptions
from bnngen.simulate.cache import Computing, Part, Tensors, alone, cached, has_shape
from bnngen.simulate.config import CUT, FEATURES, PIXELS, Inputs, Reference, Run
from bnngen.simulate.learners import setting_of
from bnngen.simulate.programs import BuiltProgram, build_program
from bnngen.simulate.settings import Setting
from bnngen.targets import load_target

GROUP_NAMES = ("groups", "group", "track", "tracks", "session", "speaker")  # looked for in this order
PRETRAINING_SEED = 0
Array = np.ndarray


@dataclass(frozen=True)
class Where:
    """Folders and hands. out: of results; cache: of tensors; programs: of compiled projects, shared by experiments."""

    out: Path
    programs: Path
    cache: Path
    workers: int
    progress: Callable[[str, int, int], None]


@dataclass(frozen=True)
class Data:
    """The images of the experiment. load: shape of the model's input [H, W, C] -> the data set. groups: name of the
    groups to use, None for the usual names. lists: (run, number) -> places, of experiences that are written down.
    pretraining: as load, images that the backbone was pre-trained on; its images are at most `pretraining_limit`."""

    load: Callable[[tuple[int, ...]], Dataset]
    groups: str | None = None
    test_limit: int | None = None
    lists: dict[tuple[int, int], Array] | None = None
    pretraining: Callable[[tuple[int, ...]], Dataset] | None = None
    pretraining_limit: int = 2000


class Preparation:
    """Makes runs of settings; programs, tensors and files that several runs share are made once."""

    def __init__(self, data: Data, scenario: Scenario, where: Where, pixels: bool = False) -> None:
        self.data, self.scenario, self.where, self.pixels = data, scenario, where, pixels
        self._programs: dict[tuple[str, BuildOptions], BuiltProgram] = {}
        self._sets: dict[tuple[int, ...], tuple[Dataset, Dataset | None]] = {}

    def run_of(self, setting: Setting, model: Path, options: BuildOptions) -> Run:
        """Build what a setting asks for and return the run. model: its ONNX file."""
        if setting.method is not None:
            return self._reference_run(setting, model, options)
        built = self._program(model, options)
        self._check_capacity(built)
        inputs = self._inputs(built, PIXELS if self.pixels else CUT)
        identity = {
            "learn": asdict(options.learn),
            "sources": built.sources,
            "model": built.compiled.program.model_hash,
            "inputs": inputs.kind,
            "stream": Path(inputs.stream).stem,
        }
        return Run(setting.name, inputs, str(built.folder.resolve()), None, built.memory, identity)

    def dataset(self, built: BuiltProgram) -> Dataset:
        """Return the data set as the model takes it."""
        return self._data(built)[0]

    def _reference_run(self, setting: Setting, model: Path, options: BuildOptions) -> Run:
        plain = replace(options, learn=type(options.learn)(capacity=options.learn.capacity))
        built = self._program(model, plain)
        self._check_capacity(built)
        inputs = self._inputs(built, FEATURES)
        capacity = built.compiled.learning.capacity
        reference = Reference(
            setting.method, dict(setting.tuning), options.learn, capacity, self._pretraining(built)
        )
        _check_method(reference, inputs, built)
        identity = asdict(reference) | {"model": built.compiled.program.model_hash, "version": __version__}
        identity["stream"] = Path(inputs.stream).stem
        identity["pretraining"] = reference.pretraining and Path(reference.pretraining).stem
        return Run(setting.name, inputs, None, reference, None, identity)

    def _program(self, model: Path, options: BuildOptions) -> BuiltProgram:
        key = (str(model), options)
        if key not in self._programs:
            self.where.progress(f"building program {len(self._programs) + 1}", 0, 0)
            name = hashlib.sha256(model.read_bytes() + repr(options).encode()).hexdigest()[:12]
            self._programs[key] = build_program(model, options, self.where.programs / name)
        return self._programs[key]

    def _check_capacity(self, built: BuiltProgram) -> None:
        capacity, count = built.compiled.learning.capacity, len(self.scenario.classes)
        if count > capacity:
            raise DataError(
                f"the learned head holds {capacity} classes, the stream has {count}",
                why="the capacity is fixed when the program is generated",
                fix=f"--capacity {count}, or fewer classes with --classes",
            )

    def _data(self, built: BuiltProgram) -> tuple[Dataset, Dataset | None]:
        shape = tuple(built.compiled.program.image)
        if shape not in self._sets:
            other = self.data.pretraining
            self._sets[shape] = self.data.load(shape), other and _some(other(shape), self.data.pretraining_limit)
        return self._sets[shape]

    def _inputs(self, built: BuiltProgram, kind: str) -> Inputs:
        """Return the files of one kind, computed where they are not in the cache yet."""
        data = self._data(built)[0]
        stream = str(self._stream_file(data, built))
        if kind == PIXELS:
            files = [self._pixels(data, split) for split in ("train", "test")]
            return Inputs(kind, *files, stream)
        tensors = _tensors(built, kind)
        sums = {"train": data.sha256, "test": data.sha256}
        files = [self._tensors(built, tensors, (split, sums[split]), getattr(data, f"x_{split}")) for split in sums]
        if kind == CUT:
            return Inputs(kind, *files, stream)
        dtype, scale = _feature_type(built)
        return Inputs(kind, *files, stream, dtype, scale)

    def _tensors(self, built: BuiltProgram, tensors: Tensors, part: tuple[str, str], images: Any) -> str:
        split, checksum = part
        target, where = load_target("host"), self.where
        how = Computing(lambda: connect(open_build(built.folder, target)), where.workers, where.progress)
        identity = tensors.identity | {"data": checksum, "images": len(images)}
        tensors = replace(tensors, identity=identity)
        return str(cached(where.cache, tensors, Part(split, images), how).resolve())

    def _pixels(self, data: Dataset, split: str) -> str:
        """Keep the pixels as a plain .npy file, which jobs map into memory."""
        path = self.where.cache / f"pixels-{data.sha256[:24]}-{data.shape[0]}x{data.shape[1]}" / f"{split}.npy"
        images = getattr(data, f"x_{split}")
        shape = (len(images), *data.shape)
        with alone(path.with_suffix(".lock")):
            if not has_shape(path, shape):
                partial = path.with_suffix(".partial")
                out = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
                for start in range(0, len(images), 1000):
                    out[start : start + 1000] = images[start : start + 1000]
                out.flush()
                partial.rename(path)
        return str(path.resolve())

    def _pretraining(self, built: BuiltProgram) -> str | None:
        """Return an .npz file with the features and labels of images of pre-training, or None."""
        data = self._data(built)[1]
        if data is None:
            return None
        tensors = _tensors(built, FEATURES)
        rows = np.load(self._tensors(built, tensors, ("pretraining", data.sha256), data.x_train))
        return str(self._npz({"rows": rows, "labels": data.y_train}))

    def _stream_file(self, data: Dataset, built: BuiltProgram) -> Path:
        arrays = {"y_train": data.y_train, "y_test": data.y_test}
        arrays["test"] = test_places(data, self.scenario.classes, self.data.test_limit)
        groups = chosen_groups(data, self.data.groups, self.scenario.name)
        if groups is not None:
            arrays["groups"] = groups
        for (run, number), places in (self.data.lists or {}).items():
            arrays[f"part_{run}_{number}"] = places
        latent, graph = built.compiled.graph.meta.latent, built.compiled.graph
        if latent is not None and graph.meta.head is not None and latent.tensor == graph.meta.head.tensor:
            for name in ("threshold", "low", "high"):
                arrays[name] = np.array(getattr(latent, name), np.float32)
        return self._npz(arrays)

    def _npz(self, arrays: dict[str, Array]) -> Path:
        """Write arrays to a file that is named after its content."""
        content = io.BytesIO()
        np.savez(content, **arrays)
        digest = hashlib.sha256()
        for name, array in arrays.items():
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        path = self.where.out / "inputs" / f"{digest.hexdigest()[:16]}.npz"
        if not path.exists() or path.read_bytes() != content.getvalue():  # missing or damaged
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_bytes(content.getvalue())
            partial.rename(path)
        return path.resolve()


def _tensors(built: BuiltProgram, kind: str) -> Tensors:
    """Say what is cached. Features that are the cut itself are the cut's bytes."""
    program = built.compiled.program
    assert program.cut is not None
    cut, features = program.values[program.cut], program.values[program.features]
    if kind == FEATURES and cut.buffer != features.buffer:
        return Tensors(FEATURES, features.bytes, {"model": program.model_hash, "version": __version__})
    identity = {"model": program.model_hash, "tensor": program.cut, "type": cut.dtype, "version": __version__}
    return Tensors(CUT, cut.bytes, identity)


def _feature_type(built: BuiltProgram) -> tuple[str, float]:
    """Return (NumPy dtype, real value of one unit) of the feature stream."""
    program, graph = built.compiled.program, built.compiled.graph
    features = program.values[program.features]
    size = features.bytes // math.prod(features.shape)
    return f"<i{size}", graph.tensors[graph.meta.head.tensor].uniform_scale


def _check_method(reference: Reference, inputs: Inputs, built: BuiltProgram) -> None:
    """Raise UsageError for a method that needs more than the experiment gives it."""
    try:
        METHODS[reference.method](setting_of(reference, inputs, built.compiled.learning.features, 0))
    except AssertionError as error:
        raise UsageError(
            f"method {reference.method} cannot be made here",
            where="--methods",
            why=str(error),
            fix="name the data that the backbone was trained on: --pretraining DATA",
        ) from error


def _some(data: Dataset, limit: int) -> Dataset:
    """Return a data set with a fixed random choice of at most `limit` training images."""
    rng = np.random.default_rng(PRETRAINING_SEED)
    places = capped(np.arange(len(data.y_train)), limit, rng)
    return replace(data, x_train=data.x_train[places], y_train=data.y_train[places], groups={})


def test_places(data: Dataset, classes: tuple[int, ...], limit: int | None) -> Array:
    """Return places of the test images of the stream's classes, at most `limit` of each. DataError: there are none."""
    rng = np.random.default_rng(0)
    places = np.sort(np.concatenate([capped(np.flatnonzero(data.y_test == c), limit, rng) for c in classes]))
    if len(places) == 0:
        raise DataError("the classes of the stream have no test image", where=data.name, fix="name other classes")
    return places


test_places.__test__ = False  # type: ignore[attr-defined]  # the name is ours, not pytest's


def chosen_groups(data: Dataset, name: str | None, scenario: str) -> Array | None:
    """Return the groups that a scenario goes by: those of that name; without a name, the usual ones where the scenario
    needs some. UsageError: there are none of that name."""
    if name is None:
        found = [data.groups[usual] for usual in GROUP_NAMES if usual in data.groups]
        return found[0] if found and scenario in NEEDS_GROUPS else None
    if name not in data.groups:
        have = ", ".join(data.groups) or "no groups"
        raise UsageError(f"{data.name} has no groups {name!r}", where="--groups", why=f"it has {have}",
                         fix=f"an array {name}_train of integers beside x_train in the .npz file")
    return data.groups[name]
