# SPDX-License-Identifier: Apache-2.0
"""Random small Keras networks: a recipe of blocks drawn by hypothesis, and the model that it describes.

A recipe is plain data, so that a failing one can be read and pasted. Blocks take a map and give a map; sizes are
chosen so that every block fits behind every other one.
"""

from __future__ import annotations

import larq
import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

layers = tf.keras.layers
CLASSES = 3
Recipe = dict[str, object]

SIGNS = st.sampled_from(["ste_sign", "approx_sign", "swish_sign"])
INPUT_QUANTIZERS = st.one_of(SIGNS, st.sampled_from([None, "ste_heaviside", "dorefa_quantizer"]))
KERNEL_QUANTIZERS = st.one_of(SIGNS, st.sampled_from([None, "magnitude_aware_sign", "ste_tern", "dorefa_weights"]))
CHANNELS = st.sampled_from([1, 3, 4, 31, 32, 33, 40])
PADDINGS = st.sampled_from([("valid", 0.0), ("same", 0.0), ("same", 1.0)])
ACTIVATIONS = ["relu", "relu6", "prelu", "leaky", "sigmoid", "tanh", "hard_tanh", "shift"]


def _conv() -> st.SearchStrategy[Recipe]:
    return st.fixed_dictionaries(
        {
            "block": st.just("conv"),
            "channels": CHANNELS,
            "kernel": st.tuples(st.integers(1, 4), st.integers(1, 4)),
            "stride": st.sampled_from([1, 1, 2]),
            "dilation": st.sampled_from([1, 1, 2]),
            "padding": PADDINGS,
            "input": INPUT_QUANTIZERS,
            "kernel_quantizer": KERNEL_QUANTIZERS,
            "activation": st.sampled_from([None, None, "relu"]),
            "bias": st.booleans(),
        }
    )


def _small(block: str, **fields: st.SearchStrategy) -> st.SearchStrategy[Recipe]:
    return st.fixed_dictionaries({"block": st.just(block), **fields})


BLOCKS = st.one_of(
    _conv(),
    _conv(),
    _small("norm"),
    _small("activation", kind=st.sampled_from(ACTIVATIONS)),
    _small("pool", kind=st.sampled_from(["max", "average"]), padding=st.sampled_from(["valid", "same"]),
           signed=st.booleans()),
    _small("residual", kernel=st.sampled_from([1, 3]), padding=st.sampled_from([0.0, 1.0])),
    _small("dense_growth", channels=CHANNELS),
    _small("squeeze_excite"),
    _small("depthwise", binary=st.booleans(), multiplier=st.sampled_from([1, 2])),
    _small("separable", quantizer=st.sampled_from([None, "ste_sign"])),
    _small("grouped", groups=st.sampled_from([2, 3]), each=st.integers(1, 5)),
    _small("pad_channels", before=st.integers(0, 2), after=st.integers(1, 3)),
    _small("slice", first=st.integers(0, 3), step=st.sampled_from([1, 2])),
    _small("split", swap=st.booleans()),
    _small("shuffle", groups=st.sampled_from([2, 3, 4])),
    _small("silent_branch", channels=st.integers(1, 5), first=st.booleans()),
    _small("multiply", activation=st.sampled_from([None, "tanh", "sigmoid"])),
    _small("smooth_pool"),
)
RECIPES = st.fixed_dictionaries(
    {
        "size": st.tuples(st.integers(5, 9), st.integers(5, 9), st.sampled_from([1, 3])),
        "blocks": st.lists(BLOCKS, min_size=1, max_size=5),
        "head": st.sampled_from(["pool", "flatten", "max", "binary"]),
        "seed": st.integers(0, 2**16),
        "even_weights": st.booleans(),
    }
)


def build(recipe: Recipe) -> tf.keras.Model:
    """Return the Keras model of a recipe, its weights seeded, its batch norms with the statistics of their inputs."""
    tf.keras.backend.clear_session()
    image = layers.Input(recipe["size"], name="image")
    x = image
    for number, block in enumerate(recipe["blocks"]):
        x = BUILDERS[block["block"]](x, block, f"b{number}")
    x = HEADS[recipe["head"]](x)
    model = tf.keras.Model(image, x)
    _fill(model, np.random.default_rng(recipe["seed"]), recipe["even_weights"])
    return model


def _quantizers(block: Recipe) -> dict[str, object]:
    kernel = block["kernel_quantizer"]
    if kernel == "dorefa_weights":
        kernel = larq.quantizers.DoReFa(k_bit=2, mode="weights")
    if kernel == "ste_tern":
        kernel = larq.quantizers.SteTern(threshold_value=0.2)
    return {"input_quantizer": block["input"], "kernel_quantizer": kernel}


