# SPDX-License-Identifier: Apache-2.0
"""Element-wise functions, however they are given: as a name, a function, a quantizer or a layer.

What is not in the table is expanded: the function is called on a symbolic tensor, and the TensorFlow operations that
it makes are exported one by one (expand.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import larq
import numpy as np
import tensorflow as tf

from bnngen.errors import ModelError
from bnngen.export.builder import DP_RELU, HEAVISIDE, SIGN, SWISH, TERNARY, UNIFORM_QUANTIZE, Step, Value
from bnngen.export.site import Site, affine, as_map, clip, per_channel

SIGNS = (larq.quantizers.SteSign, larq.quantizers.ApproxSign, larq.quantizers.SwishSign)
SIGN_FUNCTIONS = (
    larq.quantizers.ste_sign, larq.quantizers.approx_sign, larq.quantizers.swish_sign, larq.math.sign,
)  # fmt: skip
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al., 2017, as Keras has them

keras = tf.keras.activations


def activate(site: Site, values: Sequence[Value], function: Any, shape: tuple[int, ...] | None = None) -> Value:
    """Append an element-wise function of the one value; return its result."""
    return finish(site, values, [], function, shape)


def finish(
    site: Site, values: Sequence[Value], steps: list[Step], function: Any, shape: tuple[int, ...] | None = None
) -> Value:
    """Append the nodes of a layer and its activation behind them.

    shape: of the result where it differs from Keras's. Raises ModelError for a function that cannot be exported.
    """
    form = Value("", shape or (values[0].shape if not steps or values[0].flat else as_map(site.shape)))
    known = steps_of(site, form, function)
    if known is not None:
        if not steps and values[0].binary and known:
            return _on_bits(site, values[0], function, known)
        if not steps and len(known) == 1:
            known = [Step("", known[0].op, known[0].constants, known[0].attributes)]
        return site.emit(values, [*steps, *known], shape)
    from bnngen.export.expand import expand_function  # noqa: PLC0415 (an expansion contains layers)

    inner = site.inner("linear", site.shape).emit(values, steps, shape) if steps else values[0]
    return expand_function(site, function, inner)


def steps_of(site: Site, form: Value, function: Any) -> list[Step] | None:
    """Return the nodes of a known function of a value of that shape; None for one that is not known.

    Raises ModelError for one that is known not to be possible.
    """
    if function is None or isinstance(function, larq.quantizers.NoOp):
        return []
    if is_sign(function):
        return [Step("sign", SIGN)]
    if isinstance(function, larq.quantizers.Quantizer):
        return _quantizer(site, function)
    for known, steps in TABLE:
        if function is known:
            return steps(form)
    name = function_name(function)
    if name in REFUSED:
        raise site.error(
            f"activation {name} is not supported" + (" in the middle of a model" if name == "softmax" else ""),
            why=REFUSED[name],
            fix="train with relu, tanh, sigmoid, swish, elu or a sign instead",
        )
    return None


def _quantizer(site: Site, quantizer: larq.quantizers.Quantizer) -> list[Step] | None:
    """Return the nodes of a quantizer of activations. Raises ModelError where its levels depend on the batch."""
    name = function_name(quantizer)
    if isinstance(quantizer, larq.quantizers.SteHeaviside):
        return [Step("heaviside", HEAVISIDE)]
    if isinstance(quantizer, larq.quantizers.SteTern):
        if quantizer.ternary_weight_networks:
            raise _of_the_batch(site, f"{name} with ternary_weight_networks", "SteTern(threshold_value=...)")
        return _ternary(quantizer.threshold_value)
    if isinstance(quantizer, larq.quantizers.DoReFa):
        if quantizer.mode != "activations":
            raise _of_the_batch(site, f"{name} in the mode {quantizer.mode!r}", "mode='activations'")
        return [Step("quantize", UNIFORM_QUANTIZE, attributes={"steps": float(2**quantizer.precision - 1)})]
    if isinstance(quantizer, larq.quantizers.MagnitudeAwareSign):
        raise _of_the_batch(site, name, "ste_sign or approx_sign")
    return None


def _of_the_batch(site: Site, what: str, instead: str) -> ModelError:
    return site.error(
        f"{what} is not supported on activations",
        why="it takes a mean or a maximum over the whole batch: one image's result depends on the others",
        fix=f"use it for kernels only, and {instead} for the activations",
    )


def _ternary(threshold: float) -> list[Step]:
    return [Step("ternary", TERNARY, attributes={"threshold": float(threshold)})]


def _on_bits(site: Site, value: Value, function: Any, steps: list[Step]) -> Value:
    """A function of +1 and -1 is a line through two points; of a sign, nothing is left to compute."""
    if is_sign(function):
        return value
    low, high = (float(np.asarray(function(tf.constant([x], tf.float32)))[0]) for x in (-1.0, 1.0))
    if (low, high) == (-1.0, 1.0):
        return value
    gain, shift = (high - low) / 2, (high + low) / 2
    return site.emit([value], [affine("", value, gain, shift)])


def is_sign(function: Any) -> bool:
    """True for a quantizer whose forward value is +1 for x >= 0 and -1 otherwise."""
    return type(function) in SIGNS or any(function is known for known in SIGN_FUNCTIONS)


def function_name(function: Any) -> str:
    """Return what to call a function or quantizer in a message."""
    return getattr(function, "__name__", type(function).__name__)


def negative_slope(part: str, form: Value, slope: Any) -> Step:
    """Return the node that multiplies negative elements by a slope, one a channel or one for all."""
    return Step(part, "PRelu", (("slope", per_channel(form, slope)),))


def two_slopes(part: str, form: Value, negative: Any, positive: Any) -> Step:
    """Return the node that multiplies negative elements by one slope and the others by another."""
    constants = (("negative", per_channel(form, negative)), ("positive", per_channel(form, positive)))
    return Step(part, DP_RELU, constants)


def elu(form: Value, alpha: float) -> list[Step]:
    """alpha * (e^x - 1) below 0: alpha scales the negative side of the plain function."""
    plain = Step("elu", "Elu", attributes={"alpha": 1.0})
    return [plain] if alpha == 1.0 else [plain, negative_slope("alpha", form, alpha)]


def _fixed(*steps: Step) -> Callable[[Value], list[Step]]:
    return lambda _: list(steps)


_RELU = _fixed(Step("relu", "Relu"))
_RELU6 = _fixed(clip("relu6", 0.0, 6.0))
_SIGMOID = _fixed(Step("sigmoid", "Sigmoid"))
_TANH = _fixed(Step("tanh", "Tanh"))
_SWISH = _fixed(Step("swish", SWISH))
_HARD_SIGMOID = _fixed(Step("hard_sigmoid", "HardSigmoid", attributes={"alpha": 0.2, "beta": 0.5}))

TABLE: tuple[tuple[Any, Callable[[Value], list[Step]]], ...] = (
    (keras.linear, _fixed()),
    (tf.identity, _fixed()),
    (keras.relu, _RELU),
    (tf.nn.relu, _RELU),
    (tf.nn.relu6, _RELU6),
    (keras.sigmoid, _SIGMOID),
    (tf.nn.sigmoid, _SIGMOID),
    (tf.math.sigmoid, _SIGMOID),
    (keras.tanh, _TANH),
    (tf.nn.tanh, _TANH),
    (tf.math.tanh, _TANH),
    (keras.swish, _SWISH),
    (tf.nn.silu, _SWISH),
    (keras.hard_sigmoid, _HARD_SIGMOID),
    (keras.elu, lambda form: elu(form, 1.0)),
    (tf.nn.elu, lambda form: elu(form, 1.0)),
    (keras.selu, lambda form: [*elu(form, 1.0), two_slopes("selu", form, SELU_SCALE * SELU_ALPHA, SELU_SCALE)]),
    (tf.nn.leaky_relu, lambda form: [negative_slope("leaky", form, 0.2)]),
    (larq.activations.hard_tanh, _fixed(clip("hard_tanh", -1.0, 1.0))),
    (larq.quantizers.ste_heaviside, _fixed(Step("heaviside", HEAVISIDE))),
    (larq.math.heaviside, _fixed(Step("heaviside", HEAVISIDE))),
    (larq.quantizers.ste_tern, lambda _: _ternary(0.05)),
    (tf.sign, lambda _: _ternary(0.0)),  # TensorFlow's own has three values: sign(0) = 0
    (tf.math.sign, lambda _: _ternary(0.0)),
)

_NO_TABLE = "the runtime has no table for this function"
REFUSED = {
    "softmax": "it joins all channels; a softmax may stand at the end, where it does not change which class wins",
    **dict.fromkeys(("softplus", "softsign", "exponential", "gelu", "mish", "log_softmax"), _NO_TABLE),
}
