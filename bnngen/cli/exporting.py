# SPDX-License-Identifier: Apache-2.0
"""The body of `bnngen export`: apart, because it imports TensorFlow."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

from bnngen.cli.console import kib, progress, say, short
from bnngen.cli.data import load_data
from bnngen.errors import UsageError
from bnngen.export.config import (
    Calibration,
    ExportConfig,
    ExportResult,
    ModelInfo,
    OwnCode,
    read_calibration,
    read_info,
    sibling,
)
from bnngen.export.exporter import export_model
from bnngen.export.sources import ZOO
from bnngen.resources import checkpoints

ZOO_KNOWS = ("input_scale", "input_offset", "classes")


def run(model: str | Path, calibrate: str | None, out: Path | None, options: dict) -> None:
    """Export, compare the model's own engine with onnxruntime, and say what was written."""
    calibration = calibration_from(calibrate)
    info = model_info(model, calibrate, options)
    config = ExportConfig(
        model,
        out or default_out(model),
        calibration,
        info,
        options["cut"],
        options["capacity"],
        options["weights"],
        options["calibration_method"],
        OwnCode(options["imports"], options["trust_lambdas"]),
    )
    with progress() as report:
        result = export_model(config, report)
    report_export(result)


def default_out(model: str | Path) -> Path:
    """Return the file to write: beside the model, but never over it, nor into the installed package."""
    name = str(model)
    if name.startswith(ZOO):
        return Path(f"{name.removeprefix(ZOO).lower()}.onnx")
    path = Path(model)
    if path.suffix == ".onnx":
        return path.with_name(f"{path.stem}-bnngen.onnx")
    return Path(f"{path.stem}.onnx") if path.parent == checkpoints() else path.with_suffix(".onnx")


def calibration_from(spec: str | None) -> Calibration | None:
    """Return the images that --calibrate names; None leaves it to the sample beside the model."""
    if spec is None:
        return None
    if _is_sample(spec):
        return read_calibration(Path(spec))
    data = load_data(spec)
    return Calibration(data.x_train, data.y_train, data.name)


def _is_sample(spec: str) -> bool:
    """True for an .npz file of images alone, x and perhaps y, without a test set."""
    path = Path(spec)
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return "x.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False  # whoever reads it says what is wrong


def model_info(model: str | Path, calibrate: str | None, options: dict) -> ModelInfo | None:
    """Return what the model file does not say; None leaves it to the file beside the model.

    A model that bnngen did not train has no such file: then --classes names the classes, or the calibration data does;
    where neither does, the exporter numbers them.
    """
    scale, offset, names = options["input_scale"], options["input_offset"], _names(options["classes"])
    given = {"input_scale": scale, "input_offset": offset, "classes": names}
    if str(model).startswith(ZOO):
        return _check_zoo(str(model), options)
    keras = Path(model)
    if sibling(keras, ".meta.json").is_file():
        if all(value is None for value in given.values()):
            return None
        info = replace(read_info(keras), **{key: value for key, value in given.items() if value is not None})
        return info if names is None else replace(info, trained_classes=tuple(range(len(names))))
    without = f"there is no {sibling(keras, '.meta.json').name}, which `bnngen train` writes beside its models"
    if calibrate is None:
        raise UsageError(
            "--calibrate DATA is missing" + (", and --input-scale S" if scale is None else ""),
            where=str(keras),
            why=f"{without}; the ranges of all tensors are measured on those images",
            fix=f"bnngen export {keras.name} --calibrate DATA --input-scale S --input-offset O",
        )
    if scale is None:
        raise UsageError(
            "--input-scale S is missing",
            where=str(keras),
            why=f"{without}; the model's input is S * pixel + O, pixels being 0..255",
            fix=f"for values in 0..1: bnngen export {keras.name} --calibrate {calibrate} "
            "--input-scale 0.00392156862745098; for -1..1: --input-scale 0.00784313725490196 --input-offset -1",
        )
    classes, name, digest = names or (), Path(calibrate).name, ""
    if not _is_sample(calibrate):
        data = load_data(calibrate)
        classes, name, digest = names or data.classes, data.name, data.sha256
    offset = offset or 0.0
    return ModelInfo(keras.stem, classes, tuple(range(len(classes))), scale, offset, None, name, digest)


def _check_zoo(model: str, options: dict) -> None:
    """Raise UsageError for what a zoo model would not heed, before its weights are fetched."""
    unheard = [f"--{key.replace('_', '-')}" for key in ZOO_KNOWS if options[key] is not None]
    if unheard:
        raise UsageError(
            f"{unheard[0]} is not for models of the zoo",
            where=model,
            why="they scale pixels as larq_zoo does, and their outputs are the 1000 classes of ImageNet",
            fix=f"leave {' and '.join(unheard)} out",
        )


def _names(text: str | None) -> tuple[str, ...] | None:
    """Parse "cat,dog"."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(f"{text!r} is not a list of class names", where="--classes", fix="write for example cat,dog")
    return names


def report_export(result: ExportResult) -> None:
    """Say what was written, and how far the model and the exported file, both in float32, are apart."""
    check = result.check
    say(f"{short(result.path)}  {kib(result.file_bytes)}, {result.nodes} nodes")
    if result.note:
        say(f"  note: {result.note}")
    say(
        f"  {result.engine} and the exported file on {check.images} calibration images: largest difference of a "
        f"score {check.max_difference:.2g}, mean {check.mean_difference:.2g}, same class {check.agreement:.1%}"
    )
    if result.cut is not None:
        shape = "x".join(map(str, result.cut_shape or ()))
        say(
            f"  latents for replay are taken at {result.cut} ({shape}): {result.latent_bytes} bytes each, "
            f"one bit an element"
        )
        say(f"  the learned head reads {result.features}; it holds up to {result.capacity} classes")
