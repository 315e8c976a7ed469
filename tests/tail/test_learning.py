# SPDX-License-Identifier: Apache-2.0
"""The tail learns: four noisy patterns of bits, a head that never changes, and a loss that only the tail can lower."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnngen.continual.twin_replay import Pcg32
from bnngen.continual.twin_tail import TwinTail
from bnngen.lower.tail_constants import TailConfig
from tests.tail.script import Shape, random_tail

CLASSES, STEPS, BATCH = 4, 30, 12
SHAPES = [Shape(32, 4, 4, 2, relu=True, last_relu=True), Shape(32, 4, 4, 2, shift=True, after=True)]


def losses(shape: Shape, config: TailConfig, only_latents: bool = False) -> list[float]:
    """Train; return the mean loss of each minibatch. Minibatches and head depend on nothing but the shape."""
    random = np.random.default_rng(21)
    twin, rng = TwinTail(random_tail(shape, 11), config), Pcg32(7)
    fixed = [{name: v.copy() for name, v in block.vectors.items()} for block in twin.training]
    head = random.normal(0, 0.5, (CLASSES, shape.channels))
    patterns = random.integers(0, 2, (CLASSES, shape.height, shape.width, shape.channels))
    means = []
    for _ in range(STEPS):
        twin.clear()
        total = 0.0
        for _ in range(BATCH):
            label = int(random.integers(CLASSES))
            bits = patterns[label] ^ (random.random(patterns[label].shape) < 0.15)
            latent = np.packbits(bits.astype(np.uint8), axis=-1, bitorder="little").view("<u4")
            logits = head @ (twin.replay(latent, True) * 2.0**-twin.numbers.x)
            p = np.exp(logits - logits.max())
            p /= p.sum()
            total -= float(np.log(p[label]))
            p[label] -= 1
            twin.backward(np.round(head.T @ p * 2**20).astype(np.int64), 20)
        means.append(total / BATCH)
        twin.update(rng)
        if only_latents:
            for block, vectors in zip(twin.training, fixed, strict=True):
                block.vectors = {name: v.copy() for name, v in vectors.items()}
    return means


@pytest.mark.parametrize("shape", SHAPES, ids=["relu", "rprelu"])
@pytest.mark.parametrize("rule, rate, lr", [("scaled", 0.01, 0.005), ("sgd", 3.0, 0.02)])
def test_loss_falls(shape: Shape, rule: str, rate: float, lr: float):
    course = losses(shape, TailConfig(rule=rule, latent_lr=rate, lr=lr, batch=BATCH))
    assert np.mean(course[-5:]) < 0.5 * np.mean(course[:2]), course


@pytest.mark.parametrize("bits", [8, 16])
def test_latents_alone_lower_the_loss(bits: int):
    """8 bits learn as 16 do, although a step is far below their unit: rounding is stochastic."""
    course = losses(SHAPES[0], TailConfig(latent_lr=0.01, batch=BATCH, q_bin=bits), only_latents=True)
    assert np.mean(course[-5:]) < 0.5 * np.mean(course[:2]), course


def test_narrow_sums_and_gradients_learn_as_well():
    """16-bit sums cost nothing that shows; 8-bit gradients little."""
    base = TailConfig(latent_lr=0.01, lr=0.005, batch=BATCH)
    wide = np.mean(losses(SHAPES[0], replace(base, sum_bits=32))[-5:])
    for config in (base, replace(base, q_b=8)):
        assert np.mean(losses(SHAPES[0], config)[-5:]) < wide + 0.1