def _conv_block(x: tf.Tensor, block: Recipe, name: str) -> tf.Tensor:
    height, width = x.shape[1:3]
    kernel = block["kernel"]
    padding, pad_values = block["padding"]
    dilation, stride = block["dilation"], block["stride"]
    reach = [dilation * (k - 1) + 1 for k in kernel]
    if padding == "valid" and (reach[0] > height or reach[1] > width):
        padding = "same"
    if stride > 1:
        dilation = 1  # Keras takes one of the two
    if block["input"] is None and block["kernel_quantizer"] is None:
        pad_values = 0.0
    if block["input"] not in ("ste_sign", "approx_sign", "swish_sign"):
        pad_values = 0.0
    # Keras sums kernels of +s and -s in float32: where they cancel, rounding would decide a sign directly behind.
    bias = block["bias"] or block["kernel_quantizer"] == "magnitude_aware_sign"
    return larq.layers.QuantConv2D(
        block["channels"], kernel, stride, padding, dilation_rate=dilation, pad_values=pad_values,
        activation=block["activation"], use_bias=bias, name=name, **_quantizers(block),
    )(x)  # fmt: skip


def _activation(x: tf.Tensor, block: Recipe, name: str) -> tf.Tensor:
    layer = {
        "relu": lambda: layers.ReLU(name=name),
        "relu6": lambda: layers.ReLU(6.0, name=name),
        "prelu": lambda: layers.PReLU(shared_axes=[1, 2], name=name),
        "leaky": lambda: layers.LeakyReLU(0.125, name=name),
        "sigmoid": lambda: layers.Activation("sigmoid", name=name),
        "tanh": lambda: layers.Activation("tanh", name=name),
        "hard_tanh": lambda: layers.Activation(larq.activations.hard_tanh, name=name),
        "shift": lambda: layers.BatchNormalization(scale=False, name=name),
    }[block["kind"]]
    return layer()(x)


def _pool(x: tf.Tensor, block: Recipe, name: str) -> tf.Tensor:
    if min(x.shape[1:3]) < 2:
        return x
    if block["signed"]:
        x = larq.quantizers.SteSign(name=f"{name}_sign")(x)
    kind = layers.MaxPooling2D if block["kind"] == "max" else layers.AveragePooling2D
    return kind(2, padding=block["padding"], name=name)(x)


def _residual(x: tf.Tensor, block: Recipe, name: str) -> tf.Tensor:
    y = larq.layers.QuantConv2D(
        x.shape[-1], block["kernel"], padding="same", pad_values=block["padding"], input_quantizer="ste_sign",
        kernel_quantizer="ste_sign", use_bias=False, name=f"{name}_conv",
    )(x)  # fmt: skip
    y = layers.BatchNormalization(name=f"{name}_norm")(y)
    return layers.Add(name=f"{name}_add")([x, y])


def _dense_growth(x: tf.Tensor, block: Recipe, name: str) -> tf.Tensor:
    y = layers.BatchNormalization(name=f"{name}_norm")(x)
    y = larq.layers.QuantConv2D(
        block["channels"], 3, padding="same", input_quantizer="ste_sign", kernel_quantizer="ste_sign",
        use_bias=False, name=f"{name}_conv",
    )(y)  # fmt: skip
    return layers.Concatenate(name=f"{name}_concat")([x, y])


