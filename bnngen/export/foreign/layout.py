# SPDX-License-Identifier: Apache-2.0
"""What the axes of a foreign tensor are: transposes and reshapes move names, not data.

A `View` names the map that a tensor holds and, for every axis, which of the map's axes lie there: "N", "C", "H", "W",
several of them ("HWC": flattened in that order), or "" (an axis of one). Axes of the map that none bears have size 1.
Between the two reshapes of a channel shuffle C is cut in two: "a", its `outer` part, and "b", the inner one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bnngen.export.foreign.net import Shape

MAP_AXES = "HWC"


class LayoutError(Exception):
    """The tensor cannot be described so; the message says what was found, for the node's own error."""


@dataclass(frozen=True)
class View:
    """A foreign tensor: axes of `tensor`, a map of the net."""

    tensor: str
    axes: tuple[str, ...]
    outer: int = 0

    def letters(self, shape: Shape) -> dict[str, int]:
        """Return the size of every letter. shape: of the map."""
        sizes = dict(zip(MAP_AXES, shape, strict=True))
        return {**sizes, "a": self.outer, "b": shape[2] // self.outer} if self.outer else sizes

    def sizes(self, shape: Shape, batch: int) -> tuple[int, ...]:
        """Return the foreign tensor's shape. shape: of the map."""
        letters = {**self.letters(shape), "N": batch}
        return tuple(int(np.prod([letters[letter] for letter in axis])) for axis in self.axes)

    def of(self, tensor: str) -> View:
        """Return another map seen the same way."""
        return replace(self, tensor=tensor)

    def axis_of(self, letter: str) -> int:
        """Return which axis holds a letter; -1 when none does."""
        return next((i for i, axis in enumerate(self.axes) if letter in axis), -1)

    def transposed(self, perm: Sequence[int]) -> View:
        """Return the view with its axes in another order."""
        return replace(self, axes=tuple(self.axes[i] for i in perm))

    def __str__(self) -> str:
        return "[" + ", ".join(axis or "1" for axis in self.axes) + "]"


def plain(view: View, shape: Shape) -> View:
    """Return the view without letters of size 1, except that a vector's axis keeps its C."""
    sizes = {**view.letters(shape), "N": 0}
    axes = ["".join(letter for letter in axis if sizes[letter] != 1) for axis in view.axes]
    if "C" not in "".join(axes):
        i = view.axis_of("C")
        if i >= 0 and not axes[i]:
            axes[i] = "C"
    return replace(view, axes=tuple(axes))


def regroup(view: View, shape: Shape, batch: int, target: Sequence[int]) -> View:
    """Return the view after a reshape to `target`. Raises LayoutError when axes other than C would be cut in pieces.

    The letters of size above 1 keep their order; each new axis takes as many as multiply to its size. An axis of size
    1 takes a letter of size 1, the channel where it has one.
    """
    if not target or target[0] != batch or view.axes[:1] != ("N",):
        raise LayoutError(f"a reshape of {view} to {list(target)} moves the batch axis")
    sizes = view.letters(shape)
    waiting = [letter for axis in view.axes[1:] for letter in axis if sizes[letter] > 1]
    axes = ["N"]
    for size in target[1:]:
        letters, product = "", 1
        while product < size and waiting:
            if waiting[0] == "C" and product * sizes["C"] > size and size % product == 0:
                sizes = replace(view, outer=size // product).letters(shape)
                waiting[:1] = ["a", "b"]
            letters += waiting.pop(0)
            product *= sizes[letters[-1]]
        if product != size:
            raise LayoutError(f"a reshape of {view} to {list(target)} cuts an axis in pieces")
        axes.append(letters.replace("ab", "C"))
    if not set("".join(axes)) & set("Ca") and len(axes) > 1:  # one channel: its place is known where one axis is free
        free = [i for i, axis in enumerate(axes) if not axis]
        if len(free) == 1:
            axes[free[0]] = "C"
        elif len(axes) == 2:
            axes[1] += "C"
    return View(view.tensor, tuple(axes), sizes["a"] if "a" in "".join(axes) else 0)


def channel_values(value: np.ndarray, view: View, shape: Shape, batch: int) -> np.ndarray | None:
    """Return a constant that is broadcast over the tensor as [C] values, or [1]; None where it varies elsewhere."""
    if value.size == 1:
        return value.reshape(1)
    sizes = view.sizes(shape, batch)
    padded = value.reshape((1,) * (len(sizes) - value.ndim) + value.shape) if value.ndim <= len(sizes) else None
    if padded is None:
        return None
    axis = [i for i, size in enumerate(padded.shape) if size > 1]
    if len(axis) != 1 or padded.shape[axis[0]] != sizes[axis[0]]:
        return None
    return padded.reshape(-1) if view.axes[axis[0]] == "C" else None
