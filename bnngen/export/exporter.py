# SPDX-License-Identifier: Apache-2.0
"""export_model: a model in, a checked ONNX file out."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import bnngen
from bnngen.errors import DataError, ModelError, UsageError
from bnngen.export.calibrate import (
    Levels,
    Observation,
    Watch,
    head_map,
    levels_beside,
    observe,
    signed_root,
    two_levels,
)
from bnngen.export.config import (
    FEATURES,
    NO_CUT,
    SYNTHETIC,
    Calibration,
    Check,
    ExportConfig,
    ExportResult,
    ModelInfo,
    Progress,
    check_info,
    check_method,
    choose_images,
    head_capacity,
    real_images,
)
from bnngen.export.cuts import choose_cut, sign_thresholds
from bnngen.export.sources import ExportedGraph, Source, open_source
from bnngen.frontend import spelling

MOST_DIFFERING = 0.01  # share of the images on which another class may win, but one image always may
NAMED = 3  # tensors in a note
FLIP = 1e-4  # relative to the largest score: rounding alone stays near 1e-6, one flipped sign is above


def export_model(config: ExportConfig, progress: Progress) -> ExportResult:
    """Write config.out: the model as ONNX, its calibrated ranges and its latent cut in the metadata.

    config.model: a .keras or .h5 file, `zoo:NAME`, or an ONNX file of another tool. Nothing is written unless its own
    engine and onnxruntime choose the same class on 99 % of the calibration images, or all but one.

    Raises UsageError, ModelError, DataError.
    """
    _check_out(config)
    opened = open_source(config, progress)
    return export_source(opened.source, opened.info, opened.calibration, config, progress)


def export_source(
    source: Source, info: ModelInfo, calibration: Calibration, config: ExportConfig, progress: Progress
) -> ExportResult:
    """Calibrate, compare and write a source that is open, as export_model does; `config` says all but what to open."""
    _check_out(config)
    graph = source.graph
    _check_outputs(graph, check_info(info, "model information"))
    pixels = choose_images(calibration, info, graph.builder.shape)
    images = real_images(pixels, info)
    cut, note = _cut(config.cut, graph)
    capacity = head_capacity(config, info)
    if cut is not None:
        graph.builder.keep_latents(cut)

    model = graph.builder.model(info.name, len(info.trained_classes))
    watch = Watch(graph.builder.real, cut, check_method(config.method), graph.features)
    seen = observe(model, images, watch, progress)
    check = _compare(source, images, seen.scores, progress)
    learning = _learning(graph, cut, seen, capacity)
    metadata = {**_description(info, pixels, config.method), "ranges": seen.ranges, **learning}
    size = _write(model, metadata, config.out)
    shape = graph.shapes()[cut] if cut else None
    return ExportResult(
        path=config.out,
        nodes=len(graph.builder.nodes),
        file_bytes=size,
        check=check,
        cut=cut,
        cut_shape=shape,
        latent_bytes=_packed_bytes(shape) if shape else 0,
        features=graph.features if cut else None,
        capacity=capacity if cut else 0,
        engine=source.engine,
        note="; ".join(filter(None, (note, *_calibration_notes(calibration, seen)))),
    )


def _calibration_notes(calibration: Calibration, seen: Observation) -> Iterator[str]:
    """Yield what the user should know of the images that ranges were measured on."""
    if calibration.name == SYNTHETIC:
        yield "ranges were measured on synthetic images, made by bnngen; for a real model give --calibrate DATA"
    silent = [name for name, span in seen.ranges.items() if not any(span["lo"]) and not any(span["hi"])]
    if silent:
        named = ", ".join(silent[:NAMED]) + (f" and {len(silent) - NAMED} more" if len(silent) > NAMED else "")
        yield (
            f"0 everywhere on all calibration images: {named}; such a range says nothing of other images, calibrate "
            "with real and varied ones"
        )


def _cut(asked: str | None, graph: ExportedGraph) -> tuple[str | None, str]:
    """Return the tensor of the cut, None without one, and what to tell the user of a choice made for them."""
    if asked is None and graph.features is None:
        return None, (
            "the model does not end in a Dense layer on real-valued features: it is exported for inference alone, "
            f"as with --cut {NO_CUT}"
        )
    return choose_cut(FEATURES if asked is None else asked, graph.cuttable()), ""


def _check_outputs(graph: ExportedGraph, info: ModelInfo) -> None:
    """Raise ModelError unless the graph fits what was said about the model."""
    outputs, classes = graph.scores.shape[0], len(info.trained_classes)
    if outputs != classes:
        raise ModelError(
            f"the model has {outputs} outputs for {classes} trained classes",
            where="model information",
            why="each output stands for one class",
            fix="name the outputs in their order: --classes cat,dog",
        )
    if info.shape is not None and info.shape != graph.builder.shape:
        raise ModelError(
            f"the model takes {list(graph.builder.shape)}, its description says {list(info.shape)}",
            where="model information",
            fix="take the description that was written with this model",
        )


# ----------------------------------------------------------------------------------------- metadata


def _learning(graph: ExportedGraph, cut: str | None, seen: Observation, capacity: int) -> dict[str, Any]:
    """Return the metadata of the cut and of the learned head; empty without a cut."""
    if cut is None or seen.cut is None or seen.features is None or graph.features is None:
        return {}
    levels = _levels(graph, cut, seen.cut)
    span = seen.ranges[graph.features]
    lo, hi = float(np.float32(min(span["lo"]))), float(np.float32(max(span["hi"])))  # the exact float32 values
    return {
        "latent": {
            "tensor": cut,
            "threshold": levels.threshold.tolist(),
            "low": levels.low.tolist(),
            "high": levels.high.tolist(),
        },
        "head": {
            "tensor": graph.features,
            "lo": min(0.0, lo),
            "hi": hi,
            "capacity": capacity,
            "map": head_map(seen.features),
        },
    }


def _levels(graph: ExportedGraph, cut: str, rows: np.ndarray) -> Levels:
    """Return what the bits of a latent stand for: the signs that a binary convolution reads behind the cut; at the
    features, two levels of what the head reads, their roots; elsewhere two levels of the tensor."""
    signs = sign_thresholds(graph.builder, cut, rows.shape[1])
    if signs is not None:
        return levels_beside(rows, signs)
    if cut == graph.features:
        levels = two_levels(signed_root(rows.astype(np.float64)))
        return Levels(*(np.sign(v) * v**2 for v in (levels.threshold, levels.low, levels.high)))
    return two_levels(rows)


def _description(info: ModelInfo, pixels: np.ndarray, method: str) -> dict[str, Any]:
    """Return the metadata that calibration does not change. pixels: the calibration images."""
    digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
    return {
        "schema": spelling.METADATA_SCHEMA,
        "name": info.name,
        "classes": info.classes,
        "trained_classes": info.trained_classes,
        "input": {"scale": info.input_scale, "offset": info.input_offset},
        "source": {
            "tool": f"bnngen {bnngen.__version__}",
            "data": info.data,
            "data_sha256": info.data_sha256,
            "calibration": f"{len(pixels)} images, sha256 {digest}",
            "calibration_method": method,
        },
    }


def _packed_bytes(shape: tuple[int, ...]) -> int:
    """Bytes of one 1-bit latent: whole 32-bit words for the channels of each pixel (docs/numerics.md)."""
    *pixels, channels = shape
    return int(np.prod(pixels, dtype=np.int64)) * -(-channels // 32) * 4


# ----------------------------------------------------------------------------------- check and write


def _compare(source: Source, images: np.ndarray, scores: np.ndarray, progress: Progress) -> Check:
    """Return how far the source's engine and onnxruntime differ. Raises ModelError when they do not agree."""
    expected = []
    for part in source.run(images):
        expected.append(part)
        progress(f"check against {source.engine}", sum(map(len, expected)), len(images))
    reference = np.concatenate(expected)
    difference = np.abs(reference.astype(np.float64) - scores)
    agreement = float(np.mean(reference.argmax(axis=1) == scores.argmax(axis=1)))
    differing = int((reference.argmax(axis=1) != scores.argmax(axis=1)).sum())
    allowed = min(max(1, int(len(images) * MOST_DIFFERING)), len(images) - 1)
    if differing > allowed or not np.isfinite(difference).all():
        raise ModelError(
            f"the ONNX model chooses another class than {source.engine} on {differing} of {len(images)} images",
            where="check of the exported model",
            why=f"the largest difference of a score is {difference.max():.3g}; {MOST_DIFFERING:.0%} of the images "
            f"may differ, or one: here {allowed}; nothing was written",
            fix="this is a fault of bnngen unless values lie at sign thresholds: please report the model",
        )
    flipped = int((difference.max(axis=1) > FLIP * max(1.0, np.abs(reference).max())).sum())
    return Check(len(images), float(difference.max()), float(difference.mean()), agreement, flipped)


