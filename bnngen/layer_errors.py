# SPDX-License-Identifier: Apache-2.0
"""Which layer costs accuracy: the integer graph held against the float graph, tensor by tensor.

Every tensor of the integer graph stands for a tensor of the float graph, under the same name; a fused chain stands
for its last layer. Two errors are measured of each:

    alone        the layer's inputs are the float graph's values, quantized; held against the float layer on these same
                 inputs, so that nothing but this layer's own weights, rounding and saturation shows
    accumulated  the whole integer graph from the pixels, held against the float graph

Their measure is the signal-to-noise ratio: 10 log10(sum of x^2 / sum of (x' - x)^2) in dB, over all elements and
images; 6 dB are one bit. A binary tensor with a share p of wrong signs has 10 log10(1 / 4p). What the ratio cannot
show is an error with a direction: hence the share of wrong signs that should be -1, half where none is preferred.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bnngen import interp, ir
from bnngen.errors import DataError, ModelError

Array = np.ndarray
Progress = Callable[[str, int, int], None]
Outside = Callable[[Array], Mapping[str, Array]]

EXACT_STEPS = 1e-3  # an error below this part of a step is float32's rounding, not the layer's
WORST = 3  # layers that are marked for the error of their own, at most,
WORST_DB = 3.0  # and only those as far below their limit as the worst one, but for half its noise power
# Below this ratio in dB a layer's own error is more than its type and int8 weights explain: 1 % of wrong signs in bits.
LIMIT_DB = {ir.BITS: 14.0, ir.U8: 20.0, ir.S8: 20.0, ir.S16: 35.0, ir.S32: 35.0}
ONE_WAY, ONE_WAY_SIGNS, ONE_WAY_COUNT = 0.9, 1e-3, 50  # share to one side; of how many wrong signs, at least
SAME_CLASS = 0.99  # where fewer images keep their class, the layer is named at which most signs turn
BATCH_BYTES = 1 << 28  # of all float tensors of a batch


@dataclass(frozen=True)
class Quality:
    """How well a tensor is met. snr: dB, infinite where exact. exact: no element is off by a noticeable part of a step.

    A row that stands for no float tensor was not compared: its ratio is not a number.
    signs: share of elements whose sign is right, for tensors that are or become binary. upward: share of the
    wrong signs that are +1 and should be -1; None where no sign is wrong. wrong: how many are.
    """

    snr: float
    exact: bool
    signs: float | None = None
    upward: float | None = None
    wrong: int = 0

    @property
    def turns_one_way(self) -> bool:
        """True where so many signs are wrong, and so many of them alike, that chance does not explain it."""
        if self.signs is None or self.upward is None or 1 - self.signs < ONE_WAY_SIGNS or self.wrong < ONE_WAY_COUNT:
            return False
        return max(self.upward, 1 - self.upward) > ONE_WAY


@dataclass(frozen=True)
class LayerError:
    """One tensor. scale: smallest and largest of its channels, None for bits. saturated: share of the float values
    that its type cannot hold. outside: dB against what somebody else computes for this layer, None where unknown."""

    name: str
    dtype: str
    scale: tuple[float, float] | None
    alone: Quality
    accumulated: Quality
    saturated: float
    outside: float | None

    @property
    def margin(self) -> float:
        """By how many dB the layer's own error is better than the limit of its type; infinite where exact."""
        return self.alone.snr - LIMIT_DB.get(self.dtype, -math.inf)


@dataclass(frozen=True)
class LayerReport:
    """layers: in execution order. scores: of the float and the integer graph in real units, [N, classes] each."""

    layers: tuple[LayerError, ...]
    scores: tuple[Array, Array]

    @property
    def images(self) -> int:
        return len(self.scores[0])

    @property
    def same_class(self) -> float:
        """Share of the images for which both graphs choose the same class."""
        real, integer = (scores.argmax(axis=1) for scores in self.scores)
        return float((real == integer).mean())

    @property
    def marks(self) -> dict[str, str]:
        """Names of the layers that stand out, the worst first, and why; empty where none does.

        Three rules: the ratio of its own error is below the limit of its type; its own wrong signs go one way; or,
        where images change their class, it is the layer at which the share of wrong signs grows most.
        """
        bad = sorted((layer for layer in self.layers if layer.margin < 0), key=lambda layer: layer.margin)
        marks = {layer.name: "error" for layer in bad[:WORST] if layer.margin <= bad[0].margin + WORST_DB}
        for layer in self.layers:
            if layer.alone.turns_one_way:
                marks.setdefault(layer.name, "signs one way")
        turning = self._turning() if self.same_class < SAME_CLASS else None
        if turning is not None:
            marks.setdefault(turning, "signs turn")
        return marks

    def _turning(self) -> str | None:
        """Return the layer at which the share of wrong signs grows most over all before it; None without any."""
        most, growth, found = 0.0, 0.0, None
        for layer in self.layers:
            if layer.accumulated.signs is None:
                continue
            wrong = 1 - layer.accumulated.signs
            if wrong - most > growth:
                growth, found = wrong - most, layer.name
            most = max(most, wrong)
        return found

    @property
    def worst(self) -> tuple[str, ...]:
        """Names of the layers that stand out, the worst first."""
        return tuple(self.marks)