def _squeeze_excite(x: tf.Tensor, block: Recipe, name: str) -> tf.Tensor:
    channels = x.shape[-1]
    y = layers.GlobalAveragePooling2D(name=f"{name}_pool")(x)
    y = layers.Dense(max(1, channels // 2), activation="relu", name=f"{name}_down")(y)
    y = layers.Dense(channels, activation="sigmoid", name=f"{name}_up")(y)
    y = layers.Reshape((1, 1, channels), name=f"{name}_map")(y)
    return layers.Multiply(name=f"{name}_scale")([x, y])


def _depthwise(x: tf.Tensor, block: Recipe, name: str) -> tf.Tensor:
    quantizer = "ste_sign" if block["binary"] else None
    return larq.layers.QuantDepthwiseConv2D(
        3, padding="same", depth_multiplier=block["multiplier"], input_quantizer=quantizer,
        depthwise_quantizer=quantizer, use_bias=False, name=name,
    )(x)  # fmt: skip


def _separable(x: tf.Tensor, block: Recipe, name: str) -> tf.Tensor:
    quantizer = block["quantizer"]
    return larq.layers.QuantSeparableConv2D(
        5, 3, padding="same", input_quantizer=quantizer, depthwise_quantizer=quantizer,
        pointwise_quantizer=quantizer, use_bias=False, name=name,
    )(x)  # fmt: skip


def _grouped(x: tf.Tensor, block: Recipe, name: str) -> tf.Tensor:
    groups = block["groups"]
    x = layers.Conv2D(groups * block["each"], 1, name=f"{name}_in")(x)
    return larq.layers.QuantConv2D(
        groups * 2, 3, padding="same", groups=groups, input_quantizer="ste_sign", kernel_quantizer="ste_sign",
        use_bias=False, name=name,
    )(x)  # fmt: skip


def _pad_channels(x: tf.Tensor, block: Recipe, name: str) -> tf.Tensor:
    return tf.pad(x, [[0, 0], [0, 0], [0, 0], [block["before"], block["after"]]])


def _slice(x: tf.Tensor, block: Recipe, name: str) -> tf.Tensor:
    first = min(block["first"], x.shape[-1] - 1)
    return x[:, :, :, first :: block["step"]]


def _split(x: tf.Tensor, block: Recipe, name: str) -> tf.Tensor:
    """The halves go different ways and meet again, in either order."""
    half = x.shape[-1] // 2
    if not half:
        return x
    left, right = tf.split(x, [half, x.shape[-1] - half], axis=-1)
    left = larq.layers.QuantConv2D(
        half, 3, padding="same", pad_values=1.0, input_quantizer="ste_sign", kernel_quantizer="ste_sign",
        use_bias=False, name=f"{name}_conv",
    )(left)  # fmt: skip
    left = layers.BatchNormalization(name=f"{name}_norm")(left)
    return layers.Concatenate(name=f"{name}_concat")([right, left] if block["swap"] else [left, right])


def _shuffle(x: tf.Tensor, block: Recipe, name: str) -> tf.Tensor:
    height, width, channels = x.shape[1:]
    groups = block["groups"]
    if channels % groups:
        return x
    y = layers.Reshape((height, width, groups, channels // groups), name=f"{name}_apart")(x)
    y = layers.Permute((1, 2, 4, 3), name=f"{name}_turned")(y)
    return layers.Reshape((height, width, channels), name=f"{name}_together")(y)


def _silent_branch(x: tf.Tensor, block: Recipe, name: str) -> tf.Tensor:
    """A branch whose ReLU lets nothing through: its bias is set far below 0 in `_fill`."""
    y = layers.Conv2D(block["channels"], 1, activation="relu", name=f"{name}_dead")(x)
    return layers.Concatenate(name=f"{name}_concat")([y, x] if block["first"] else [x, y])


def _multiply(x: tf.Tensor, block: Recipe, name: str) -> tf.Tensor:
    y = layers.Conv2D(x.shape[-1], 1, activation=block["activation"], name=f"{name}_conv")(x)
    y = layers.Multiply(name=f"{name}_product")([x, y])
    return layers.BatchNormalization(name=f"{name}_norm")(y)  # values would grow with every product


BUILDERS = {
    "pad_channels": _pad_channels,
    "slice": _slice,
    "split": _split,
    "shuffle": _shuffle,
    "silent_branch": _silent_branch,
    "multiply": _multiply,
    "smooth_pool": lambda x, block, name: layers.AveragePooling2D(3, 1, padding="same", name=name)(x),
    "conv": _conv_block,
    "norm": lambda x, block, name: layers.BatchNormalization(name=name)(x),
    "activation": _activation,
    "pool": _pool,
    "residual": _residual,
    "dense_growth": _dense_growth,
    "squeeze_excite": _squeeze_excite,
    "depthwise": _depthwise,
    "separable": _separable,
    "grouped": _grouped,
}


def _binary_head(x: tf.Tensor) -> tf.Tensor:
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = larq.layers.QuantDense(
        CLASSES, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False, name="logits"
    )(x)
    return layers.BatchNormalization(name="logits_norm")(x)


HEADS = {
    "pool": lambda x: layers.Dense(CLASSES, name="logits")(layers.GlobalAveragePooling2D(name="pool")(x)),
    "max": lambda x: layers.Dense(CLASSES, name="logits")(layers.GlobalMaxPooling2D(name="pool")(x)),
    "flatten": lambda x: layers.Dense(CLASSES, name="logits")(layers.Flatten(name="flat")(x)),
    "binary": _binary_head,
}


def _even(values: np.ndarray) -> np.ndarray:
    """Weights as multiples of one step: where their inputs have one scale, int8 holds them exactly."""
    step = np.abs(values).max() / 127
    return np.rint(values / step) * step


def _fill(model: tf.keras.Model, rng: np.random.Generator, even: bool) -> None:
    """Seeded weights; batch norms are set so that their outputs are centred, with gammas of both signs."""
    for layer in model.layers:
        for weight in layer.weights:
            kind = weight.name.rsplit("/", 1)[-1].split(":")[0]
            shape = tuple(weight.shape)
            if kind in ("gamma", "beta", "moving_mean", "moving_variance"):
                continue
            # A sigmoid that underflows to 0 would leave the sign of a product to rounding: small weights before it.
            gate = layer.name.endswith(("_down", "_up"))
            spread = 0.02 if gate else {"bias": 0.3, "alpha": 0.25}.get(kind, 0.5)
            values = rng.normal(0, spread, shape)
            weight.assign((_even(values) if even and "kernel" in kind else values).astype(np.float32))
            if layer.name.endswith("_dead") and kind == "bias":
                weight.assign(np.full(shape, -1e6, np.float32))
    x = rng.integers(0, 256, (32, *model.input_shape[1:])).astype(np.float32) / 128 - 1
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            seen = tf.keras.Model(model.inputs, layer.input)(x, training=False).numpy()
            rows = seen.reshape(-1, seen.shape[-1])
            layer.moving_mean.assign(rows.mean(axis=0))
            layer.moving_variance.assign(rows.var(axis=0) + 1e-2)
            if layer.scale:
                layer.gamma.assign(rng.uniform(0.5, 2, rows.shape[1]) * rng.choice([-1, 1], rows.shape[1]))
            layer.beta.assign(rng.normal(0, 0.5, rows.shape[1]))
