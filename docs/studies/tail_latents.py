# SPDX-License-Identifier: Apache-2.0
"""What docs/studies/tail_float.py learns from: cut tensors of a backbone, and what packing makes of them."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
STREAMED, HELD_OUT, CALIBRATION = range(80, 100), 100, 4000


def cut(model_path: str, data_path: str, out: str) -> None:
    """Write the tensors in front of the last two blocks, and the blocks' parameters."""
    import larq  # noqa: F401  (registers its layers)
    import tensorflow as tf

    import bnngen.train.layers  # noqa: F401

    model, data = tf.keras.models.load_model(model_path, compile=False), np.load(data_path)
    x, y = data["x_train"], data["y_train"].ravel().astype(np.int64)
    names = ("transition2_bn", "stage3_block1_add")
    probe = tf.keras.Model(model.input, [model.get_layer(name).output for name in (*names, "pool")])
    found: dict[str, Array] = {}
    calibration = np.random.default_rng(0).permutation(np.flatnonzero(y < STREAMED[0]))[:CALIBRATION]
    parts = [np.flatnonzero(y == c) for c in STREAMED]
    fit, held = (np.concatenate([p[s] for p in parts]) for s in (slice(None, -HELD_OUT), slice(-HELD_OUT, None)))
    for part, rows in (("fit", fit), ("val", held), ("cal", calibration)):
        images = x[rows].astype(np.float32) / 128 - 1
        found[f"y_{part}"] = y[rows] - STREAMED[0]
        for depth, value in zip((2, 1, 0), probe.predict(images, batch_size=250, verbose=0), strict=True):
            found[f"x{depth}_{part}"] = value.astype(np.float32)
    for i in (1, 2):
        kernel = model.get_layer(f"stage3_block{i}_conv").get_weights()[0]
        found[f"kernel{3 - i}"] = kernel.reshape(-1, kernel.shape[-1])
        for name, value in zip("gbmv", model.get_layer(f"stage3_block{i}_bn").get_weights(), strict=True):
            found[f"{name}{3 - i}"] = value
    np.savez(out, **found)


def levels(x: Array, kind: str) -> tuple[Array, Array] | None:
    """Return (thresholds [C, k - 1], values [C, k]) of packed latents from calibration maps [N, H, W, C].

    sign: 0 and the means on either side. mean: the mean. lloyd: best two levels. alpha: 0 and +-mean|x|.
    shared: as sign, one pair for all channels. 2bit, 4bit: 0 and quantiles. float: no packing.
    """
    if kind == "float":
        return None
    v = x.reshape(-1, x.shape[-1])
    if kind == "alpha":
        a = np.abs(v).mean(axis=0)
        return np.zeros((len(a), 1), np.float32), np.stack([-a, a], 1)
    if kind in ("2bit", "4bit"):
        return _many_levels(v, int(kind[0]))
    t = v.mean(axis=0) if kind in ("mean", "lloyd") else np.zeros(v.shape[1], np.float32)
    for _ in range(8 if kind == "lloyd" else 1):
        low, high = _conditional(v, t)
        t = (low + high) / 2 if kind == "lloyd" else t
    if kind == "shared":
        low[:], high[:] = v[v < 0].mean(), v[v >= 0].mean()
    return t[:, None], np.stack([low, high], 1)


def _conditional(v: Array, t: Array) -> tuple[Array, Array]:
    above = v >= t
    n = above.sum(axis=0)
    high, low = (v * above).sum(axis=0), (v * ~above).sum(axis=0)
    return low / np.maximum(len(v) - n, 1), high / np.maximum(n, 1)


def _many_levels(v: Array, bits: int) -> tuple[Array, Array]:
    """0 and quantiles of each side, so that the sign that the convolution reads is kept."""
    each, thresholds, values = 2 ** (bits - 1), [], []
    for column in v.T:
        sides = [np.sort(column[column < 0]), np.sort(column[column >= 0])]
        pieces = [p for side in sides for p in np.array_split(side if len(side) else np.zeros(each, v.dtype), each)]
        centres = np.array([p.mean() if len(p) else 0.0 for p in pieces])
        borders = (centres[1:] + centres[:-1]) / 2
        borders[each - 1] = 0.0
        thresholds.append(borders)
        values.append(centres)
    return np.array(thresholds, np.float32), np.array(values, np.float32)


def packed(x: Array, how: tuple[Array, Array] | None) -> Array:
    """Return what replay makes of maps [N, H, W, C]."""
    if how is None:
        return x
    thresholds, values = how
    index = np.zeros(x.shape, np.intp)
    for k in range(thresholds.shape[1]):
        index += x >= thresholds[:, k]
    return values[np.arange(x.shape[-1]), index].astype(np.float32)