def layer_errors(
    graphs: tuple[ir.Graph, ir.Graph], images: Array, progress: Progress, outside: Outside | None = None
) -> LayerReport:
    """Measure every layer over uint8 images [N, H, W, C].

    graphs: the float graph and the integer graph that the passes made of it. outside: returns real values of layers by
    name for a batch of images, such as Keras's. Raises DataError for the images, ModelError for graphs of two models.
    """
    real, integer = graphs
    _check(real, integer, images)
    sites = _sites(real, integer)
    size = _batch(real)
    scores: list[tuple[Array, Array]] = []
    for start in range(0, len(images), size):
        pixels = images[start : start + size]
        values = _Batch(graphs, pixels)
        others = outside(pixels) if outside else {}
        for site in sites:
            site.add(values, others)
        scores.append((values.real[real.output], to_real(values.integer[integer.output], site.tensor)))
        progress("layers", min(start + size, len(images)), len(images))
    if outside and not any(site.outside.count for site in sites):
        raise ModelError(
            "the two models have no layer in common",
            why="layers are compared by name and shape, and no name of one is a name of the other",
            fix="give the Keras model that this ONNX file was exported from",
        )
    return LayerReport(tuple(site.result() for site in sites), tuple(map(np.concatenate, zip(*scores, strict=True))))


# ------------------------------------------------------------------------------------- real and stored


def to_real(stored: Array, tensor: ir.Tensor) -> Array:
    """Return the real values, float64, that the integers of a tensor stand for."""
    return (stored + tensor.offsets) * tensor.scales


def to_stored(real: Array, tensor: ir.Tensor) -> Array:
    """Return the nearest integers of a tensor's type: how a float value would enter the integer graph."""
    if tensor.dtype == ir.BITS:
        return real
    scales = tensor.scales
    steps = np.divide(real, scales, out=np.zeros(real.shape), where=scales > 0)
    return np.clip(np.rint(steps - tensor.offsets), *ir.TYPE_RANGE[tensor.dtype]).astype(interp.STORAGE[tensor.dtype])


def _outside_type(real: Array, tensor: ir.Tensor) -> Array:
    """Return which real values are beyond the type's range by more than rounding."""
    lo, hi = (end + tensor.offsets for end in ir.TYPE_RANGE[tensor.dtype])
    return (real > (hi + 0.5) * tensor.scales) | (real < (lo - 0.5) * tensor.scales)


# ------------------------------------------------------------------------------------------- the sums


class _Sums:
    """Running sums of one comparison over batches."""

    def __init__(self) -> None:
        self.signal = self.noise = self.furthest = 0.0
        self.count = self.equal = self.upward = 0

    def add(self, expected: Array, found: Array, steps: Array | float = 1.0) -> None:
        """Hold `found` against `expected`, both in real units; steps: the size of a step, one or one a channel."""
        expected, error = np.asarray(expected, np.float64), np.abs(found - np.asarray(expected, np.float64))
        self.signal += float(np.square(expected).sum())
        self.noise += float(np.square(error).sum())
        relative = np.divide(error, steps, out=np.where(error > 0, np.inf, 0.0), where=np.asarray(steps) > 0)
        self.furthest = max(self.furthest, float(relative.max(initial=0)))
        plus, right = np.asarray(found) >= 0, expected >= 0
        self.count += expected.size
        self.equal += int((plus == right).sum())
        self.upward += int((plus & ~right).sum())

    @property
    def snr(self) -> float:
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    def quality(self, has_signs: bool) -> Quality:
        if not self.count:
            return Quality(math.nan, False)
        exact = self.furthest < EXACT_STEPS
        snr = math.inf if exact else self.snr
        if not has_signs:
            return Quality(snr, exact)
        wrong = self.count - self.equal
        return Quality(snr, exact, self.equal / self.count, self.upward / wrong if wrong else None, wrong)


