# SPDX-License-Identifier: Apache-2.0
"""The twin's gradients against float64, and against differences of the loss where it has a slope."""

from __future__ import annotations

import numpy as np
import pytest

from bnngen.continual.twin_replay import Pcg32
from bnngen.continual.twin_tail import TwinTail
from bnngen.lower.tail_constants import TailConfig
from tests.tail.reference import FloatTail
from tests.tail.script import Shape, random_tail

SHAPES = [
    Shape(32, 4, 4, 1),
    Shape(32, 4, 4, 3, relu=True, last_relu=True),
    Shape(40, 5, 3, 2, pad=1, shift=True, after=True),
    Shape(16, 8, 8, 3, shift=True, after=True, last_relu=True),
]
DX_EXPONENT = 22


def pair(shape: Shape, seed: int, config: TailConfig) -> tuple[TwinTail, FloatTail]:
    """The twin, and the float tail of exactly the numbers that the twin's integers stand for."""
    spec = random_tail(shape, seed)
    twin = TwinTail(spec, config)
    unit, slope = 2.0 ** -(twin.numbers.x + 15), 2.0**-24
    vectors = [
        {name: v * (slope if name == "slope" else unit) for name, v in block.vectors.items()} for block in twin.training
    ]
    latents = [block.latent / twin.numbers.latent_limit for block in twin.training]
    return twin, FloatTail(spec, latents, vectors)


def stream_of(twin: TwinTail, latent: np.ndarray) -> np.ndarray:
    """The real stream that a packed latent means."""
    channels = twin.spec.channels
    bits = np.unpackbits(latent.view(np.uint8), axis=-1, bitorder="little")[..., :channels]
    zero, one = twin.numbers.levels
    return np.where(bits == 1, one, zero) * 2.0**-twin.numbers.x


