# SPDX-License-Identifier: Apache-2.0
"""The client of the command server that runs on the device. Frames: docs/design.md, "Command server"."""

from __future__ import annotations

import contextlib
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from types import TracebackType

import numpy as np

from bnngen.device.frames import (
    ABI,
    HEADER,
    HELLO,
    MAGIC,
    VERDICTS,
    Command,
    DeviceRefused,
    Hello,
    Info,
    StepTrace,
    Verdict,
    encode_frame,
)
from bnngen.device.transport import DeviceError, DeviceSilent, Transport
from bnngen.errors import DataError

TIMEOUT_S = 60.0
TRAINING = 10  # times that: the longest minibatch is a batch through an early cut on a slow core
LONGEST_ANSWER = 1 << 26
FRAME_OVERHEAD = 16
AHEAD_BYTES = 1 << 15  # of answers that may wait in a pipe; Linux gives it 65,536
# Before the first HELLO nobody knows how long a frame the server may be waiting for; a UART that is not
# ready yet drops what it is sent. So: again and again, with more zero bytes in front each time.
HELLO_FLUSHES = (0, 0, 64, 1024, 16384, 262144)
HELLO_TIMEOUT_S = 1.0
SLOWEST_BYTES_PER_S = 2000
STACKING_ERROR = 1 << 12  # CFSR.STKERR (ARMv7-M ARM, B3.2.15)


