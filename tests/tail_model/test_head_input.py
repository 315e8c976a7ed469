# SPDX-License-Identifier: Apache-2.0
"""What the head in front of trained blocks reads, and the noise that training adds."""

from __future__ import annotations

import numpy as np
import pytest

from bnngen.continual.twin_replay import Pcg32
from bnngen.continual.twin_tail_parts import NOISE_DIGITS, bernoulli, draws
from bnngen.errors import UsageError
from bnngen.lower.learning import LearnConfig
from bnngen.pipeline import BuildOptions, compile_model
from bnngen.targets import load_target
from tests.tail_model.networks import Trained, trained

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Trained:
    return trained("quicknet-nano-s", 0.25, tmp_path_factory.mktemp("head"))


def test_a_head_in_front_of_trained_blocks_reads_plain_features(model):
    result, graph = model.export("tail:1", "behind.onnx")
    for tail in (0, 1):
        options = BuildOptions(learn=LearnConfig(tail=tail))
        learning = compile_model(result.path, load_target("host"), options).learning
        assert learning.settings["x_root"] == 1 - tail
        assert learning.sizes.map == (None if tail else graph.meta.head.map)


@pytest.mark.parametrize("share", [1, 3, 16, 31])
def test_noise_flips_the_share_of_bits_that_it_says(share):
    words = draws(Pcg32(share), 4000 * NOISE_DIGITS).reshape(4000, NOISE_DIGITS)
    bits = np.unpackbits(bernoulli(words, share).astype("<u4").view(np.uint8))
    spread = np.sqrt(share / 32 * (1 - share / 32) / bits.size)
    assert abs(bits.mean() - share / 32) < 5 * spread


def test_noise_has_bounds(model):
    result, _ = model.export("tail:1", "behind.onnx")
    for share in (-1, 32):
        with pytest.raises(UsageError, match="--tail-noise"):
            options = BuildOptions(learn=LearnConfig(tail=1, tail_noise=share))
            compile_model(result.path, load_target("host"), options)
