# SPDX-License-Identifier: Apache-2.0
"""Small Larq networks that together have what the published ones have, and tf2onnx's files of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import larq
import numpy as np
import pytest
import tensorflow as tf

from tests.foreign.route import CLASSES, SHAPE

layers = tf.keras.layers
BINARY = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}


def conv(filters: int, kernel: int = 3, **options: object) -> tf.keras.layers.Layer:
    return larq.layers.QuantConv2D(filters, kernel, **{"use_bias": False, "padding": "same", **BINARY, **options})


def norm(x: tf.Tensor) -> tf.Tensor:
    return layers.BatchNormalization()(x)


def stem(x: tf.Tensor, filters: int = 16, **options: object) -> tf.Tensor:
    return norm(layers.Conv2D(filters, 3, padding="same", use_bias=False, **options)(x))


def head(x: tf.Tensor) -> tf.Tensor:
    return layers.Dense(CLASSES, activation="softmax")(layers.GlobalAveragePooling2D()(x))


def quicknet(x: tf.Tensor) -> tf.Tensor:
    """Padding with one, relu between convolution and batch norm, blur pool, average pool and Flatten as head."""
    x = layers.DepthwiseConv2D(3, 2, padding="same", use_bias=False)(layers.Activation("relu")(stem(x, 8)))
    x = norm(layers.Conv2D(32, 1, use_bias=False)(norm(x)))
    for _ in range(2):
        x = x + norm(conv(32, pad_values=1.0, activation="relu")(x))
    x = layers.MaxPool2D(2, 1)(layers.Activation("relu")(x))
    x = norm(layers.Conv2D(40, 1, use_bias=False)(layers.DepthwiseConv2D(3, 2, padding="same", use_bias=False)(x)))
    x = layers.AveragePooling2D(3)(layers.Activation("relu")(x))
    return layers.Activation("softmax")(layers.Dense(CLASSES)(layers.Flatten()(x)))


def bireal(x: tf.Tensor) -> tf.Tensor:
    """Padding with zero, stride 2 (more padding behind than before), kernel scales, a real-valued shortcut."""
    x = layers.MaxPool2D(3, 2, padding="same")(stem(x))
    scaled = {"input_quantizer": "approx_sign", "kernel_quantizer": "magnitude_aware_sign"}
    x = layers.add([x, norm(conv(16, **scaled)(x))])
    shortcut = norm(layers.Conv2D(32, 1, use_bias=False)(layers.AveragePooling2D(2)(x)))
    return head(layers.add([shortcut, norm(conv(32, strides=2, **scaled)(x))]))


def split(x: tf.Tensor, groups: int, make: Callable[[], tf.keras.layers.Layer]) -> tf.Tensor:
    """A convolution in groups, as the published models spell it (tf2onnx cannot convert groups of Keras)."""
    return tf.concat([make()(part) for part in tf.split(x, groups, axis=-1)], axis=-1)


def real_to_binary(x: tf.Tensor) -> tf.Tensor:
    """Batch norm in front of the sign, PReLU, squeeze and excite."""
    x = layers.PReLU(shared_axes=[1, 2])(stem(x, strides=2))
    for _ in range(2):
        y = norm(x)
        gate = layers.Dense(4, activation="relu", use_bias=False)(layers.GlobalAveragePooling2D()(y))
        gate = layers.Reshape((1, 1, 16))(layers.Dense(16, activation="sigmoid")(gate))
        x = layers.add([layers.PReLU(shared_axes=[1, 2])(conv(16)(y) * gate), x])
    return head(x)


def melius(x: tf.Tensor) -> tf.Tensor:
    """A stem in groups, concatenation, an addition to some channels only."""
    x = layers.Activation("relu")(stem(x))
    x = norm(split(x, 4, lambda: layers.Conv2D(4, 3, padding="same", use_bias=False)))
    x = layers.concatenate([x, conv(8)(norm(x))])
    y = conv(8)(norm(x))
    return head(x + tf.pad(y, [[0, 0], [0, 0], [0, 0], [16, 0]]))


def dorefa(x: tf.Tensor) -> tf.Tensor:
    """Two-bit inputs, three bits in front of a dense layer over a flattened map, a clip."""
    two, three = (larq.quantizers.DoReFa(k_bit=k, mode="activations") for k in (2, 3))
    kernel = {"kernel_quantizer": larq.quantizers.DoReFa(k_bit=1, mode="weights"), "kernel_constraint": None}
    x = layers.MaxPool2D(2)(norm(conv(16, input_quantizer=two, **kernel)(stem(x, 8))))
    x = larq.layers.QuantDense(24, input_quantizer=three, use_bias=False, **kernel)(layers.Flatten()(x))
    x = layers.Activation(lambda value: tf.clip_by_value(value, 0.0, 1.0))(norm(x))
    return layers.Dense(CLASSES)(x)


def alexnet(x: tf.Tensor) -> tf.Tensor:
    """Binary weights on the image, pools in front of batch norm, dense layers as 1x1, no dense layer at the end."""
    x = conv(16, 5, strides=2, input_quantizer=None)(x)
    x = norm(layers.MaxPool2D(3, 2)(x))
    x = layers.Reshape((1, 1, -1))(norm(conv(16)(x)))
    x = norm(conv(32, 1, padding="valid")(x))
    return layers.Activation("softmax")(layers.Flatten()(norm(conv(CLASSES, 1, padding="valid")(x))))


def xnor(x: tf.Tensor) -> tf.Tensor:
    """Kernel scales, a window over the whole map, a binary dense layer over a flattened one."""
    scaled = {"kernel_quantizer": "magnitude_aware_sign"}
    x = layers.MaxPool2D(2)(conv(32, 3, **scaled)(norm(layers.Activation("relu")(stem(x, 16, strides=2)))))
    y = norm(conv(16, 3, padding="valid", **scaled)(norm(x)))
    z = larq.layers.QuantDense(16, use_bias=False, **BINARY)(layers.Flatten()(norm(x)))
    return layers.Dense(CLASSES)(layers.concatenate([layers.Flatten()(y), layers.Activation("relu")(norm(z))]))


def windows(x: tf.Tensor) -> tf.Tensor:
    """Zeros around a map in front of the sign (they become +1), dilation, groups and depthwise, binary."""
    x = layers.ZeroPadding2D(1)(stem(x))
    x = norm(conv(16, padding="valid")(x))
    x = norm(conv(16, dilation_rate=2, pad_values=1.0)(x))
    x = norm(split(x, 2, lambda: conv(16)))
    depthwise = {"input_quantizer": "ste_sign", "depthwise_quantizer": "ste_sign", "use_bias": False}
    x = norm(larq.layers.QuantDepthwiseConv2D(3, padding="same", **depthwise)(x))
    return head(larq.layers.QuantConv2D(24, 3, strides=2, use_bias=True, pad_values=1.0, padding="same", **BINARY)(x))


def quantizers(x: tf.Tensor) -> tf.Tensor:
    """Ternary, heaviside and swish signs, a ternary kernel, a sign in front of a pool."""
    x = stem(x)
    x = norm(conv(16, input_quantizer="ste_tern")(x))
    x = norm(conv(16, input_quantizer="ste_heaviside", kernel_quantizer="ste_sign")(x))
    x = layers.MaxPool2D(2)(larq.quantizers.SwishSign()(x))
    return head(norm(conv(24, input_quantizer=None, kernel_quantizer="ste_tern")(x)))


def functions(x: tf.Tensor) -> tf.Tensor:
    """Swish, leaky ReLU, relu6, hard tanh, hard sigmoid, tanh, elu; a difference and a maximum over the map."""
    x = layers.LeakyReLU(0.3)(stem(x))
    x = tf.nn.relu6(tf.nn.swish(norm(conv(16)(x))))
    y = layers.Activation("tanh")(x) - tf.keras.activations.hard_sigmoid(norm(conv(16)(x)) * 0.1)
    z = larq.activations.hard_tanh(layers.Activation("elu")(norm(conv(16)(y))))
    return layers.Dense(CLASSES)(layers.concatenate([layers.GlobalMaxPooling2D()(z), layers.GlobalAvgPool2D()(y)]))


def sequence(x: tf.Tensor) -> tf.Tensor:
    """One-dimensional layers."""
    options = {"use_bias": False, "padding": "same", **BINARY}
    x = norm(layers.Conv1D(16, 3, padding="same", use_bias=False)(x))
    x = layers.MaxPool1D(2)(norm(larq.layers.QuantConv1D(32, 5, pad_values=1.0, **options)(x)))
    x = norm(larq.layers.QuantConv1D(16, 3, strides=2, **options)(x))
    return layers.Dense(CLASSES)(layers.Flatten()(x))


EVERY = (quicknet, bireal, real_to_binary, melius, dorefa, alexnet, xnor, windows, quantizers, functions, sequence)
NETWORKS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {function.__name__: function for function in EVERY}


def build(name: str, seed: int = 3) -> tf.keras.Model:
    """Return a network with weights of usual sizes; some batch norms turn signs."""
    tf.keras.backend.clear_session()
    x = tf.keras.Input((24, 3) if name == "sequence" else SHAPE, name="pixels")
    model = tf.keras.Model(x, NETWORKS[name](x), name=name)
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for weight in layer.weights:
            kind, shape = weight.name.rsplit("/", 1)[-1].split(":")[0], tuple(weight.shape)
            if kind == "moving_variance":
                weight.assign(rng.uniform(0.5, 2, shape))
            elif kind == "gamma":
                weight.assign(rng.uniform(0.5, 2, shape) * rng.choice([-1, 1, 1], shape))
            elif kind in ("beta", "moving_mean", "bias"):
                weight.assign(rng.normal(0, 0.5, shape))
            elif kind == "alpha":
                weight.assign(rng.uniform(-0.2, 0.5, shape))
            else:
                weight.assign(rng.uniform(-1, 1, shape))
    return model


def convert(model: tf.keras.Model, path: Path, *, channels_first: bool = False, batch: int | None = None) -> Path:
    """Write tf2onnx's file of a model; skip where tf2onnx is not installed (CI: fail)."""
    try:
        import tf2onnx
    except ImportError:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("tf2onnx is not installed (pip install bnngen[dev])")
    signature = [tf.TensorSpec((batch, *model.input_shape[1:]), tf.float32, name="pixels")]
    first = ["pixels"] if channels_first else None
    tf2onnx.convert.from_keras(model, signature, opset=17, inputs_as_nchw=first, output_path=str(path))
    return path
