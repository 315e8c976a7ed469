# SPDX-License-Identifier: Apache-2.0
"""What the backbones have in common: input, stem, binary convolution, batch norm, head, and their float twins.

A backbone is built by one function for both of its forms. `Parts` makes the pieces: with quantizers, or for a float
teacher without them. Layers are named, since messages and `--cut` speak of those names; quantizers are named too,
because Keras would number them through the process and equal models would differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import larq
import tensorflow as tf

from bnngen.errors import DataError
from bnngen.train.config import Form
from bnngen.train.layers import BitPlanes, Thermometer
from bnngen.train.sync import SyncBatchNormalization

layers = tf.keras.layers
Shape = tuple[int, int, int]

CHANNEL_STEP = 8  # widths are rounded to a multiple of it
SIGNS = {"ste": larq.quantizers.SteSign, "approx": larq.quantizers.ApproxSign,
         "magnitude": larq.quantizers.MagnitudeAwareSign}
ENCODINGS = {"thermometer": Thermometer, "bitplanes": BitPlanes}


@dataclass(frozen=True)
class Signs:
    """Names in SIGNS of a binary convolution's two quantizers, and whether its float twin has a ReLU in front.

    It has one where the sign is the only thing between two convolutions that is not linear.
    """

    inputs: str = "ste"
    kernel: str = "ste"
    relu: bool = True


class Parts:
    """Makes a backbone's layers in one form. sync: batch norm over all replicas of a tf.distribute strategy."""

    def __init__(self, form: Form, sync: bool = False) -> None:
        self.form = form
        self._batch_norm = SyncBatchNormalization if sync else layers.BatchNormalization

    def filters(self, count: int) -> int:
        """Return the number of channels at the form's width: rounded to a multiple of 8, at least 8."""
        return max(CHANNEL_STEP, CHANNEL_STEP * round(count * self.form.width / CHANNEL_STEP))

    def stem(self, image: tf.Tensor, filters: int, stride: int) -> tf.Tensor:
        """3x3 convolution of the image and batch norm, without ReLU: what follows takes the sign of this tensor.

        Real-valued, or, behind an input encoding, binary.
        """
        encoding = ENCODINGS.get(self.form.input_encoding)
        x = encoding(name="input_code")(image) if encoding else image
        if encoding and not self.form.float_weights:
            x = self._quantized(filters, "stem_conv", None, "ste", strides=stride, pad_values=1.0)(x)
        else:
            x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False, name="stem_conv")(x)
        return self.batch_norm(x, "stem_bn")

    def conv(self, x: tf.Tensor, filters: int, name: str, signs: Signs, **options: object) -> tf.Tensor:
        """3x3 convolution of signs with signs, without bias; for a float teacher a real-valued one."""
        if not self.form.float_weights:
            return self._quantized(filters, name, signs.inputs, signs.kernel, **options)(x)
        options.pop("pad_values", None)
        if signs.relu:
            x = layers.ReLU(name=f"{name}_relu")(x)
        return layers.Conv2D(filters, 3, padding="same", use_bias=False, name=name, **options)(x)

    def batch_norm(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """Batch norm of the last axis."""
        return self._batch_norm(momentum=0.9, epsilon=1e-5, name=name)(x)

    def pointwise(self, x: tf.Tensor, filters: int, name: str) -> tf.Tensor:
        """Real-valued 1x1 convolution and batch norm: how a shortcut, or a stage, becomes wider."""
        x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_conv")(x)
        return self.batch_norm(x, f"{name}_bn")

    def head(self, image: tf.Tensor, x: tf.Tensor, classes: int, name: str) -> tf.keras.Model:
        """Global average, dense layer and softmax; the last two compute in float32 under every policy."""
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = layers.Dense(classes, name="logits", dtype="float32")(x)
        scores = layers.Softmax(name="scores", dtype="float32")(x)
        return tf.keras.Model(image, scores, name=name.replace("-", "_"))

    @staticmethod
    def _quantized(filters: int, name: str, inputs: str | None, kernel: str, **options: object) -> layers.Layer:
        """The latent weights are clipped to [-1, 1], where the straight-through estimator passes a gradient."""
        return larq.layers.QuantConv2D(filters, 3, padding="same", use_bias=False, name=name,
                                       input_quantizer=inputs and SIGNS[inputs](name="input_sign"),
                                       kernel_quantizer=SIGNS[kernel](name="kernel_sign"),
                                       kernel_constraint="weight_clip", **options)


def require_side(shape: Shape, least: int, name: str, halvings: str) -> None:
    """Raise DataError for images that a backbone's halvings would use up."""
    if min(shape[:2]) < least:
        raise DataError(f"images of {shape[0]} x {shape[1]} are too small for {name}", where="--data",
                        why=f"{halvings} halve them: it needs {least} x {least}", fix="train binary-chain instead")
