# SPDX-License-Identifier: Apache-2.0
"""A learning session asks for as many steps at once as a core of any speed answers in time."""

from __future__ import annotations

import numpy as np
import pytest

from bnngen import session
from bnngen.continual.stream import Experience
from bnngen.device.client import DeviceClient


class Core:
    """Trains `steps` minibatches of `seconds` each, on a clock of its own, and keeps what it was asked for."""

    def __init__(self, steps: int, seconds: float) -> None:
        self.left, self.seconds, self.now = steps, seconds, 0.0
        self.asked: list[int] = []
        self.took: list[float] = []

    def begin(self) -> None: ...
    def end(self) -> None: ...
    def add(self, label: int, image: np.ndarray) -> None: ...

    def step(self, most: int) -> tuple[int, bool]:
        done = min(most, self.left)
        self.asked.append(most)
        self.took.append(done * self.seconds)
        self.now += done * self.seconds
        self.left -= done
        return done, self.left > 0


@pytest.mark.parametrize(("steps", "seconds"), [(40, 30.0), (500, 0.1), (20000, 0.00005), (3, 0.0)])
def test_steps_per_call_follow_the_speed_of_the_core(monkeypatch, steps, seconds):
    core = Core(steps, seconds)
    monkeypatch.setattr(session.time, "monotonic", lambda: core.now)
    shown = Experience((0,), np.zeros((2, 1, 1, 1), np.uint8), np.zeros(2, np.int64))
    assert session.learn_experience(core, shown, "", lambda *_: None) == steps
    assert core.asked[0] == 1
    assert max(core.took) <= max(seconds, 2 * session.SECONDS_PER_CALL)
    assert len(core.asked) <= 15 + steps * seconds / (session.SECONDS_PER_CALL / 2) or seconds > 1


def test_a_step_may_take_longer_than_other_commands(built, monkeypatch):
    """Training and closing an experience are the only commands whose length the data decide."""
    from bnngen.device.session import connect

    limits = {}
    request = DeviceClient.request

    def noting(self, command, payload=b"", timeout_s=None):
        limits[command.name] = timeout_s or self.timeout_s
        return request(self, command, payload, timeout_s)

    monkeypatch.setattr(DeviceClient, "request", noting)
    with connect(built("host"), timeout_s=20) as device:
        device.learn_init(1)
        device.begin()
        device.add(0, np.zeros(48, np.uint8))
        device.step(1)
        device.end()
    assert limits["STEP"] >= 200 and limits["END"] >= 200 and limits["ADD"] == 20
