# SPDX-License-Identifier: Apache-2.0
"""The command server under noise: nothing makes it hang, crash or act on a broken frame.

Runs the server for this machine with the address and undefined-behaviour sanitizers.
"""

from __future__ import annotations

import random
import struct
import time

import numpy as np
import pytest

from bnngen.device.client import HEADER, Command, encode_frame
from bnngen.device.compile import build_project
from bnngen.device.transport import Transport, open_pipe
from bnngen.targets import load_target
from tests.device import project
from tests.device.project import Changes

SANITIZE = "-g -fsanitize=address,undefined -fno-sanitize-recover=all"
IMAGE_BYTES = 48
FLUSH = bytes(IMAGE_BYTES + 16)
HELLO = encode_frame(Command.HELLO, b"")
TIMEOUT_S = 10
MARKER = 77  # an unknown command, which is answered too


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    target = load_target("host")
    directory = project.write_project(tmp_path_factory.mktemp("asan"), target, Changes(cflags=SANITIZE))
    return build_project(directory, target).program()


@pytest.fixture
def line(program):
    transport = open_pipe([str(program)], "server")
    yield transport
    transport.close()


def send(line: Transport, data: bytes) -> None:
    line.write(data, time.monotonic() + TIMEOUT_S)


def receive(line: Transport) -> tuple[int, int, bytes]:
    """The next answer; the server never sends anything but whole frames."""
    deadline = time.monotonic() + TIMEOUT_S
    assert line.read(2, deadline) == b"BN"
    command, status, length = HEADER.unpack(line.read(HEADER.size, deadline))
    payload = line.read(length, deadline)
    assert encode_frame(command, payload, status)[-4:] == line.read(4, deadline)
    return command, status, payload


def noise(rng: random.Random) -> bytes:
    """Bytes that are rich in what the server looks for."""
    letters = b"BBBNN\x00\x01\x06\xff" + rng.randbytes(4)
    return bytes(rng.choice(letters) for _ in range(rng.randrange(90)))


def broken(rng: random.Random) -> bytes:
    """A frame with something wrong: cut off, a flipped bit, a wrong length, a wrong sum."""
    command = rng.choice([c for c in range(20) if c != Command.EXIT])  # a lucky one would end the test
    frame = bytearray(encode_frame(command, rng.randbytes(rng.choice([0, 4, 8, 12, 48, 52]))))
    kind = rng.randrange(4)
    if kind == 0:
        return bytes(frame[: rng.randrange(len(frame))])
    if kind == 1:
        place = rng.randrange(len(frame))
        frame[place] ^= 1 << rng.randrange(8)
    elif kind == 2:
        frame[4:8] = struct.pack("<I", rng.choice([0, 1, 0xFFFFFFFF, 0x80000000, 53, IMAGE_BYTES + 5]))
    else:
        frame[-1] ^= 0x55
    return bytes(frame)


@pytest.mark.parametrize("seed", range(150))
def test_server_survives_noise_and_answers_afterwards(line, seed):
    rng = random.Random(seed)
    for _ in range(20):
        send(line, rng.choice([noise, broken])(rng))
    send(line, FLUSH + encode_frame(MARKER, b""))
    while receive(line)[0] != MARKER:  # by chance, some of the broken ones are good
        pass
    image = project.images(1, seed)[0]
    send(line, encode_frame(Command.INFER, image.tobytes()))
    command, status, payload = receive(line)
    assert (command, status) == (Command.INFER, 0)
    assert np.array_equal(np.frombuffer(payload, "<i4"), project.scores(image))


@pytest.mark.parametrize("prefix", [
    b"", b"B", b"BB", b"BBBB", b"noise ", b"BN\x00\x01\x00\x00\x00\x00", b"BN\x00\x00\xff\xff\xff\xff",
    b"BNBNBN\xff\xff", b"BNB", b"BN\xff\xff\xff\xff\xffB",
], ids=repr)  # fmt: skip
def test_a_good_frame_right_behind_noise_is_not_lost(line, prefix):
    send(line, prefix + HELLO)
    assert receive(line)[0] == Command.HELLO


