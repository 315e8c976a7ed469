# SPDX-License-Identifier: Apache-2.0
"""Learned state as a file: what one target has learned, for another session or another target.

Little-endian: 8 bytes "BNNSTATE"; u32 version; 32 bytes model hash (ASCII); 32 bytes SHA-256 of the learner's
configuration; u32 items; for each u32 bytes of its name, name (UTF-8), u32 bytes; then the items; CRC-32 of all before.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bnngen.errors import DataError
from bnngen.lower.learning import LearningProgram

MAGIC, VERSION = b"BNNSTATE", 1
HEAD = struct.Struct("<8sI32s32sI")
PIECE = 1 << 16  # bytes of one READ


class Client(Protocol):
    """What a state is taken from and put into: a running target (docs/design.md, "Command server")."""

    def sizes(self) -> list[int]: ...
    def read(self, item: int, offset: int, count: int) -> bytes: ...
    def write(self, item: int, data: bytes) -> None: ...
    def restore(self) -> None: ...


@dataclass(frozen=True)
class LearnedState:
    """A learner's state. items: bytes by name, in order (docs/numerics.md, 5.10)."""

    model_hash: str
    config_hash: bytes
    items: dict[str, bytes]

    def to_bytes(self) -> bytes:
        """Return the file's contents."""
        head = HEAD.pack(MAGIC, VERSION, self.model_hash.encode("ascii"), self.config_hash, len(self.items))
        names = b"".join(_named(name, len(data)) for name, data in self.items.items())
        body = head + names + b"".join(self.items.values())
        return body + struct.pack("<I", zlib.crc32(body))

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> LearnedState:
        """Read a file's contents. DataError: it is damaged, of another version, or no such file."""
        if data[: len(MAGIC)] != MAGIC:
            raise DataError(f"{where} is no learned state", where=where, fix="give a file that --save-state wrote")
        if len(data) < HEAD.size + 4 or zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
            raise DataError(
                f"{where} is damaged", where=where, why="its checksum does not fit", fix="copy or save it again"
            )
        _, version, model_hash, config_hash, count = HEAD.unpack_from(data)
        if version != VERSION:
            raise DataError(
                f"{where} has version {version} of the format",
                where=where,
                why=f"this bnngen reads version {VERSION}",
                fix="read it with the bnngen that wrote it",
            )
        place, sizes = HEAD.size, {}
        for _ in range(count):
            name, size, place = _read_name(data, place)
            sizes[name] = size
        items = {}
        for name, size in sizes.items():
            items[name], place = data[place : place + size], place + size
        return cls(model_hash.decode("ascii"), config_hash, items)


def _named(name: str, size: int) -> bytes:
    text = name.encode()
    return struct.pack("<I", len(text)) + text + struct.pack("<I", size)


def _read_name(data: bytes, place: int) -> tuple[str, int, int]:
    (length,) = struct.unpack_from("<I", data, place)
    text = data[place + 4 : place + 4 + length].decode()
    (size,) = struct.unpack_from("<I", data, place + 4 + length)
    return text, size, place + 8 + length


def config_hash(learning: LearningProgram) -> bytes:
    """Return the SHA-256 of all that gives a state's bytes their meaning: parts, constants, items."""
    replay = learning.replay.symbol if learning.replay else ""
    parts = [learning.head.symbol, replay, learning.settings, learning.items]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()


def save_state(client: Client, learning: LearningProgram, model_hash: str) -> LearnedState:
    """Read the learned state of a target."""
    items = {}
    for number, (name, size) in enumerate(zip(learning.items, client.sizes(), strict=True)):
        pieces = [client.read(number, at, min(PIECE, size - at)) for at in range(0, size, PIECE)]
        items[name] = b"".join(pieces)
    return LearnedState(model_hash, config_hash(learning), items)


def load_state(client: Client, state: LearnedState) -> None:
    """Put a state into a target that has been initialised and whose model and configuration fit."""
    for number, data in enumerate(state.items.values()):
        client.write(number, data)
    client.restore()


def check_fits(state: LearnedState, learning: LearningProgram, model_hash: str, where: str) -> None:
    """Raise DataError for the state of another model or of another configuration of the learner."""
    if state.model_hash != model_hash:
        raise DataError(
            f"{where} was learned with another model",
            where=where,
            why=f"its model has hash {state.model_hash}, this one {model_hash}",
            fix="give the model, and --activations, that it was learned with",
        )
    if state.config_hash != config_hash(learning) or tuple(state.items) != learning.items:
        raise DataError(
            f"{where} was learned with other learning options",
            where=where,
            why="its bytes have a meaning only with the same head, memory, widths and rates",
            fix="give the options that the session which saved it was started with",
        )


def read_state(path: Path) -> LearnedState:
    """Read a file. DataError: it cannot be read, or is no state."""
    try:
        return LearnedState.from_bytes(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read", where=str(path), why=error.strerror or str(error)) from error


def known_classes(state: LearnedState) -> Sequence[int]:
    """Return the classes that a state has learned: those with samples in `past`."""
    past = struct.unpack(f"<{len(state.items['past']) // 4}I", state.items["past"])
    return [c for c, count in enumerate(past) if count]
