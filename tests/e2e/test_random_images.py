# SPDX-License-Identifier: Apache-2.0
"""1,000 seeded images of random pixels, 32x32 in colour, through a shipped network: equal on every target."""

from __future__ import annotations

import re

import pytest

from tests.e2e.conftest import need_tools

MODEL = "quicknet-nano-cifar100"  # shipped as ONNX: no TensorFlow, no images of anybody


@pytest.mark.parametrize(("target", "count"), [("host", 1000), ("rpi4", 1000), ("stm32f405", 100)])
def test_random_images_are_equal_bit_for_bit(bnngen, target, count):
    need_tools(target)
    text = bnngen.good("validate", "--model", MODEL, "--target", target, "--random", str(count))
    assert re.search(rf"{target}\s+{count}\s.*bit for bit", text), text
    predicted = re.search(r"predicted: (.*)", text).group(1)
    counts = [int(n) for n in re.findall(r" (\d+)(?:,|$)", predicted)]
    assert sum(counts) == count and sum(c > 0 for c in counts) >= 3, "a saturated model proves nothing"


def test_it_learns_ten_new_classes_within_the_board(bnngen):
    """Model, replay memory, head and buffers fit 128 KiB, and the head is not the backbone's own classes."""
    text = bnngen.good("analyze", MODEL, "--target", "stm32f405")
    assert "it fits" in text and "learn/replay_latents" in text
