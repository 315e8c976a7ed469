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
Features = Callable[[Array], Array]


def compare_methods(
    graph: ir.Graph,
    config: LearnConfig,
    experiences: Sequence[Experience],
    test: tuple[Array, Array],
    seed: int,
    features: Features,
    progress: Progress,
) -> Comparison:
    """Return, for each method, the accuracy over the classes seen after every experience.

    features: uint8 image [H, W, C] -> feature stream integers [D]; a running target computes them.
    """
    path = LatentPath(graph)
    total = sum(len(e.labels) for e in experiences) + len(test[1])
    done = 0

    def real(images: Array) -> Array:
        nonlocal done
        rows = []
        for image in images:
            rows.append(features(image))
            done += 1
            progress("features for the comparison", done, total)
        return np.stack(rows).astype(np.float32) * np.float32(path.feature_scale)

    stream = [replace(e, images=real(e.images)) for e in experiences]
    tested = (real(test[0]), test[1])
    curves, compared = {}, methods(graph, config, path, seed)
    for number, (name, method) in enumerate(compared.items()):
        progress("comparison", number, len(compared))
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
