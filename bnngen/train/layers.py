# SPDX-License-Identifier: Apache-2.0
"""Keras layers that binary networks use and Larq does not have: learned shifts and slopes, input encodings.

All work on the last axis, and keep what the export reads in plain attributes: variables of shape [C] for what is
learned, `source` and `value` for the encodings.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from bnngen.train.config import INPUT_OFFSET, INPUT_SCALE

PIXEL_BITS = 8
LEVELS = 8  # thresholds of a thermometer where none are chosen
SLOPE = 0.25  # where a learned slope starts, as in He et al., ICCV 2015

_registered = tf.keras.utils.register_keras_serializable(package="bnngen")


class _PerChannel(tf.keras.layers.Layer):
    """A layer whose weights are vectors with one entry a channel."""

    def _vector(self, input_shape: tf.TensorShape, name: str, start: float) -> tf.Variable:
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(f"{self.name}: the number of channels must be known")
        initializer = tf.keras.initializers.Constant(start)
        return self.add_weight(name=name, shape=(channels,), initializer=initializer, dtype=self.variable_dtype)


@_registered
class LearnedShift(_PerChannel):
    """x + shift[c]. Before a sign it is ReActNet's RSign (Liu et al., ECCV 2020, equation 3)."""

    def build(self, input_shape: tf.TensorShape) -> None:
        """Make `shift`, float32 [C]."""
        self.shift = self._vector(input_shape, "shift", 0.0)
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """x: [..., C]."""
        return x + self.shift


@_registered
class RPReLU(_PerChannel):
    """prelu(x + before[c]) + after[c], a PReLU whose knee is moved (Liu et al., ECCV 2020, equation 4).

    The paper subtracts its first shift: before = -gamma, after = zeta.
    """

    def build(self, input_shape: tf.TensorShape) -> None:
        """Make `before`, `slope` and `after`, float32 [C]."""
        self.before = self._vector(input_shape, "before", 0.0)
        self.slope = self._vector(input_shape, "slope", SLOPE)
        self.after = self._vector(input_shape, "after", 0.0)
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """x: [..., C]."""
        moved = x + self.before
        return tf.where(moved < 0, moved * self.slope, moved) + self.after


@_registered
class DPReLU(_PerChannel):
    """x * negative[c] where x < 0, x * positive[c] elsewhere: both slopes are learned."""

    def build(self, input_shape: tf.TensorShape) -> None:
        """Make `negative` and `positive`, float32 [C]."""
        self.negative = self._vector(input_shape, "negative", SLOPE)
        self.positive = self._vector(input_shape, "positive", 1.0)
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """x: [..., C]."""
        return x * tf.where(x < 0, self.negative, self.positive)


class _Encoding(tf.keras.layers.Layer):
    """Scaled image [N, H, W, C] to +1 and -1 [N, H, W, C * k]; the k channels of an image channel stand together.

    scale, offset: the image is scale * pixel + offset, pixel in 0..255, from which the pixel is recovered by rounding.
    Output channel c reads image channel source[c] and compares it with, or takes bit, value[c]: int64 arrays
    that are there once the layer is built. No gradient goes back to the image.
    """

    def __init__(self, scale: float = INPUT_SCALE, offset: float = INPUT_OFFSET, **options: object) -> None:
        super().__init__(autocast=False, **options)  # 16 bits may not tell 256 pixel values apart
        if not (np.isfinite([scale, offset]).all() and scale > 0):
            raise ValueError(f"{self.name}: scale {scale} must be positive, offset {offset} finite")
        self.scale = float(scale)
        self.offset = float(offset)

    def values(self) -> list[int]:
        """Return what one image channel is compared with, in the order of the output channels."""
        raise NotImplementedError

    def build(self, input_shape: tf.TensorShape) -> None:
        """Set `source` and `value`, int64 [C * k]."""
        channels, values = input_shape[-1], self.values()
        if channels is None:
            raise ValueError(f"{self.name}: the number of channels must be known")
        self.source = np.repeat(np.arange(channels, dtype=np.int64), len(values))
        self.value = np.tile(np.asarray(values, dtype=np.int64), channels)
        super().build(input_shape)

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        """[N, H, W, C] -> [N, H, W, C * k]."""
        *outer, channels = tf.TensorShape(input_shape).as_list()
        return tf.TensorShape([*outer, channels * len(self.values())])

    def get_config(self) -> dict[str, object]:
        """Return what the layer is made from."""
        return super().get_config() | {"scale": self.scale, "offset": self.offset}

    def _pixels(self, x: tf.Tensor) -> tf.Tensor:
        """Return int32 [N, H, W, C * k]: for every output channel the pixel that it reads."""
        pixel = tf.cast(tf.round((tf.cast(x, tf.float32) - self.offset) / self.scale), tf.int32)
        return tf.gather(pixel, self.source, axis=-1)

    def _signs(self, plus: tf.Tensor) -> tf.Tensor:
        return tf.where(plus, tf.ones((), self.compute_dtype), -tf.ones((), self.compute_dtype))


@_registered
class Thermometer(_Encoding):
    """+1 where pixel >= value[c], for `levels` evenly spaced values of each image channel, ascending.

    Value i of n is round(256 * (i + 1) / (n + 1)), so that n + 1 intervals of one length remain.
    """

    def __init__(self, levels: int = LEVELS, **options: object) -> None:
        super().__init__(**options)
        if not 1 <= levels <= 2**PIXEL_BITS - 1:
            raise ValueError(f"{self.name}: {levels} levels, 1 to {2**PIXEL_BITS - 1} are possible")
        self.levels = int(levels)

    def values(self) -> list[int]:
        """Return the thresholds of one channel, ascending, each in 1..255."""
        return [round(2**PIXEL_BITS * (i + 1) / (self.levels + 1)) for i in range(self.levels)]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """x: [N, H, W, C], scaled."""
        return self._signs(self._pixels(x) >= tf.constant(self.value, tf.int32))

    def get_config(self) -> dict[str, object]:
        """Return what the layer is made from."""
        return super().get_config() | {"levels": self.levels}


@_registered
class BitPlanes(_Encoding):
    """+1 where bit value[c] of the pixel is 1, for the `bits` highest bits of each image channel, highest first."""

    def __init__(self, bits: int = PIXEL_BITS, **options: object) -> None:
        super().__init__(**options)
        if not 1 <= bits <= PIXEL_BITS:
            raise ValueError(f"{self.name}: {bits} bits, a pixel has {PIXEL_BITS}")
        self.bits = int(bits)

    def values(self) -> list[int]:
        """Return the bit numbers of one channel, descending; 7 is the highest."""
        return [PIXEL_BITS - 1 - i for i in range(self.bits)]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """x: [N, H, W, C], scaled."""
        shifted = tf.bitwise.right_shift(self._pixels(x), tf.constant(self.value, tf.int32))
        return self._signs(tf.bitwise.bitwise_and(shifted, 1) == 1)

    def get_config(self) -> dict[str, object]:
        """Return what the layer is made from."""
        return super().get_config() | {"bits": self.bits}
