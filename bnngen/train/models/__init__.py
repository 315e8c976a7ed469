# SPDX-License-Identifier: Apache-2.0
"""The backbones that `bnngen train` knows, as ordinary functional Keras models with Larq layers.

Every backbone takes float32 [N, H, W, C], x = (pixel - 128) / 128, and ends in a Dense layer named
`logits` and a softmax named `scores`. The export cuts there: scores are only for training.

Layer names are part of the contract: reports and error messages show them.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from bnngen.train.config import Form
from bnngen.train.models.binary_chain import binary_chain
from bnngen.train.models.parts import Parts, Shape
from bnngen.train.models.quicknet_nano import quicknet_nano
from bnngen.train.models.residual import birealnet18, reactnet18, reactnet_nano

# name -> a function (name, parts, shape, classes) that builds the model. The names: config.BACKBONE_NAMES.
BACKBONES: dict[str, Callable[[str, Parts, Shape, int], tf.keras.Model]] = {
    "quicknet-nano": quicknet_nano,
    "quicknet-nano-s": quicknet_nano,
    "quicknet-nano-l": quicknet_nano,
    "reactnet-nano": reactnet_nano,
    "reactnet-18": reactnet18,
    "birealnet-18": birealnet18,
    "binary-chain": binary_chain,
}

PLAIN = Form()


def build(name: str, shape: Shape, classes: int, form: Form = PLAIN, sync: bool = False) -> tf.keras.Model:
    """Build the backbone `name`.

    shape: [H, W, C] of the images; classes: outputs of the head; form: its width, input encoding, and whether it is
    binary; sync: batch norm over all replicas of the tf.distribute strategy in whose scope this is called.
    Raises DataError for images that are too small.
    """
    return BACKBONES[name](name, Parts(form, sync), shape, classes)
