# SPDX-License-Identifier: Apache-2.0
"""The client against real compiled servers: this machine, the emulated Pi, the emulated STM32F405."""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from bnngen.device.client import Command, DeviceClient, DeviceRefused, encode_frame
from bnngen.device.session import Where, connect
from bnngen.device.toolchain import emulator
from bnngen.device.transport import DeviceError, DeviceSilent, open_serial
from bnngen.errors import DataError, TargetError
from tests.device import project
from tests.device.conftest import need

PLACES = [("host", "native"), ("rpi4", "qemu-user"), ("stm32f405", "qemu-system"), ("stm32f405", "qemu-uart"),
          ("nucleo-f746zg", "qemu-system"), ("nucleo-g071rb", "qemu-system")]  # fmt: skip
UNSEEN = -(2**31)


@pytest.fixture(params=PLACES, ids="-".join)
def place(request, built):
    name, method = request.param
    program = built(name)
    need(*filter(None, [emulator(program.target)]))
    return program, Where(method)


@pytest.fixture
def device(place):
    with connect(*place, timeout_s=20) as client:
        yield client


def test_hello(device):
    facts = device.facts
    assert (facts.image_bytes, facts.classes, facts.steps) == (48, 3, 2)
    assert (facts.latent_words, facts.features, facts.capacity, facts.state_items) == (1, 8, 4, 3)
    assert facts.model_hash == project.HASH


def test_inference_equals_numpy(device):
    for image in project.images(40):
        assert np.array_equal(device.infer(image), project.scores(image))


def test_trace_has_the_checksum_of_every_step(device):
    import zlib

    image = project.images(1)[0]
    features, scores = project.features(image), project.scores(image).astype("<i4")
    steps, answered = device.trace(image)
    assert steps == [(8, zlib.crc32(features.tobytes())), (12, zlib.crc32(scores.tobytes()))]
    assert np.array_equal(answered, scores)


def test_features_are_what_the_heads_read(device):
    for image in project.images(3):
        answered = device.features(image)
        assert answered.dtype == np.int8 and np.array_equal(answered, project.features(image))


def test_latent_is_the_sign_of_the_features(device):
    image = project.images(1)[0]
    bits = project.features(image) < 0
    assert device.latent(image).tolist() == [int(np.packbits(bits, bitorder="little")[0])]


def test_learning(device):
    shown = project.images(6)
    device.learn_init(0x123456789ABCDEF0)
    device.begin()
    for label, image in zip([0, 1, 3, 0, 1, 3], shown, strict=True):
        device.add(label, image)
    assert device.step(4) == (4, True)
    assert device.step(100) == (2, False)
    device.end()
    means = [np.where(np.stack([project.features(i) for i in pair]) < 0, -64, 64).sum(0) // 2
             for pair in (shown[[0, 3]], shown[[1, 4]], shown[[2, 5]])]
    gaps = [-int(((project.features(shown[0]).astype(int) - mean) ** 2).sum()) for mean in means]
    assert device.classify(shown[0]).tolist() == [gaps[0], gaps[1], UNSEEN, gaps[2]]


def test_state_can_be_compared_and_read(device):
    import zlib

    device.learn_init(7)
    seed = struct.pack("<Q", 7)
    assert device.state() == [zlib.crc32(seed), zlib.crc32(bytes(128)), zlib.crc32(bytes(16))]
    assert device.read(0, 0, 8) == seed
    assert device.read(1, 120, 8) == bytes(8)
    assert device.read(2, 16, 0) == b""


def test_refusals_say_why_and_leave_the_line_usable(device):
    device.learn_init(1)
    with pytest.raises(DeviceRefused, match="the label is outside the head's capacity") as caught:
        device.begin()
        device.add(9, project.images(1)[0])
    assert caught.value.status == -3
    device.end()


@pytest.mark.parametrize("image", [np.zeros(47, np.uint8), np.zeros(48, np.float32)], ids=["size", "type"])
def test_a_wrong_image_is_refused_before_it_is_sent(device, image):
    with pytest.raises(DataError, match="the model takes 48 bytes"):
        device.infer(image)


