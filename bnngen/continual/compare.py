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
from bnngen.continual.methods import METHODS, Levels, Method, MethodSetting, Tuning, run_method
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
    capacity, latent = config.capacity or graph.meta.head.capacity, graph.meta.latent
    floats = MethodSetting(capacity, path.sizes[0], config=config, tuning=Tuning(bits=32, root=False), seed=seed)
    found: dict[str, Method] = {"CWR* float32, float latents": METHODS["cwr-replay"](floats)}
    if latent.tensor == graph.meta.head.tensor:
        levels = Levels.one_bit(*(np.array(v) for v in (latent.threshold, latent.low, latent.high)))
        setting = replace(floats, levels=levels, tuning=Tuning(bits=1))
        found["CWR* float32, 1-bit latents"] = METHODS["cwr-replay"](setting)
    return found | {
        "plain SGD, no CWR*, no replay": METHODS["naive"](floats),
        "nearest class mean": METHODS["nearest-mean"](floats),
        "all data at once (softmax regression)": METHODS["joint"](floats),
    }