def random_latent(shape: Shape, random: np.random.Generator) -> np.ndarray:
    return random.integers(0, 2**32, (shape.height, shape.width, -(-shape.channels // 32)), dtype=np.uint32)


def angle_and_length(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Return cosine and ratio of lengths."""
    one, two = np.linalg.norm(a), np.linalg.norm(b)
    return float((a * b).sum() / (one * two)), float(one / two)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sum_bits", [16, 32])
def test_minibatch_gradient_is_that_of_float64(shape: Shape, sum_bits: int):
    """Signs and masks may differ in a few places, where the float stream is not rounded: hence the cosine."""
    twin, real = pair(shape, 3, TailConfig(sum_bits=sum_bits))
    random = np.random.default_rng(8)
    kernels = [np.zeros_like(latent) for latent in real.latents]
    vectors = [{name: np.zeros(shape.channels) for name in v} for v in real.vectors]
    for _ in range(6):
        latent = random_latent(shape, random)
        dx = random.integers(-(2**18), 2**18, shape.channels)
        features = twin.replay(latent, True) * 2.0**-twin.numbers.x
        assert np.abs(features - real.forward(stream_of(twin, latent))).max() < 0.02 * twin.spec.peak
        twin.backward(dx, DX_EXPONENT)
        more_kernels, more_vectors = real.backward(dx * 2.0**-DX_EXPONENT)
        for b, (kernel, named) in enumerate(zip(more_kernels, more_vectors, strict=True)):
            kernels[b] += kernel
            for name, value in named.items():
                vectors[b][name] += value
    for b in range(shape.blocks):
        mine = twin.filters[b].total * 2.0 ** -twin.filters[b].exponent
        cosine, ratio = angle_and_length(mine, kernels[b])
        assert cosine > 0.99 and abs(ratio - 1) < 0.02, (b, cosine, ratio)
        for name, want in vectors[b].items():
            total = twin.sums[b][name]
            cosine, ratio = angle_and_length(total.total * 2.0**-total.exponent, want)
            assert cosine > 0.99 and abs(ratio - 1) < 0.03, (b, name, cosine, ratio)


@pytest.mark.parametrize("relu", [False, True])
def test_last_block_without_rounding_of_signs(relu: bool):
    """One block: its signs are those of the packed latent, so float64 and integers differ by rounding alone."""
    shape = Shape(32, 4, 4, 1, relu=relu, after=True, shift=True)
    twin, real = pair(shape, 4, TailConfig(sum_bits=32))
    random = np.random.default_rng(9)
    latent, dx = random_latent(shape, random), random.integers(-(2**18), 2**18, shape.channels)
    twin.replay(latent, True)
    real.forward(stream_of(twin, latent))
    near = np.abs(real.kept[0]["u"]).min()
    assert near > 0.001, "choose another seed: a PReLU's input is 0 up to rounding"
    twin.backward(dx, DX_EXPONENT)
    (kernel,), (named,) = real.backward(dx * 2.0**-DX_EXPONENT)
    mine = twin.filters[0].total * 2.0 ** -twin.filters[0].exponent
    assert np.abs(mine - kernel).max() < 0.002 * np.abs(kernel).max()
    for name, want in named.items():
        total = twin.sums[0][name]
        assert np.abs(total.total * 2.0**-total.exponent - want).max() < 0.002 * np.abs(want).max(), name


@pytest.mark.parametrize("name", ["scale", "bias", "before", "slope", "behind"])
def test_slopes_of_the_loss(name: str):
    """Central differences of dx . features in float64, for what no sign reads any more."""
    shape = Shape(16, 4, 4, 2, after=True, shift=True)
    twin, real = pair(shape, 5, TailConfig())
    random = np.random.default_rng(10)
    latent, dx = random_latent(shape, random), random.integers(-(2**18), 2**18, shape.channels)
    twin.replay(latent, True)
    twin.backward(dx, DX_EXPONENT)
    stream, weights, step = stream_of(twin, latent), dx * 2.0**-DX_EXPONENT, 1e-7
    want = np.zeros(shape.channels)
    for c in range(shape.channels):
        losses = []
        for sign in (1, -1):
            real.vectors[1][name][c] += sign * step
            losses.append(float(weights @ real.forward(stream)))
            real.vectors[1][name][c] -= sign * step
        want[c] = (losses[0] - losses[1]) / (2 * step)
    total = twin.sums[1][name]
    assert np.abs(total.total * 2.0**-total.exponent - want).max() < 0.01 * np.abs(want).max()


def test_accumulator_gradient_is_a_difference_of_the_loss():
    """Flipping one kernel weight changes the loss by -2 * sign * its gradient where nothing bends: the kernel's
    gradient is exact, without any estimator."""
    shape = Shape(16, 4, 4, 1)
    twin, real = pair(shape, 6, TailConfig(sum_bits=32))
    random = np.random.default_rng(11)
    latent, dx = random_latent(shape, random), random.integers(-(2**18), 2**18, shape.channels)
    twin.replay(latent, True)
    twin.backward(dx, DX_EXPONENT)
    mine = twin.filters[0].total * 2.0 ** -twin.filters[0].exponent
    stream, weights = stream_of(twin, latent), dx * 2.0**-DX_EXPONENT
    before = float(weights @ real.forward(stream))
    for place in [(0, 0, 0, 0), (3, 1, 1, 5), (7, 2, 1, 15), (15, 0, 2, 9)]:
        old = real.latents[0][place]
        real.latents[0][place] = -1.0 if old >= 0 else 1.0
        change = float(weights @ real.forward(stream)) - before
        real.latents[0][place] = old
        gradient = change / (-2 if old >= 0 else 2)
        assert abs(mine[place] - gradient) < 0.002 * np.abs(mine).max(), place


@pytest.mark.parametrize("rule", ["sgd", "scaled"])
@pytest.mark.parametrize("bits", [8, 16])
def test_mean_step_of_latents_is_the_real_one(rule: str, bits: int):
    """Stochastic rounding: a step far below one unit is right on average."""
    shape = Shape(32, 4, 4, 1)
    random = np.random.default_rng(12)
    config = TailConfig(rule=rule, q_bin=bits, latent_lr=0.0008 if rule == "scaled" else 0.02, batch=1, sum_bits=32)
    twin, real = pair(shape, 7, config)
    latent, dx = random_latent(shape, random), random.integers(-(2**18), 2**18, shape.channels)
    twin.replay(latent, True)
    real.forward(stream_of(twin, latent))
    twin.backward(dx, DX_EXPONENT)
    (kernel,), _ = real.backward(dx * 2.0**-DX_EXPONENT)
    step = config.latent_lr * (kernel if rule == "sgd" else kernel / np.abs(kernel).mean())
    rng, start, moved, rounds = Pcg32(3), twin.training[0].latent.copy(), 0.0, 40
    for _ in range(rounds):
        twin.training[0].latent = start.copy()
        twin.update(rng)
        moved = moved + (twin.training[0].latent - start) / twin.numbers.latent_limit / rounds
    inside = np.abs(start) < twin.numbers.latent_limit * 0.9
    noise = 0.5 / twin.numbers.latent_limit / np.sqrt(rounds * inside.sum()) / np.sqrt((step[inside] ** 2).mean())
    slope = float((moved * step)[inside].sum() / (step * step)[inside].sum())
    assert abs(slope + 1) < 0.005 + 4 * noise, (slope, noise)
    assert abs(float(moved[inside].mean() + step[inside].mean())) < 4 * 0.5 / twin.numbers.latent_limit / np.sqrt(
        rounds * inside.sum()
    )


def test_vectors_move_by_the_rate():
    shape = Shape(32, 4, 4, 2, shift=True, after=True)
    config = TailConfig(lr=0.05, batch=2)
    twin, _ = pair(shape, 8, config)
    random = np.random.default_rng(13)
    for _ in range(2):
        twin.replay(random_latent(shape, random), True)
        twin.backward(random.integers(-(2**18), 2**18, shape.channels), DX_EXPONENT)
    before = [block.copy() for block in twin.training]
    twin.update(Pcg32(1))
    for b, block in enumerate(twin.training):
        for name, new in block.vectors.items():
            unit = 2.0**-24 if name == "slope" else 2.0 ** -(twin.numbers.x + 15)
            total = twin.sums[b][name]
            want = config.lr / 2 * total.total * 2.0**-total.exponent
            assert np.abs((before[b].vectors[name] - new) * unit - want).max() <= unit, name