def _check_out(config: ExportConfig) -> None:
    out = config.out
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent}", where=str(out), fix="create it, or choose another -o")
    if out.suffix != ".onnx":
        raise UsageError(
            f"{out.name} is no name of an ONNX file",
            where="-o",
            why="another file might be overwritten",
            fix=f"-o {out.with_suffix('.onnx').name}",
        )
    if out.is_dir():
        raise UsageError(f"{out} is a folder", fix="name a file: -o model.onnx")
    if Path(config.model).suffix == ".onnx" and out.exists() and out.samefile(config.model):
        raise UsageError(f"{out.name} would overwrite the model that is read", where="-o", fix="choose another -o")


def _write(model: onnx.ModelProto, metadata: dict[str, Any], out: Path) -> int:
    """Write the file with its metadata, whole or not at all; return its size in bytes."""
    text = json.dumps(metadata, sort_keys=True, allow_nan=False)
    onnx.helper.set_model_props(model, {spelling.METADATA_KEY: text})
    content = model.SerializeToString(deterministic=True)
    partial, other = out.with_name(out.name + ".partial"), "choose another -o, in a folder where you may write"
    try:
        partial.write_bytes(content)
        os.replace(partial, out)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise DataError(
            f"{out} cannot be written",
            why=error.strerror or str(error),
            fix="free space, or choose another -o" if error.errno == errno.ENOSPC else other,
        ) from error
    return len(content)
