# SPDX-License-Identifier: Apache-2.0
"""Features for heads_tuning.py: `python docs/studies/heads_features.py PROGRAM MODEL.onnx CIFAR100.npz OUT.npz`.

PROGRAM is what `bnngen build MODEL.onnx --target host` compiled: it computes the features, in integers. 100 training
images of each class 0 to 79 are the pre-training set; all training images of classes 80 to 99 are the stream.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from bnngen.continual.mirror import LatentPath
from bnngen.device.client import DeviceClient
from bnngen.device.session import open_pipe
from bnngen.pipeline import BuildOptions, compile_model
from bnngen.targets import load_target

PRETRAINING, CLASSES, PER_CLASS = 80, 100, 100


def main(program: str, model: str, data: str, out: str) -> None:
    """Write OUT.npz."""
    graph = compile_model(Path(model), load_target("host"), BuildOptions()).graph
    latent, scale = graph.meta.latent, np.float32(LatentPath(graph).feature_scale)
    with np.load(data) as file:
        images, labels = file["x_train"], file["y_train"].astype(int)
    known = np.concatenate([np.flatnonzero(labels == c)[:PER_CLASS] for c in range(PRETRAINING)])
    stream = np.concatenate([np.flatnonzero(labels == c) for c in range(PRETRAINING, CLASSES)])
    with DeviceClient(open_pipe([str(Path(program).absolute())], Path(program).name)) as client:
        features = [np.stack([client.features(images[i]) for i in places]) for places in (known, stream)]
    pretraining, x = (values.astype(np.float32) * scale for values in features)
    levels = {"threshold": latent.threshold, "low": latent.low, "high": latent.high}
    np.savez(out, pretraining=pretraining, pretraining_labels=labels[known], x=x, y=labels[stream], **levels)


if __name__ == "__main__":
    main(*sys.argv[1:])
