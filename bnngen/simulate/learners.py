# SPDX-License-Identifier: Apache-2.0
"""The two kinds of learners of an experiment behind one interface: a compiled program, a NumPy reference method."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import numpy as np

from bnngen.continual.methods import METHODS, Levels, MethodSetting, Tuning
from bnngen.device.client import DeviceClient
from bnngen.device.compile import open_build
from bnngen.device.session import connect
from bnngen.session import train
from bnngen.simulate.config import CUT, Inputs, Memory, Reference, Run
from bnngen.targets import load_target

Array = np.ndarray


class Learner(Protocol):
    """samples: rows of the inputs; labels: int [N], below the capacity. learn: returns its steps, and what became of
    the experience, "" where nothing judges it. predict: int [N]. state: checksums of what was learned, empty where it
    is not compared."""

    memory: Memory

    def learn(self, samples: Array, labels: Array) -> tuple[int, str]: ...
    def predict(self, samples: Array) -> Array: ...
    def state(self) -> list[int]: ...
    def close(self) -> None: ...


class CompiledLearner:
    """The generated C program of this machine: packing, replay memory and head run there."""

    def __init__(self, program: str, inputs: Inputs, memory: Memory, seed: int) -> None:
        self.client: DeviceClient = connect(open_build(Path(program), load_target("host")))
        self.is_cut, self.memory = inputs.kind == CUT, memory
        self.client.learn_init(seed)

    def learn(self, samples: Array, labels: Array) -> tuple[int, str]:
        self.client.begin()
        for _ in self.client.add_all(labels.tolist(), samples, self.is_cut):
            pass
        steps = train(self.client, "", lambda what, done, total: None)
        return steps, self.client.end().outcome

    def predict(self, samples: Array) -> Array:
        return np.stack(list(self.client.classify_all(samples, self.is_cut))).argmax(axis=1)

    def state(self) -> list[int]:
        return self.client.state()

    def close(self) -> None:
        self.client.close()


class MethodLearner:
    """A method of continual/methods on the features that the compiled program computes."""

    def __init__(self, reference: Reference, inputs: Inputs, size: int, seed: int) -> None:
        self.inputs = inputs
        self.method = METHODS[reference.method](setting_of(reference, inputs, size, seed))

    @property
    def memory(self) -> Memory:
        return Memory(self.method.state_bytes, self.method.peak_bytes)

    def learn(self, samples: Array, labels: Array) -> tuple[int, str]:
        self.method.learn(self._features(samples), labels)
        return 0, ""

    def predict(self, samples: Array) -> Array:
        return self.method.scores(self._features(samples)).argmax(axis=1)

    def state(self) -> list[int]:
        return []

    def close(self) -> None:
        pass

    def _features(self, samples: Array) -> Array:
        return real_features(samples, self.inputs)


def setting_of(reference: Reference, inputs: Inputs, size: int, seed: int) -> MethodSetting:
    """Return what a reference method is made from."""
    features = labels = levels = None
    if reference.pretraining is not None:
        with np.load(reference.pretraining) as archive:
            features = real_features(archive["rows"], inputs)
            labels = archive["labels"]
    tuning = Tuning(**asdict(Tuning()) | reference.tuning)
    with np.load(inputs.stream) as archive:
        if tuning.bits == 1 and "low" in archive:
            levels = Levels.one_bit(archive["threshold"], archive["low"], archive["high"])
    return MethodSetting(reference.capacity, size, features, labels, levels, reference.config, tuning, seed)


def real_features(rows: Array, inputs: Inputs) -> Array:
    """Return rows of stream bytes, uint8 [N, bytes], as real numbers, float32 [N, D]."""
    return np.ascontiguousarray(rows).view(inputs.dtype).astype(np.float32) * np.float32(inputs.scale)


def open_learner(run: Run, size: int, seed: int) -> Learner:
    """Return a fresh learner of a run. size: features, D."""
    if run.reference is not None:
        return MethodLearner(run.reference, run.inputs, size, seed)
    assert run.program is not None and run.memory is not None
    return CompiledLearner(run.program, run.inputs, run.memory, seed)
