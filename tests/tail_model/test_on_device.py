# SPDX-License-Identifier: Apache-2.0
"""A model whose last block is trained on the target: generated code, arena plan, learner and tail against the twin.

Pixels go in, and after every call all state items equal the NumPy twin's, byte for byte; scores are compared too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bnngen.continual.mirror import TwinMirror
from bnngen.data import load
from bnngen.device.compile import BuildResult, build_project
from bnngen.device.session import Where, connect
from bnngen.device.toolchain import emulator
from bnngen.lower.learning import LearnConfig
from bnngen.pipeline import BuildOptions, Compiled, compile_model, write_project
from bnngen.targets import load_target
from tests.device.conftest import need
from tests.tail_model.networks import Trained, trained

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")
SEED = 7
LEARN = {"replay": 12, "buffer": 16, "batch": 8, "epochs": 2}
CASES = {  # name -> backbone, blocks, options
    "quicknet": ("quicknet-nano-s", 1, {}),
    "reactnet": ("reactnet-nano", 2, {"q_bin": 16, "head": "cwr+"}),
    "governed": ("quicknet-nano-s", 1, {"hold_every": 4, "hold": 6, "hold_new": 4, "q_b": 8}),
    "no noise": ("quicknet-nano-s", 1, {"tail_noise": 0}),
    "noise on drawn latents": ("quicknet-nano-s", 1, {"tail_noise": 13, "policy": "generative", "components": 2}),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Trained]:
    """Small trained backbones; each is trained once."""
    made = {}
    for backbone, blocks, _ in CASES.values():
        if (backbone, blocks) not in made:
            made[backbone, blocks] = trained(backbone, 0.25, tmp_path_factory.mktemp(backbone))
    return made


def build(model: Trained, case: str, target: str, folder: Path, bits: int = 16) -> tuple[Compiled, BuildResult]:
    _, blocks, options = CASES[case]
    result, _ = model.export(f"tail:{blocks}", f"{case}.onnx")
    learn = LearnConfig(**LEARN, tail=blocks, **options)
    facts = load_target(target)
    compiled = compile_model(result.path, facts, BuildOptions(activation_bits=bits, learn=learn))
    return compiled, build_project(write_project(compiled, folder, case), facts)


def session(compiled: Compiled, built: BuildResult) -> tuple[TwinMirror, list[np.ndarray]]:
    """Two experiences of two classes; return the mirror and the scores of four images after each."""
    data, found = load("digits"), []
    need(*filter(None, [emulator(built.target)]))
    with connect(built, Where()) as client:
        mirror = TwinMirror(compiled.graph, compiled.learning.config, SEED, client, compiled.tail_options)
        mirror.learn_init(SEED)
        for classes in ((0, 1), (2, 3)):
            mirror.begin()
            for label in classes:
                for image in data.x_train[data.y_train == label][:8]:
                    mirror.add(label, image)
            while mirror.step()[1]:
                pass
            mirror.end()
            found += [mirror.classify(image) for image in data.x_test[:4]]
    return mirror, found


@pytest.mark.parametrize("case", CASES)
def test_the_device_holds_the_twins_state_after_every_call(case, models, tmp_path):
    backbone, blocks, _ = CASES[case]
    compiled, built = build(models[backbone, blocks], case, "host", tmp_path)
    mirror, scores = session(compiled, built)
    assert mirror.comparisons > 10 and np.ptp(scores[-1][:4]) > 0
    tail = mirror.twin.tail
    moved = [
        (new.latent != old.latent).any() for new, old in zip(tail.committed, tail.training, strict=True)
    ]  # committed is what was trained last
    assert not any(moved) or case == "governed"
    start = compiled.learning.tail.spec.blocks[0].latent
    assert (tail.committed[0].latent != start * (258 if compiled.learning.config.q_bin == 16 else 1)).any()


@pytest.mark.parametrize("target", ["stm32f405", "nucleo-f746zg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_the_same_bits_on_microcontrollers(target, bits, models, tmp_path):
    compiled, built = build(models["quicknet-nano-s", 1], "quicknet", target, tmp_path, bits)
    _, scores = session(compiled, built)
    here, host = build(models["quicknet-nano-s", 1], "quicknet", "host", tmp_path, bits)
    _, expected = session(here, host)
    assert here.program.model_hash == compiled.program.model_hash
    np.testing.assert_array_equal(scores, expected)
