# SPDX-License-Identifier: Apache-2.0
"""Real weights as int8 with one step per output channel; the scales of the input's channels fold into them.

Few-valued weights, all integer multiples of one step (binary, ternary, k-bit), are exactly those integers. Others are
rounded to 127 steps of the largest (docs/numerics.md, "Weights").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
WEIGHT_MAX = 127
SAME = 2.0**-21  # relative: what float32 loses where a multiple of the step is stored
BLOCK = 1 << 22  # weights at a time, so that a layer of millions does not need as many float64
PROBE = 16  # weights of each channel that most generic ones fail on


@dataclass(frozen=True)
class Quantized:
    """integers: int8, as the weights. unit: float64 [c_out], what an accumulator of 1 means. exact: bool [c_out]."""

    integers: Array
    unit: Array
    exact: Array


def quantize(weights: Array, groups: int, scales: Array) -> Quantized:
    """Return int8 weights [.., c_in / groups, c_out] that read integers of these scales, float64 [c_in]."""
    c_in, c_out = weights.shape[-2:]
    of_group = scales.reshape(groups, c_in)
    single = np.repeat((of_group == of_group[:, :1]).all(axis=1), c_out // groups)
    factor = np.repeat(of_group[:, 0], c_out // groups)  # of channels whose inputs have one scale
    integers, steps, exact = np.empty(weights.shape, np.int8), np.empty(c_out), np.empty(c_out, bool)
    block = max(1, BLOCK // max(1, weights[..., 0].size))
    for start in range(0, c_out, block):
        part = slice(start, start + block)
        values = weights[..., part]
        if not single[part].all():
            group = np.arange(c_out)[part] // (c_out // groups)
            values = np.where(single[part], values, values.astype(np.float64) * of_group[group].T)
        integers[..., part], steps[part], exact[part] = _block(values, single[part])
    return Quantized(integers, steps * np.where(single, factor, 1.0), exact)


def quantize_jointly(weights: Array, scales: Array) -> tuple[Array, float]:
    """Return int8 weights [c_in, c_out] and the one unit of all channels, for scores that must compare."""
    column = quantize(weights.reshape(1, -1, 1), 1, np.repeat(scales, weights.shape[1]))
    return column.integers.reshape(weights.shape), float(column.unit[0])


def _block(values: Array, allowed: Array) -> tuple[Array, Array, Array]:
    """Return integers, steps, and which channels are few-valued; only allowed ones can be."""
    axes = tuple(range(values.ndim - 1))
    size = np.abs(values)
    reach = size.max(axis=axes).astype(np.float64)
    if allowed.all() and (reach > 0).all() and ((size == reach.astype(size.dtype)) | (size == 0)).all():
        return np.sign(values).astype(np.int8), reach, np.ones(len(reach), bool)  # binary and ternary: large layers
    step = np.where(reach > 0, reach, 1.0) / WEIGHT_MAX
    few = common_step(values.reshape(-1, values.shape[-1])) * allowed
    step = np.where(few > 0, few, step)
    return np.rint(values / step).astype(np.int8), step, (few > 0) | (reach == 0)


def common_step(weights: Array) -> Array:
    """Return for each column of [n, C] the largest step that divides all its weights, at most 127 times; 0 for none."""
    size = np.abs(weights).astype(np.float64)
    largest = size.max(axis=0)
    smallest = np.where(size > 0, size, np.inf).min(axis=0)
    step = np.zeros(weights.shape[1])
    todo = np.flatnonzero(largest > 0)
    for parts in range(1, WEIGHT_MAX + 1):
        todo = todo[largest[todo] * parts <= (WEIGHT_MAX + 0.5) * smallest[todo]]
        if not len(todo):
            break
        trial = smallest[todo] / parts
        likely = _multiples(size[:PROBE, todo], trial)
        hits = np.flatnonzero(likely)
        hits = hits[_multiples(size[:, todo[hits]], trial[hits])]
        step[todo[hits]] = trial[hits]
        todo = np.delete(todo, hits)
    return step


def _multiples(size: Array, step: Array) -> Array:
    ratio = size / step
    return (np.abs(ratio - np.rint(ratio)) <= ratio * SAME).all(axis=0)
