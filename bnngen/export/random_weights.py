# SPDX-License-Identifier: Apache-2.0
"""Random weights under which a binary network behaves like a trained one.

Independent weights make it chaotic: a sign that flips, since its value was within rounding of zero, flips others in the
next layer, and in the end the scores. Trained kernels are of low rank, and layers speak to each other along the
same few directions, so that single flips average out. Here every layer's channels are made of the same few
directions, and a layer mixes them.

The batch norms get the statistics that their inputs really have on given images, so signs are balanced.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from bnngen.export.config import Progress

RANK = 10  # directions
PERIOD = 32  # channels c and c + 32 are made of the same mixture: a concatenation keeps the directions
OWN_TAP = 0.5  # how much the mixing differs from tap to tap of a window
NOISE = 0.5  # deviation of the part of a kernel that has no structure; the whole has 1
BLOCK = 512  # rows of a kernel that are made at once: a mixture is computed in float64
OWN_CLASS = 0.7  # share of an image's own direction in the classifier's column of its class; the rest is noise


def fill_randomly(model: tf.keras.Model, images: np.ndarray, classes: int, progress: Progress) -> None:
    """Give a model that ends in a classifier of `classes` and a softmax its weights, the same for the same arguments.

    images: float32 [N, H, W, C]. Column i of the classifier leans towards the features of image i, so that the images
    have different winners, at a distance from the rest.
    """
    rng = np.random.default_rng(zlib.crc32(model.name.encode()))
    for layer in model.layers:
        if layer.trainable and layer.weights:
            layer.set_weights([_draw(layer, variable, rng) for variable in layer.weights])
    head = next(layer for layer in reversed(model.layers) if hasattr(layer, "kernel"))
    body, tail = tf.keras.Model(model.inputs, head.input), tf.keras.Model(head.input, model.layers[-1].input)
    progress("statistics of the batch norms", 0, 2)
    with _batch_statistics(body):
        body(images, training=True)
    progress("statistics of the batch norms", 1, 2)
    features = body(images, training=False).numpy()
    _set_head(head, features.reshape(len(images), -1), classes, rng)
    with _batch_statistics(tail):
        tail(features, training=True)
    _pool_variances(tail)
    winners = tail(features, training=False).numpy().argmax(axis=1)
    assert len(set(winners)) > len(images) // 2, "random weights that cannot tell images apart"
    progress("statistics of the batch norms", 2, 2)


# -------------------------------------------------------------------------------------------- weights


def _draw(layer: tf.keras.layers.Layer, variable: tf.Variable, rng: np.random.Generator) -> np.ndarray:
    """Return one variable's values; of the batch norms' factors some are negative."""
    kind, shape = variable.name.split("/")[-1].split(":")[0], tuple(variable.shape)
    if kind.endswith("kernel"):
        return _kernel(layer, kind, shape, rng)
    noise = rng.standard_normal(shape)
    if kind == "gamma":
        return (1 + 0.2 * noise) * np.where(rng.random(shape) < 0.05, -1, 1)
    if kind == "alpha":
        return 0.25 + 0.1 * noise
    if kind in ("beta", "bias"):
        return 0.3 * noise if kind == "beta" else 0.1 * noise
    return variable.numpy()


def _kernel(layer: tf.keras.layers.Layer, kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return a kernel. Real-valued ones keep the variance of their input (He et al., Delving deep into rectifiers,
    2015, eq. 10); binary ones have another spread, and so another scale, in every channel."""
    values = rng.standard_normal(shape, np.float32)  # in place from here on: some kernels have 38 million values
    if kind == "kernel" and len(shape) == 4:
        values *= NOISE
        _add_mixture(values, np.sqrt(1 - NOISE**2), rng)
    if getattr(layer, "kernel_quantizer", None) is not None:
        values *= rng.uniform(0.2, 0.5, shape[-1]).astype(np.float32)
        return np.clip(values, -1, 1, out=values)
    fan_in = np.prod(shape[:-1]) if kind == "kernel" else np.prod(shape[:2])
    values *= np.float32(np.sqrt(2 / fan_in))
    return values


def _add_mixture(values: np.ndarray, deviation: float, rng: np.random.Generator) -> None:
    """Add to a kernel [k_h, k_w, c_in, c_out] what mixes the directions, in each tap a little otherwise.

    An image's colours, or few channels, have no directions: they are taken as they are.
    """
    *taps, c_in, c_out = values.shape
    inputs = _directions(c_in) if c_in >= PERIOD // 2 else np.eye(c_in) * np.sqrt(c_in)
    rank = inputs.shape[1]
    common = rng.standard_normal((rank, RANK))
    outputs = _directions(c_out).T * (deviation / np.sqrt(rank * RANK * (1 + OWN_TAP**2)))
    for tap in np.ndindex(*taps):
        mix = (common + OWN_TAP * rng.standard_normal((rank, RANK))) @ outputs
        for start in range(0, c_in, BLOCK):
            values[tap][start : start + BLOCK] += inputs[start : start + BLOCK] @ mix


def _directions(channels: int) -> np.ndarray:
    """Return how each channel is made of the directions, [channels, RANK]; the same in all layers."""
    table = np.random.default_rng(0).standard_normal((PERIOD, RANK))
    return table[np.arange(channels) % PERIOD]


def _set_head(head: tf.keras.layers.Layer, features: np.ndarray, classes: int, rng: np.random.Generator) -> None:
    """Set the classifier's weights. features: its inputs, [images, c_in]."""
    mean = features.mean(axis=0)
    own = features - mean
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    columns = rng.standard_normal((features.shape[1], classes))
    columns /= np.linalg.norm(columns, axis=0)
    chosen = rng.choice(classes, len(features), replace=False)
    columns[:, chosen] = OWN_CLASS * own.T + np.sqrt(1 - OWN_CLASS**2) * columns[:, chosen]
    columns -= np.outer(mean, mean @ columns / (mean @ mean))  # what all images share decides nothing
    rest = [weight.numpy() for weight in head.weights[1:]]
    head.set_weights([columns.reshape(head.kernel.shape), *rest])


# ----------------------------------------------------------------------------------------- statistics


@contextlib.contextmanager
def _batch_statistics(model: tf.keras.Model) -> Iterator[None]:
    """Let every batch norm that runs in training mode keep this batch's mean and variance, to about three digits.

    Rounded, since threads sum in any order and the same weights are wanted everywhere.
    """
    norms = [layer for layer in model.layers if isinstance(layer, tf.keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.moving_mean.assign(_rounded(norm.moving_mean.numpy()))
            norm.moving_variance.assign(_rounded(norm.moving_variance.numpy()))


def _pool_variances(tail: tf.keras.Model) -> None:
    """Give all classes of a batch norm behind the classifier one variance.

    Over few images a class that one of them wins has a large variance of its own, which would make all classes alike.
    """
    for norm in tail.layers:
        if isinstance(norm, tf.keras.layers.BatchNormalization):
            norm.moving_variance.assign(np.full(norm.moving_variance.shape, norm.moving_variance.numpy().mean()))


def _rounded(values: np.ndarray) -> np.ndarray:
    """Return the values with ten bits each."""
    fraction, exponent = np.frexp(values.astype(np.float64))
    return np.ldexp(np.rint(fraction * 1024) / 1024, exponent)