class DeviceClient:
    """Speaks with one program. Every method raises DeviceError when the device fails or stays silent."""

    def __init__(self, transport: Transport, timeout_s: float = TIMEOUT_S) -> None:
        self.transport = transport
        self.timeout_s = timeout_s
        self._lost_step = False
        try:
            self.facts = self._meet()
        except BaseException:
            transport.close()
            raise

    def __enter__(self) -> DeviceClient:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(polite=error is None)

    # ------------------------------------------------------------------------------------- frames

    def _receive(self, command: Command, deadline: float) -> tuple[int, bytes]:
        """Return (status, payload) of the next good answer to `command`; skips whatever else arrives."""
        while True:
            seen = b""
            while seen != MAGIC:
                seen = (seen + self.transport.read(1, deadline))[-2:]
            header = self.transport.read(HEADER.size, deadline)
            answered, status, length = HEADER.unpack(header)
            if length > LONGEST_ANSWER:
                continue
            payload = self.transport.read(length, deadline)
            (crc,) = struct.unpack("<I", self.transport.read(4, deadline))
            if crc != zlib.crc32(header + payload):
                raise DeviceError("an answer arrived damaged", where=self.transport.name,
                                  why="its checksum does not fit", fix="a shorter or better cable; try again")
            if answered == Command.FAULT:
                self._lost_step = True
                raise self._fault(payload)
            if answered == command:
                return status, payload

    def _fault(self, payload: bytes) -> DeviceError:
        pc, lr, cfsr, address = struct.unpack("<4I", payload)
        where = f"pc {pc:#010x}, lr {lr:#010x}, CFSR {cfsr:#010x}, BFAR {address:#010x}"
        if cfsr & STACKING_ERROR:
            return DeviceError("the stack has grown out of its memory", where=self.transport.name, why=where,
                               fix="raise budget.stack_bytes in the target's description; reset the board")
        return DeviceError("the program on the device has stopped with a fault", where=self.transport.name,
                           why=where, fix="look up pc with addr2line; reset the board")

    def request(self, command: Command, payload: bytes = b"", timeout_s: float | None = None) -> bytes:
        """Send one command and return the payload of its answer. DeviceRefused: a negative status.

        After a failure the next request first brings both sides into step again.
        """
        if self._lost_step:
            self._resynchronise()
        deadline = time.monotonic() + (timeout_s or self.timeout_s)
        try:
            self.transport.write(encode_frame(command, payload), deadline)
            status, answer = self._receive(command, deadline)
        except DeviceError:
            self._lost_step = True
            raise
        if status < 0:
            raise DeviceRefused(command, status, self.transport.name)
        return answer

    def request_all(self, command: Command, payloads: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the answers of many requests of one command, in order.

        On a line that holds back what the other end has not read yet, a pipe, requests go out ahead of the answers, as
        long as these surely fit the pipe: waiting for each would take most of the time. Raises as `request`.
        """
        limit = max(1, AHEAD_BYTES // self._answer_bytes(command)) if self.transport.holds_back else 1
        waiting = iter(payloads)
        while group := list(islice(waiting, limit)):
            yield from self._request_group(command, group)

    def _answer_bytes(self, command: Command) -> int:
        """Return the longest frame that answers a command."""
        facts = self.facts
        payload = {
            Command.CUT: facts.cut_bytes,
            Command.FEATURES: 4 * facts.features,
            Command.LATENT: 4 * facts.latent_words,
            Command.INFER: 4 * facts.classes,
        }
        return FRAME_OVERHEAD + payload.get(command, 4 * facts.capacity)

    def _request_group(self, command: Command, group: list[bytes]) -> list[bytes]:
        """Send a few requests, then take their answers. The first refusal is raised, when all answers are in."""
        if self._lost_step:
            self._resynchronise()
        deadline = time.monotonic() + self.timeout_s
        try:
            self.transport.write(b"".join(encode_frame(command, payload) for payload in group), deadline)
            answers = [self._receive(command, deadline) for _ in group]
        except DeviceError:
            self._lost_step = True
            raise
        refused = [status for status, _ in answers if status < 0]
        if refused:
            raise DeviceRefused(command, refused[0], self.transport.name)
        return [answer for _, answer in answers]

    def _meet(self) -> Hello:
        """Say hello, until the server, which may be inside a frame that was cut off, answers."""
        for flush in HELLO_FLUSHES:
            if flush > self.timeout_s * SLOWEST_BYTES_PER_S:
                break
            deadline = time.monotonic() + HELLO_TIMEOUT_S + flush / SLOWEST_BYTES_PER_S
            with contextlib.suppress(DeviceSilent):
                self.transport.write(bytes(flush) + encode_frame(Command.HELLO, b""), deadline)
                return self._check_hello(*self._receive(Command.HELLO, deadline))
        raise DeviceSilent("the device does not answer", where=self.transport.name,
                           why="no answer to HELLO", fix="check the connection, and that this program was "
                           "flashed; reset the board")

    def _check_hello(self, status: int, answer: bytes) -> Hello:
        """Return the answer to HELLO as facts. DeviceError: it is not one that this client understands."""
        if status < 0 or len(answer) != HELLO.size:
            raise DeviceError("the device speaks another protocol", where=self.transport.name,
                              fix="build and flash again with this bnngen")
        *numbers, model_hash, cut_bytes = HELLO.unpack(answer)
        facts = Hello(*numbers, model_hash.decode("ascii", "replace"), cut_bytes)
        if facts.abi != ABI:
            raise DeviceError(f"the device speaks protocol {facts.abi}, this bnngen speaks {ABI}",
                              where=self.transport.name, fix="build and flash again with this bnngen")
        return facts

    def _resynchronise(self) -> None:
        """Fill up whatever frame the server may be waiting for, then wait for the answer to a HELLO."""
        deadline = time.monotonic() + self.timeout_s
        fill = bytes(max(self.facts.image_bytes, self.facts.cut_bytes) + FRAME_OVERHEAD)
        self.transport.write(fill + encode_frame(Command.HELLO, b""), deadline)
        while True:
            try:
                self._receive(Command.HELLO, deadline)
                break
            except DeviceSilent:
                raise
            except DeviceError:  # a damaged answer from before: the next one may be the right one
                if time.monotonic() > deadline:
                    raise
        self._lost_step = False

    # ----------------------------------------------------------------------------------- commands

    def _image(self, image: np.ndarray) -> bytes:
        data = np.ascontiguousarray(image)
        if data.dtype != np.uint8 or data.size != self.facts.image_bytes:
            raise DataError(f"an image of {data.size} {data.dtype} values", where=self.transport.name,
                            why=f"the model takes {self.facts.image_bytes} bytes (uint8)")
        return data.tobytes()

    def infer(self, image: np.ndarray) -> np.ndarray:
        """Return scores, int32 [classes], of a uint8 image [H, W, C]."""
        return np.frombuffer(self.request(Command.INFER, self._image(image)), "<i4")

    def trace(self, image: np.ndarray) -> tuple[list[StepTrace], np.ndarray]:
        """Return size and CRC-32 of every step's output, and the scores."""
        words = np.frombuffer(self.request(Command.TRACE, self._image(image)), "<u4")
        steps = words[: 2 * self.facts.steps].reshape(-1, 2).tolist()
        return [StepTrace(*step) for step in steps], words[2 * self.facts.steps:].view("<i4")

    def latent(self, image: np.ndarray) -> np.ndarray:
        """Return the packed latent, uint32 [latent_words]."""
        return np.frombuffer(self.request(Command.LATENT, self._image(image)), "<u4")

    def features(self, image: np.ndarray) -> np.ndarray:
        """Return the feature vector that the heads read: stream integers, int8 or int16 [features]."""
        data = self.request(Command.FEATURES, self._image(image))
        return np.frombuffer(data, f"<i{len(data) // self.facts.features}")

    def cuts(self, images: Sequence[np.ndarray]) -> Iterator[bytes]:
        """Yield the tensor at the cut of each uint8 image [H, W, C], as the bytes of the stream: facts.cut_bytes."""
        return self.request_all(Command.CUT, (self._image(image) for image in images))

    def all_features(self, images: Sequence[np.ndarray]) -> Iterator[bytes]:
        """Yield the feature vector of each image, as the bytes of the stream; see `features`."""
        return self.request_all(Command.FEATURES, (self._image(image) for image in images))

    def add_all(self, labels: Sequence[int], samples: Sequence[np.ndarray], cut: bool = False) -> Iterator[None]:
        """Offer many labelled images, or with `cut` tensors at the cut, uint8 [facts.cut_bytes]; yields after each."""
        command, encode = (Command.ADD_CUT, self._cut) if cut else (Command.ADD, self._image)
        pairs = zip(labels, samples, strict=True)
        for _ in self.request_all(command, (struct.pack("<I", label) + encode(sample) for label, sample in pairs)):
            yield

    def classify_all(self, samples: Sequence[np.ndarray], cut: bool = False) -> Iterator[np.ndarray]:
        """Yield the learned head's scores of many images or tensors at the cut, each as `classify` gives them."""
        command, encode = (Command.CLASSIFY_CUT, self._cut) if cut else (Command.CLASSIFY, self._image)
        for answer in self.request_all(command, (encode(sample) for sample in samples)):
            yield np.frombuffer(answer, "<i4")

    def _cut(self, tensor: np.ndarray) -> bytes:
        data = np.ascontiguousarray(tensor)
        if data.nbytes != self.facts.cut_bytes:
            raise DataError(f"a tensor of {data.nbytes} bytes at the cut", where=self.transport.name,
                            why=f"the model's has {self.facts.cut_bytes} bytes")
        return data.tobytes()

    def learn_init(self, seed: int) -> None:
        """Forget everything learned; `seed` starts the generator."""
        self.request(Command.LEARN_INIT, struct.pack("<Q", seed))

    def begin(self) -> None:
        """Open an experience."""
        self.request(Command.BEGIN)

    def add(self, label: int, image: np.ndarray) -> None:
        """Offer one labelled image."""
        self.request(Command.ADD, struct.pack("<I", label) + self._image(image))

    def step(self, most: int = 1, timeout_s: float | None = None) -> tuple[int, bool]:
        """Train at most `most` minibatches. Returns (calls made, whether there is more to do)."""
        limit = timeout_s or TRAINING * self.timeout_s
        done, more = struct.unpack("<2I", self.request(Command.STEP, struct.pack("<I", most), limit))
        return done, bool(more)

    def end(self, timeout_s: float | None = None) -> Verdict:
        """Judge what was learned, take it over or drop it, and close the experience."""
        answer = self.request(Command.END, timeout_s=timeout_s or TRAINING * self.timeout_s)
        outcome, *counts = struct.unpack("<8I", answer)
        return Verdict(VERDICTS[outcome] if outcome < len(VERDICTS) else f"verdict {outcome}", *counts)

    def abandon(self) -> None:
        """Drop the open experience."""
        self.request(Command.ABANDON)

    def forget(self, label: int) -> None:
        """Forget a class."""
        self.request(Command.FORGET, struct.pack("<I", label))

    def decide(self, image: np.ndarray) -> int:
        """Return the class of a uint8 image [H, W, C], -1 where it is of none that is known."""
        (label,) = struct.unpack("<i", self.request(Command.DECIDE, self._image(image)))
        return label

    def sizes(self) -> list[int]:
        """Return the bytes of every state item."""
        return np.frombuffer(self.request(Command.SIZES), "<u4").tolist()

    def write(self, item: int, data: bytes) -> None:
        """Write a whole state item, in pieces that the image's buffer holds; restore() takes the state over."""
        piece = self.facts.image_bytes
        for offset in range(0, len(data), piece):
            self.request(Command.WRITE, struct.pack("<2I", item, offset) + data[offset : offset + piece])

    def merge(self, item: int, data: bytes) -> None:
        """Add another learner's sums to the open experience: a whole state item, 32-bit values."""
        piece = self.facts.image_bytes // 4 * 4
        for offset in range(0, len(data), piece):
            self.request(Command.MERGE, struct.pack("<2I", item, offset // 4) + data[offset : offset + piece])

    def restore(self) -> None:
        """Take over what was written. DeviceRefused: no learner can be in that state; it is then a new one."""
        self.request(Command.RESTORE)

    def classify(self, image: np.ndarray) -> np.ndarray:
        """Return the learned head's scores, int32 [capacity]; classes never seen are at INT32_MIN."""
        return np.frombuffer(self.request(Command.CLASSIFY, self._image(image)), "<i4")

    def state(self) -> list[int]:
        """Return the CRC-32 of every state item."""
        return np.frombuffer(self.request(Command.STATE), "<u4").tolist()

    def read(self, item: int, offset: int, count: int) -> bytes:
        """Return bytes of a state item. DeviceRefused: outside the item."""
        return self.request(Command.READ, struct.pack("<3I", item, offset, count))

    def info(self) -> Info:
        """Return stack and clock of the board."""
        stack, peak, clock, flags = struct.unpack("<4I", self.request(Command.INFO))
        return Info(stack, peak, clock, bool(flags & 1), bool(flags & 2))

    def close(self, polite: bool = True) -> None:
        """End the program where it is an emulated one, and the stream. A board simply stays as it is."""
        if polite and self.transport.process is not None and not self._lost_step:
            with contextlib.suppress(DeviceError):  # it ends all the same: close() below sees to that
                self.request(Command.EXIT, timeout_s=2)
        self.transport.close()