def test_a_frame_with_a_wrong_sum_has_no_effect_and_no_answer(line):
    send(line, encode_frame(Command.LEARN_INIT, bytes(8)) + encode_frame(Command.BEGIN, b""))
    assert [receive(line)[1] for _ in range(2)] == [0, 0]
    bad = bytearray(encode_frame(Command.END, b""))
    bad[-1] ^= 1
    send(line, bytes(bad) + encode_frame(Command.BEGIN, b""))
    assert receive(line)[:2] == (Command.BEGIN, -4)


REFUSED = [
    ("unknown", 100, b"", -6), ("short", Command.INFER, bytes(47), -1), ("long", Command.HELLO, b"x", -1),
    ("no LEARN_INIT", Command.BEGIN, b"", -4), ("no LEARN_INIT", Command.STATE, b"", -4),
    ("no LEARN_INIT", Command.CLASSIFY_CUT, bytes(8), -4), ("an image", Command.CLASSIFY_CUT, bytes(48), -1),
    ("no LEARN_INIT", Command.RESTORE, b"", -4), ("no LEARN_INIT", Command.SIZES, b"", -4),
    ("short", Command.WRITE, bytes(7), -1),
    ("short", Command.ADD_CUT, bytes(8), -1), ("a cut tensor", Command.CUT, bytes(8), -1),
]  # fmt: skip
REFUSED_LATER = [
    ("label", Command.ADD, struct.pack("<I", 4) + bytes(48), -3), ("not open", Command.END, b"", -4),
    ("label", Command.ADD_CUT, struct.pack("<I", 4) + bytes(8), -3),
    ("not open", Command.ADD_CUT, bytes(12), -4), ("label", Command.FORGET, struct.pack("<I", 4), -3),
    ("not open", Command.ABANDON, b"", -4), ("item", Command.WRITE, struct.pack("<2I", 3, 0), -5),
    ("bytes", Command.WRITE, struct.pack("<2I", 2, 12) + bytes(5), -5), ("bytes", Command.MERGE, bytes(11), -1),
    ("no steps", Command.STEP, bytes(4), -5), ("item", Command.READ, struct.pack("<3I", 3, 0, 0), -5),
    ("past the end", Command.READ, struct.pack("<3I", 0, 4, 5), -5),
    ("wraps around", Command.READ, struct.pack("<3I", 0, 8, 0xFFFFFFFC), -5),
    ("offset", Command.READ, struct.pack("<3I", 0, 0xFFFFFFFF, 2), -5),
]  # fmt: skip


@pytest.mark.parametrize(("what", "command", "payload", "status"), REFUSED)
def test_refused_at_once(line, what, command, payload, status):
    send(line, encode_frame(command, payload))
    assert receive(line) == (command, status, b""), what


@pytest.mark.parametrize(("what", "command", "payload", "status"), REFUSED_LATER)
def test_refused_by_the_learner(line, what, command, payload, status):
    send(line, encode_frame(Command.LEARN_INIT, bytes(8)) + encode_frame(command, payload))
    assert receive(line)[1] == 0
    assert receive(line) == (command, status, b""), what


def test_a_model_without_learning_refuses_it(tmp_path):
    target = load_target("host")
    directory = project.write_project(tmp_path, target, Changes(cflags=SANITIZE, learn=False))
    line = open_pipe([str(build_project(directory, target).program())], "server")
    send(line, encode_frame(Command.LEARN_INIT, bytes(8)) + HELLO)
    assert receive(line)[:2] == (Command.LEARN_INIT, -6)
    _, _, hello = receive(line)
    assert struct.unpack_from("<8I", hello)[6:] == (0, 0)
    line.close()


@pytest.mark.parametrize("cut", range(1, len(HELLO)))
def test_the_end_of_the_stream_ends_the_server_cleanly(program, cut):
    line = open_pipe([str(program)], "server")
    process = line.process.popen
    send(line, HELLO[:cut])
    process.stdin.close()
    assert process.wait(TIMEOUT_S) == 0
    line.close()


def test_exit_answers_and_ends(line):
    send(line, encode_frame(Command.EXIT, b""))
    assert receive(line) == (Command.EXIT, 0, b"")
    assert line.process.popen.wait(TIMEOUT_S) == 0