class _Batch:
    """Both graphs run over one batch, and what each layer makes of its quantized float inputs."""

    def __init__(self, graphs: tuple[ir.Graph, ir.Graph], pixels: Array) -> None:
        self.graph, integer = graphs
        meta = self.graph.meta
        image = (pixels.astype(np.float64) * meta.input_scale + meta.input_offset).astype(np.float32)
        self.real = interp.evaluate(self.graph, image)
        self.integer = interp.evaluate(integer, pixels)
        self.alone: dict[str, Array] = {integer.input: pixels}

    def run_alone(self, site: _Site) -> Array:
        """Return the integers that the layer computes from the float graph's values."""
        inputs = [self.stored(name, site.sources.get(name)) for name in site.node.inputs]
        self.alone[site.node.output] = interp.apply(site.node, inputs, site.tensor)
        return self.alone[site.node.output]

    def stored(self, name: str, source: tuple[str, ir.Tensor] | None) -> Array:
        """Return an input as stored: the float value quantized, or what was computed where the float graph has none."""
        return self.alone[name] if source is None else to_stored(self.real[source[0]], source[1])

    def expected_alone(self, site: _Site) -> Array:
        """Return what the float layer makes of the same quantized inputs."""
        known = {self.graph.input: self.real[self.graph.input]}
        for name, tensor in site.roots.values():
            stored = to_stored(self.real[name], tensor)
            known[name] = stored if tensor.dtype == ir.BITS else to_real(stored, tensor)
        return self._evaluate(site.meaning, known)

    def _evaluate(self, name: str, known: dict[str, Array]) -> Array:
        """Run the float graph from the known tensors up to one."""
        if name not in known:
            node = self.graph.producer(name)
            inputs = [self._evaluate(source, known) for source in node.inputs]
            known[name] = interp.apply(node, inputs, self.graph.tensors[name])
        return known[name]


class _Site:
    """One tensor of the integer graph and the sums of its comparisons.

    meaning: the float tensor that it stands for, "" where there is none. sources: of the node's inputs, those that
    stand for a float tensor, with its name; roots: the same of the nearest tensors up the graph that do.
    """

    def __init__(self, node: ir.Node, tensor: ir.Tensor, meaning: str) -> None:
        self.node, self.tensor, self.meaning = node, tensor, meaning
        self.name, self.has_signs = meaning or node.name or node.output, False
        self.sources: dict[str, tuple[str, ir.Tensor]] = {}
        self.roots: dict[str, tuple[str, ir.Tensor]] = {}
        self.alone, self.accumulated, self.outside = _Sums(), _Sums(), _Sums()
        self.saturated = 0

    def add(self, values: _Batch, others: Mapping[str, Array]) -> None:
        alone = values.run_alone(self)
        if not self.meaning:
            return
        steps, real = self.tensor.scales, values.real[self.meaning]
        whole = to_real(values.integer[self.node.output], self.tensor)
        self.alone.add(values.expected_alone(self), to_real(alone, self.tensor), steps)
        self.accumulated.add(real, whole, steps)
        if self.tensor.dtype in ir.STREAM_TYPES:
            self.saturated += int(_outside_type(real, self.tensor).sum())
        if self.name in others and others[self.name].size == whole.size:
            self.outside.add(others[self.name].reshape(whole.shape), whole)

    def result(self) -> LayerError:
        scale = None
        if self.tensor.dtype != ir.BITS:
            scale = float(self.tensor.scales.min()), float(self.tensor.scales.max())
        return LayerError(
            self.name,
            self.tensor.dtype,
            scale,
            self.alone.quality(self.has_signs),
            self.accumulated.quality(self.has_signs),
            self.saturated / max(1, self.accumulated.count),
            self.outside.snr if self.outside.count else None,
        )


# ------------------------------------------------------------------------------------------- the graph


def _sites(real: ir.Graph, integer: ir.Graph) -> list[_Site]:
    """Return a site for every node of the integer graph, in execution order."""
    sites: dict[str, _Site] = {}
    for node in integer.nodes:
        site = _Site(node, integer.tensors[node.output], _meaning(node, real))
        for name in node.inputs:
            above = sites.get(name)
            if above is None:
                continue
            if above.meaning:
                site.sources[name] = site.roots[name] = (above.meaning, above.tensor)
            else:
                site.roots |= above.roots
        if site.meaning:
            readers = real.consumers(site.meaning)
            site.has_signs = site.tensor.dtype == ir.BITS or any(isinstance(reader, ir.Sign) for reader in readers)
        if site.meaning == real.output:
            site.name = real.producer(real.output).name
        sites[node.output] = site
    return list(sites.values())


def _meaning(node: ir.Node, real: ir.Graph) -> str:
    """Return the float tensor that a node's output stands for."""
    if isinstance(node, ir.QuantizeInput):
        return real.input
    return node.output if node.output in real.tensors else ""


def _check(real: ir.Graph, integer: ir.Graph, images: Array) -> None:
    shape = integer.tensors[integer.input].shape
    if not len(images) or images.shape[1:] != shape or images.dtype != np.uint8:
        raise DataError(
            f"images of shape {list(images.shape[1:])}, {images.dtype}, {len(images)} of them, cannot be compared on",
            why=f"the model reads uint8 images {list(shape)}, and needs one at least",
            fix="give the data that the model was trained on",
        )
    scores = real.tensors.get(integer.output)
    if scores is None or scores.shape != integer.tensors[integer.output].shape:
        raise ModelError("the integer graph was not made from this float graph", where=f"tensor {integer.output}")


def _batch(graph: ir.Graph) -> int:
    one = sum(tensor.size for tensor in graph.tensors.values()) * 4
    return max(1, min(interp.BATCH, BATCH_BYTES // one))