def test_the_line_is_in_step_again_after_a_lost_answer(device):
    image = project.images(1)[0]
    cut_off = encode_frame(Command.INFER, image.tobytes())[:20]
    device.transport.write(cut_off, time.monotonic() + 5)  # as if the line had lost the rest
    with pytest.raises(DeviceSilent):
        device.request(Command.HELLO, timeout_s=0.3)
    assert np.array_equal(device.infer(image), project.scores(image))


def test_a_program_that_hangs_is_reported_in_time(place):
    with connect(*place) as device:
        start = time.monotonic()
        with pytest.raises(DeviceSilent, match="does not answer"):
            device.request(Command.INFER, bytes([project.SILENCE] * 48), timeout_s=0.5)
        assert time.monotonic() - start < 5
        device.transport.close()


def test_a_program_that_crashes_is_reported(place):
    program, where = place
    with connect(program, where) as device, pytest.raises(DeviceError) as caught:
        device.infer(np.full(48, project.FAULT, np.uint8))
    if program.target.port_files.memory_map:
        assert caught.value.message == "the program on the device has stopped with a fault"
        pc = int(caught.value.why.split()[1].rstrip(","), 16)
        ran = program.program("semihosting" if where.method == "qemu-system" else "uart")
        assert function_at(ran, pc) in ("bnn_tiny_front", "misbehave")
    else:
        assert caught.value.message == "the program on the device has ended"
        assert "SIGSEGV" in caught.value.why


def test_a_stack_that_grows_too_far_is_not_silent(place):
    program, where = place
    with connect(program, where, timeout_s=10) as device, pytest.raises(DeviceError) as caught:
        device.infer(np.full(48, project.OVERFLOW, np.uint8))
    if program.target.port_files.memory_map:
        assert caught.value.message == "the stack has grown out of its memory"
        assert "stack_bytes" in caught.value.fix
    else:
        assert "SIGSEGV" in caught.value.why


@pytest.mark.parametrize("method", ["qemu-system", "qemu-uart"])
def test_stack_peak_is_measured(built, method):
    need(emulator(built("stm32f405").target))
    with connect(built("stm32f405"), Where(method)) as device:
        device.infer(project.images(1)[0])
        shallow = device.info()
        device.infer(np.full(48, project.DEEP, np.uint8))
        deep = device.info()
    assert shallow.stack_bytes == 8192
    assert 0 < shallow.stack_peak < 600
    assert shallow.stack_peak + 12 * 64 < deep.stack_peak < 8192
    assert not deep.stack_broken
    assert (deep.clock_hz, deep.clock_confirmed) == (16_000_000, False)  # the emulator models no oscillator


def test_serial_line_that_does_not_exist():
    with pytest.raises(DeviceError, match="cannot be opened") as caught:
        open_serial("/dev/ttyNOBODY", 115200)
    assert "--port" in caught.value.fix


def test_serial_needs_a_port(built):
    with pytest.raises(TargetError, match="--port"):
        connect(built("host"), Where("serial"))


def test_serial_line_over_a_pseudo_terminal(built):
    """pyserial on a real terminal device: a pty whose other end is a server on this machine."""
    import os
    import pty
    import subprocess
    import tty

    ours, theirs = pty.openpty()
    tty.setraw(ours)
    server = subprocess.Popen([str(built("host").program())], stdin=ours, stdout=ours)
    try:
        with DeviceClient(open_serial(os.ttyname(theirs), 115200)) as device:
            image = project.images(1)[0]
            assert np.array_equal(device.infer(image), project.scores(image))
    finally:
        server.kill()
        server.wait()
        os.close(ours)
        os.close(theirs)


def function_at(program, address: int) -> str:
    """Name of the function that holds a code address."""
    with program.open("rb") as file:
        for symbol in ELFFile(file).get_section_by_name(".symtab").iter_symbols():
            start = symbol["st_value"] & ~1
            if symbol["st_info"]["type"] == "STT_FUNC" and start <= address < start + symbol["st_size"]:
                return symbol.name
    return ""


