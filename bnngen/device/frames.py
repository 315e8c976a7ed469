# SPDX-License-Identifier: Apache-2.0
"""What goes over the line to a device: commands, frames, and answers as values (docs/design.md, "Command server")."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from bnngen.device.transport import DeviceError

ABI = 3
MAGIC = b"BN"
HEADER = struct.Struct("<BbI")
HELLO = struct.Struct("<8I32sI")

VERDICTS = (
    "not judged", "accepted", "refused: known classes fell", "refused: too little is right",
    "refused: what is new is not learned",
)

STATUS = {
    -1: "a length does not fit", -2: "memory is not aligned", -3: "the label is outside the head's capacity",
    -4: "not possible now", -5: "a value is out of range", -6: "the model has no such part",
    -7: "damaged data, or of another version", -8: "data of another model", -9: "input or output failed",
}


class Command(IntEnum):
    """Command numbers, as in runtime_c/include/bnn/server.h."""

    HELLO = 0
    INFER = 1
    TRACE = 2
    LATENT = 3
    LEARN_INIT = 4
    BEGIN = 5
    ADD = 6
    STEP = 7
    END = 8
    CLASSIFY = 9
    STATE = 10
    READ = 11
    EXIT = 12
    INFO = 13
    FEATURES = 14
    CUT = 15
    ADD_CUT = 16
    CLASSIFY_CUT = 17
    FORGET = 18
    ABANDON = 19
    WRITE = 20
    RESTORE = 21
    MERGE = 22
    DECIDE = 23
    SIZES = 24
    FAULT = 127


class DeviceRefused(DeviceError):
    """The device understood and said no. `status` is its bnn_status."""

    def __init__(self, command: Command, status: int, where: str) -> None:
        super().__init__(f"the device refuses {command.name}", where=where,
                         why=f"status {status}: {STATUS.get(status, 'unknown')}")
        self.status = status


@dataclass(frozen=True)
class Hello:
    """What a program says about itself. Bytes and counts; capacity is 0 without a learning part,
    cut_bytes without a cut."""

    abi: int
    image_bytes: int
    classes: int
    steps: int
    latent_words: int
    features: int
    capacity: int
    state_items: int
    model_hash: str
    cut_bytes: int


@dataclass(frozen=True)
class Info:
    """What the board says about itself; 0 where it does not know."""

    stack_bytes: int
    stack_peak: int
    clock_hz: int
    clock_confirmed: bool
    stack_broken: bool


class Verdict(NamedTuple):
    """On the last experience, by held-back samples (docs/numerics.md, 5.12). outcome: one of VERDICTS; known, before,
    after: kept samples of classes known before, and how many were right before and with what was taught; judged, right:
    those and the experience's own, and how many were right with what was taught; new, new_right: of the latter."""

    outcome: str
    known: int
    before: int
    after: int
    judged: int
    right: int
    new: int
    new_right: int

    @property
    def refused(self) -> bool:
        """What was taught has been dropped."""
        return self.outcome in VERDICTS[2:]


class StepTrace(NamedTuple):
    """Size and CRC-32 of one step's output."""

    bytes: int
    crc32: int


def encode_frame(command: int, payload: bytes, status: int = 0) -> bytes:
    """Return one frame."""
    body = HEADER.pack(command, status, len(payload)) + payload
    return MAGIC + body + struct.pack("<I", zlib.crc32(body))
