# SPDX-License-Identifier: Apache-2.0
"""The methods that a session on the target is held against, on the same features of the same images.

Features are those that the device's integer backbone computes, as real numbers; the methods themselves run
in floating point on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from bnngen import ir
from bnngen.continual.baselines import CwrReplay, Joint, Levels, Method, NearestMean, PlainSgd, run_method
from bnngen.continual.mirror import LatentPath
from bnngen.continual.stream import Experience
from bnngen.lower.learning import LearnConfig

Array = np.ndarray
Comparison = dict[str, list[float]]
Progress = Callable[[str, int, int], None]
CHUNK = 512


def compare_methods(
    graph: ir.Graph,
    config: LearnConfig,
    experiences: Sequence[Experience],
    test: tuple[Array, Array],
    seed: int,
    progress: Progress,
) -> Comparison:
    """Return, for each method, the accuracy over the classes seen after every experience."""
    path = LatentPath(graph)
    total = sum(len(e.labels) for e in experiences) + len(test[1])
    done = 0

    def features(images: Array) -> Array:
        nonlocal done
        parts = []
        for start in range(0, len(images), CHUNK):
            parts.append(path.features(images[start : start + CHUNK]) * np.float32(path.feature_scale))
            done += len(parts[-1])
            progress("features for the comparison", done, total)
        return np.concatenate(parts).astype(np.float32)

    stream = [replace(e, images=features(e.images)) for e in experiences]
    tested = (features(test[0]), test[1])
    curves = {}
    for name, method in methods(graph, config, path, seed).items():
        progress(name, 1, 1)
        history = run_method(method, stream, tested)
        curves[name] = [history.accuracy_seen(after) for after in range(len(stream))]
    return curves


def methods(graph: ir.Graph, config: LearnConfig, path: LatentPath, seed: int) -> dict[str, Method]:
    """Return the methods by name. 1-bit latents appear only where the cut is the feature tensor itself."""
    assert graph.meta.head is not None and graph.meta.latent is not None
    capacity, size = config.capacity or graph.meta.head.capacity, path.sizes[0]
    found: dict[str, Method] = {"CWR* float32, float latents": CwrReplay(capacity, size, config, None, seed)}
    if graph.meta.latent.tensor == graph.meta.head.tensor:
        latent = graph.meta.latent
        levels = Levels(*(np.array(v, np.float32) for v in (latent.threshold, latent.low, latent.high)))
        found["CWR* float32, 1-bit latents"] = CwrReplay(capacity, size, config, levels, seed)
    return found | {
        "plain SGD, no CWR*, no replay": PlainSgd(capacity, size, config, seed),
        "nearest class mean": NearestMean(capacity, size),
        "all data at once (softmax regression)": Joint(capacity),
    }