def test_cut_tensors_stand_for_images(built):
    """CUT, ADD_CUT and CLASSIFY_CUT in one pipeline leave the state and the scores that images leave."""
    images, labels = project.images(8, 4), [0, 1, 2, 0, 1, 2, 0, 1]
    found = []
    for cut in (False, True):
        with connect(built("host")) as device:
            assert device.facts.cut_bytes == 8
            samples = [np.frombuffer(c, np.uint8) for c in device.cuts(images)] if cut else images
            assert not cut or np.array_equal(samples[3].view(np.int8), project.features(images[3]))
            device.learn_init(3)
            device.begin()
            assert sum(1 for _ in device.add_all(labels, samples, cut)) == 8
            device.step(100)
            device.end()
            scores = np.stack(list(device.classify_all([samples[i % 8] for i in range(5000)], cut)))
            found.append((device.state(), scores))
    assert found[0][0] == found[1][0]
    assert np.array_equal(found[0][1], found[1][1])


def test_a_refusal_in_a_pipeline_leaves_the_line_usable(built):
    with connect(built("host")) as device:
        device.learn_init(0)
        device.begin()
        with pytest.raises(DeviceRefused) as refused:
            list(device.add_all([0, 9, 1], np.zeros((3, 8), np.uint8), cut=True))
        assert refused.value.status == -3
        assert device.step(10) == (2, False)
        with pytest.raises(DataError):
            list(device.classify_all(np.zeros((1, 7), np.uint8), cut=True))


def learn_tiny(device: DeviceClient, images: np.ndarray, labels: list[int], seed: int = 3) -> None:
    device.learn_init(seed)
    device.begin()
    for label, image in zip(labels, images, strict=True):
        device.add(label, image)
    device.step(100)
    device.end()


def test_state_goes_from_one_device_to_another(device):
    """READ, SIZES, WRITE and RESTORE: what was learned answers alike; in between, nothing else is possible."""
    images = project.images(6)
    learn_tiny(device, images, [0, 1, 2, 0, 1, 2])
    state, sizes = device.state(), device.sizes()
    items = [device.read(number, 0, size) for number, size in enumerate(sizes)]
    scores = device.classify(images[4])
    device.learn_init(9)
    assert device.state() != state and sizes == [8, 128, 16]
    device.write(1, items[1])
    for refused in (device.begin, lambda: device.classify(images[0]), lambda: device.forget(0)):
        with pytest.raises(DeviceRefused):
            refused()
    device.write(0, items[0])
    device.write(2, items[2])
    device.restore()
    assert device.state() == state and np.array_equal(device.classify(images[4]), scores)
    device.write(2, b"\xff" * 16)
    with pytest.raises(DeviceRefused) as refused:
        device.restore()
    assert refused.value.status == -7 and device.classify(images[4]).tolist() == [UNSEEN] * 4


def test_forgetting_abandoning_deciding_and_merging(device):
    images = project.images(6)
    learn_tiny(device, images, [0, 1, 2, 0, 1, 2])
    sizes = device.sizes()
    items = [device.read(number, 0, size) for number, size in enumerate(sizes)]
    before = device.state()
    device.begin()
    device.add(3, images[0])
    device.abandon()
    assert device.state() == before
    for image in images:
        scores = device.classify(image)
        assert device.decide(image) == (int(scores.argmax()) if scores.max() > -1000 else -1)
    device.merge(1, items[1])
    device.merge(2, items[2])
    doubled = [np.frombuffer(device.read(n, 0, size), "<i4") for n, size in enumerate(sizes)][1:]
    for got, item in zip(doubled, items[1:], strict=True):
        assert np.array_equal(got, 2 * np.frombuffer(item, "<i4"))
    device.forget(1)
    assert device.classify(images[1])[1] == UNSEEN
    device.begin()
    assert device.end().known == 4, "the tiny learner's words are its seed, 3, and what follows"
