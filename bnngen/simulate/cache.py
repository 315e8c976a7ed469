# SPDX-License-Identifier: Apache-2.0
"""What the frozen part of the network makes of every image, computed once by the compiled program and kept.

CACHE/KEY/SPLIT.npy: uint8 [N, bytes], the bytes of the stream. While it grows it is SPLIT.partial beside SPLIT.done, a
byte per chunk of images: what was finished before an interruption is not computed again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from bnngen.device.client import DeviceClient

Array = np.ndarray
Progress = Callable[[str, int, int], None]
CHUNK = 256  # images between two marks of progress


class Images(Protocol):
    """Images uint8 [N, H, W, C] of which a slice is asked for: an array, or files that are read then."""

    def __len__(self) -> int: ...
    def __getitem__(self, where: slice) -> Array: ...


@dataclass(frozen=True)
class Tensors:
    """What is kept: `kind` ("cut" or "features") of the images of a data set; identity says of which network."""

    kind: str
    bytes: int
    identity: dict[str, object]

    @property
    def key(self) -> str:
        content = json.dumps({"kind": self.kind, **self.identity}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Part:
    """A part of a data set: "train", "test", "pretraining"."""

    split: str
    images: Images


@dataclass(frozen=True)
class Computing:
    """How tensors are computed: by so many programs at once, each opened by `open_client`."""

    open_client: Callable[[], DeviceClient]
    workers: int
    progress: Progress


def cache_folder(given: Path | None) -> Path:
    """Return where tensors are kept: as given, or in the user's cache directory (XDG_CACHE_HOME, ~/.cache)."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return given or home / "bnngen" / "simulate"


def cached(folder: Path, tensors: Tensors, part: Part, how: Computing) -> Path:
    """Return the file with the tensors of all images, in their order; computes what is not there yet."""
    place = folder / tensors.key
    path = place / f"{part.split}.npy"
    place.mkdir(parents=True, exist_ok=True)
    with alone(place / f"{part.split}.lock"):
        if not has_shape(path, (len(part.images), tensors.bytes)):
            _fill(place, tensors, part, how)
            (place / "about.json").write_text(json.dumps(tensors.identity, indent=1, sort_keys=True) + "\n")
    return path


def _fill(place: Path, tensors: Tensors, part: Part, how: Computing) -> None:
    partial, marks = place / f"{part.split}.partial", place / f"{part.split}.done"
    images, shape, chunks = part.images, (len(part.images), tensors.bytes), -(-len(part.images) // CHUNK)
    if not _fits(partial, marks, shape, chunks):
        np.lib.format.open_memmap(partial, "w+", np.uint8, shape).flush()
        marks.write_bytes(bytes(chunks))
    out, done = np.load(partial, mmap_mode="r+"), np.memmap(marks, np.uint8, "r+")
    todo = iter([int(c) for c in np.flatnonzero(done == 0)])
    lock, stop = threading.Lock(), threading.Event()

    def work() -> None:
        with how.open_client() as client:
            for chunk in _shared(todo, lock, stop):
                where = slice(chunk * CHUNK, min((chunk + 1) * CHUNK, len(images)))
                pixels = images[where]
                answers = client.cuts(pixels) if tensors.kind == "cut" else client.all_features(pixels)
                out[where] = np.frombuffer(b"".join(answers), np.uint8).reshape(-1, tensors.bytes)
                with lock:
                    done[chunk] = 1
                    count = min(int(done.sum()) * CHUNK, len(images))
                    how.progress(f"{tensors.kind} tensors of the {part.split} images", count, len(images))

    with ThreadPoolExecutor(how.workers) as pool:
        futures = [pool.submit(work) for _ in range(min(how.workers, chunks))]
        try:
            for future in futures:
                future.result()
        finally:
            stop.set()
            out.flush()
            done.flush()
    os.replace(partial, place / f"{part.split}.npy")
    marks.unlink()


def _fits(partial: Path, marks: Path, shape: tuple[int, int], chunks: int) -> bool:
    """True where an earlier command has left a part of the same tensors."""
    try:
        return has_shape(partial, shape) and marks.stat().st_size == chunks
    except OSError:
        return False


def has_shape(path: Path, shape: tuple[int, ...]) -> bool:
    """True where the file is a whole uint8 array of this shape: not missing, empty, cut off, or something else."""
    try:
        found = np.load(path, mmap_mode="r")
        return isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.shape == shape
    except (OSError, ValueError, EOFError):
        return False


def _shared(todo: Iterator[int], lock: threading.Lock, stop: threading.Event) -> Iterable[int]:
    """Yield the next chunk that no other thread has taken."""
    while not stop.is_set():
        with lock:
            chunk = next(todo, None)
        if chunk is None:
            return
        yield chunk


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other command works on the same thing, and keep others waiting until the end."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
