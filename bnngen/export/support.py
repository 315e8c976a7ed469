# SPDX-License-Identifier: Apache-2.0
"""Which layers of Keras and Larq can be exported, as a table."""

from __future__ import annotations

from bnngen.export.layers import HANDLERS, REFUSED

SHOWN = ("keras", "larq", "bnngen")  # the packages whose layers are listed by name


def layer_rows() -> list[tuple[str, str]]:
    """Return (package.Layer, what it is exported as) for every layer class, sorted."""
    rows = [(_name(kind), _summary(handler.function)) for kind, handler in HANDLERS.items()]
    return sorted(row for row in rows if row[0])


def refused_rows() -> list[tuple[str, str, str]]:
    """Return (package.Layer, why it is not exported, what to use instead), sorted."""
    return sorted((_name(kind), *reason) for kind, reason in REFUSED.items())


def _name(kind: type) -> str:
    """larq.QuantConv2D; "" for the classes that Keras wraps around TensorFlow operations."""
    package = kind.__module__.split(".")[0]
    return "" if kind.__name__.endswith("OpLambda") or package not in SHOWN else f"{package}.{kind.__name__}"


def _summary(function: object) -> str:
    text = " ".join((function.__doc__ or "").split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".")
