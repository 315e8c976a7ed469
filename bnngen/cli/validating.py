# SPDX-License-Identifier: Apache-2.0
"""`bnngen validate`: the chain from Keras to the board, and with --layers what each layer costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from bnngen import ir
from bnngen import validate as checks
from bnngen.cli.build import build_options, make, model_option, options_from
from bnngen.cli.console import err, print_json, progress, say, short, table
from bnngen.cli.device import DATA, class_names, predicted, test_images, where_from, where_options
from bnngen.cli.learning import check_picture
from bnngen.cli.model import find_model, require_training
from bnngen.device.session import connect
from bnngen.errors import BnngenError, ModelError, UsageError
from bnngen.export.config import ModelInfo, OwnCode
from bnngen.frontend import load_onnx
from bnngen.layer_errors import LayerError, LayerReport, Quality, layer_errors
from bnngen.passes import Options, run_passes
from bnngen.pipeline import Compiled
from bnngen.targets import load_target

TRACED = 3  # images whose every layer is compared, by checksum
DEFAULT_DATA = "digits"
LAYER_IMAGES = 256  # for --layers, unless --limit says otherwise
MARKS = {"error": "<- worst", "signs one way": "<- one way", "signs turn": "<- signs turn"}
MEANINGS = {
    "error": "an error of its own that is larger than its type explains",
    "signs one way": "its own wrong signs go one way",
    "signs turn": "no error of its own: here most signs turn, from errors that came before",
}


@click.command()
@click.option("--data", show_default=DEFAULT_DATA, help=f"{DATA} The test part is used.")
@model_option
@click.option("--target", "targets", multiple=True, help="As for build; may be repeated. Default: host.")
@click.option("--keras", help="Compare with this Keras model, a file or a shipped name, and onnxruntime too.")
@click.option(
    "--import",
    "imports",
    multiple=True,
    type=click.Path(path_type=Path),
    help="With --keras, as for export: a Python file that defines the model's own layers; it is run.",
)
@click.option("--trust-lambdas", is_flag=True, help="With --keras, as for export: read Lambda layers.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help=f"At most this many images on the targets; with --layers (default {LAYER_IMAGES}), from all over the set.",
)
@click.option("--all", "everything", is_flag=True, help="Use the training images too, all of the data set.")
@click.option(
    "--random", "count", type=click.IntRange(min=1), help="Instead of data: this many seeded images of random pixels."
)
@click.option("--layers", is_flag=True, help="Instead of targets: a table of the error that each layer makes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="With --layers: a picture of the table (PNG).")
@build_options
@where_options
def validate(model: str, layers: bool, **values: Any) -> None:
    """Hold Keras, ONNX, the interpreter and every target against each other: scores, layers, accuracy."""
    path = find_model(model, ".onnx", "bnngen export")
    _check_request(layers, values)
    values["keras"] = _keras_file(values["keras"])
    values["data"] = values["data"] or DEFAULT_DATA
    if layers:
        _validate_layers(path, values)
    else:
        _validate_chain(path, values)


def _check_request(layers: bool, values: dict) -> None:
    """Raise UsageError for options that would not be heard."""
    check_picture(values["out"])
    if layers and (values["targets"] or values["method"]):
        raise UsageError(
            "--layers runs on no target",
            where="bnngen validate",
            why="it holds the integer graph against the float graph; targets equal the integer graph bit for bit",
            fix="leave out --target and --on, or --layers",
        )
    if layers and options_from(values).float32:
        raise UsageError(
            "--layers shows what integers cost; float32 has none",
            where="bnngen validate --layers --activations float32",
            why="it holds the integer graph against the float graph",
            fix="leave --layers out, or give --activations int8 or int16",
        )
    if values["out"] and not layers:
        raise UsageError("only --layers draws a picture", where="bnngen validate -o", fix="add --layers")
    if (values["imports"] or values["trust_lambdas"]) and not values["keras"]:
        raise UsageError(
            "--import and --trust-lambdas are for reading a Keras model",
            where="bnngen validate",
            why="without --keras none is read; the ONNX file needs no code of yours",
            fix="add --keras FILE, or leave them out",
        )
    asked = [option for option, key in (("--data", "data"), ("--all", "everything")) if values[key]]
    if values["count"] and asked:
        raise UsageError(
            f"--random and {asked[0]} contradict each other",
            where="bnngen validate",
            why="--random takes images of random pixels instead of a data set",
            fix=f"leave out --random, or {asked[0]}",
        )


def _keras_file(given: str | None) -> Path | None:
    """Return the file that --keras names, before anything is built. Raises UsageError, ToolError."""
    if given is None:
        return None
    if Path(given).suffix == ".onnx":
        raise UsageError(
            f"{given} is not a Keras model",
            where="--keras",
            why="the ONNX file is what --model names; --keras names what it was exported from",
            fix="give a .keras or .h5 file, or leave --keras out",
        )
    require_training()
    return find_model(given, ".keras", "bnngen train")


# -------------------------------------------------------------------------------------------- chain


def _validate_chain(path: Path, values: dict) -> None:
    targets, options = [load_target(name) for name in values["targets"] or ("host",)], options_from(values)
    real = load_onnx(path)
    images, labels = test_images(real, values["data"], values["everything"], values["count"])
    made = [make(path, target, options) for target in targets]
    compiled = made[0][0]
    stages, differences = [], []
    with progress() as report:
        stages += _float_stages(path, values, images, real.meta)
        if compiled.is_float:
            stages.append(checks.float_stage(real, images, report))
        else:
            stages.append(checks.interpreter_stage(compiled.graph, images, report))
        for other, built, _ in made:
            with connect(built, where_from(values)) as client:
                few = images[: values["limit"]] if values["limit"] else images
                stage = checks.device_stage(built.target.name, client, few, report)
                stages.append(_in_real_units(stage, other, real) if other.is_float else stage)
                for image in images[: 0 if other.is_float else TRACED]:
                    found = checks.first_difference(other.graph, client, image)
                    differences += [f"{built.target.name}: {found}"] if found else []
    result = checks.compare(stages, labels)
    result = checks.Report(result.rows, result.histogram, differences)
    if values["as_json"]:
        passed = None if compiled.is_float else result.passed  # of float32 nothing is claimed that could fail
        print_json({"model": compiled.program.name, "passed": passed, **asdict(result)})
    else:
        _print_chain(result, class_names(compiled), compiled.is_float)
    if not compiled.is_float:
        _judge(result, compiled, values["as_json"])


def _in_real_units(stage: checks.Stage, compiled: Compiled, real: ir.Graph) -> checks.Stage:
    """The scores of a float32 build, as the float graph has them."""
    return checks.Stage(f"{stage.name}, float32", checks.real_scores(real, stage.scores, compiled.score_step), False)


def _float_stages(path: Path, values: dict, images: np.ndarray, meta: ir.ModelMeta) -> list[checks.Stage]:
    """Run Keras and onnxruntime; pixels are scaled and classes numbered as the ONNX file says, for both."""
    if values["keras"] is None:
        return []
    from bnngen.export.keras_model import run_keras
    from bnngen.export.session import run_onnx

    keras = values["keras"]
    scores = run_keras(keras, images, _info(meta), _own_code(values))
    return [
        checks.Stage("Keras", _keras_scores(scores, keras, meta), False),
        checks.Stage("ONNX (onnxruntime)", run_onnx(path, images), False),
    ]


def _own_code(values: dict) -> OwnCode:
    return OwnCode(values["imports"], values["trust_lambdas"])


def _info(meta: ir.ModelMeta) -> ModelInfo:
    """What the exported file says of the Keras model it came from: that needs no file beside the Keras model."""
    return ModelInfo(meta.name, meta.classes, meta.trained_classes, meta.input_scale, meta.input_offset)


def _keras_scores(scores: np.ndarray, keras: Path, meta: ir.ModelMeta) -> np.ndarray:
    """Return the scores [N, classes]. Raises ModelError where they cannot be those of the ONNX file's model."""
    expected = (len(scores), len(meta.trained_classes))
    if scores.shape != expected:
        raise ModelError(
            f"{keras.name} is not the model that was exported",
            where="--keras",
            why=f"it gives scores {list(scores.shape[1:])}, the ONNX file has {expected[1]}",
            fix="give the Keras model that this ONNX file was exported from",
        )
    return scores


def _print_chain(report: checks.Report, names: list[str], is_float: bool) -> None:
    verdict = {None: "", True: "bit for bit", False: "NO"}

    def last(row: checks.Row) -> str:
        if is_float:
            return "" if row.largest is None else f"{row.largest:.2g}"
        return verdict[row.exact]

    held = "largest difference to above" if is_float else "same scores as above"
    table(
        ["", "images", "accuracy", "same class as above", held],
        [(r.name, r.images, _share(r.accuracy), _share(r.agreement), last(r)) for r in report.rows],
        (1, 2, 3),
    )
    if is_float:
        say("float32 rounds, and a value that rounds across 0 turns a sign: bit for bit is for integer builds alone")
    say("predicted: " + predicted(names, report.histogram))


def _judge(report: checks.Report, compiled: Compiled, quiet: bool) -> None:
    """Say that all is equal, or raise BnngenError."""
    for difference in report.differences:
        err.print(difference, style="red", markup=False)
    if not report.passed:
        raise BnngenError(
            "the stages do not agree bit for bit",
            why="after quantization there is no tolerance",
            fix="try --kernels ref; if that agrees, a kernel variant is wrong",
        )
    if quiet:
        return
    steps, traced = len(compiled.program.inference()), min(TRACED, max(row.images for row in report.rows))
    say(f"every score is equal; for {traced} of the images the checksums of all {steps} layers are equal too")


# ------------------------------------------------------------------------------------------- layers


def _validate_layers(path: Path, values: dict) -> None:
    real = load_onnx(path)
    integer = run_passes(real, Options(options_from(values).activation_bits))
    images, labels = test_images(real, values["data"], values["everything"], values["count"])
    count = min(values["limit"] or LAYER_IMAGES, len(images))
    chosen = np.arange(count) * len(images) // count
    labels = None if labels is None else labels[chosen]
    outside = _keras_layers(values, real.meta) if values["keras"] else None
    with progress() as report:
        result = layer_errors((real, integer), images[chosen], report, outside)
    if values["out"]:
        _draw(result, integer, values)
    if values["as_json"]:
        print_json(_document(result, integer, labels, values))
        return
    _print_layers(result)
    _print_accuracy(result, labels)
    if values["out"]:
        say(f"picture: {short(values['out'])}")


def _keras_layers(values: dict, meta: ir.ModelMeta) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    from bnngen.export.keras_layers import keras_layers

    return keras_layers(values["keras"], _info(meta), _own_code(values))


def _print_layers(report: LayerReport) -> None:
    has_keras = any(layer.outside is not None for layer in report.layers)
    columns = ["layer", "type", "scale", "alone, dB", "signs", "accumulated, dB", "signs", "to +1", "beyond type"]
    marks = report.marks
    rows = [_row(layer, MARKS.get(marks.get(layer.name, ""), ""), has_keras) for layer in report.layers]
    table([*columns, *(["Keras, dB"] if has_keras else []), ""], rows, range(3, len(columns) + 1))
    say(
        f"{report.images} images. alone: what this layer adds, its inputs being right; signs: share of right signs; "
        "to +1: of the wrong ones, those that became +1; beyond type: values that saturate"
    )
    if not marks:
        say("no layer stands out")
    for kind, meaning in MEANINGS.items():
        names = [name for name, why in marks.items() if why == kind]
        if names:
            say(f"{meaning}: {', '.join(names)} (docs/accuracy.md says what helps)")


def _row(layer: LayerError, mark: str, has_keras: bool) -> list[str]:
    alone, whole = layer.alone, layer.accumulated
    cells = [layer.name, layer.dtype, _scale(layer), _ratio(alone), _share(alone.signs), _ratio(whole)]
    cells += [_share(whole.signs), "" if whole.upward is None else f"{whole.upward:.0%}"]
    cells.append(f"{layer.saturated:.3%}" if layer.saturated else "")
    if has_keras:
        cells.append("" if layer.outside is None else _decibel(layer.outside))
    return [*cells, mark]


def _scale(layer: LayerError) -> str:
    if layer.scale is None:
        return ""
    least, most = layer.scale
    return f"{least:.3g}" if least == most else f"{least:.3g} .. {most:.3g}"


def _ratio(quality: Quality) -> str:
    if math.isnan(quality.snr):
        return ""  # not compared: no float tensor has these values
    return "exact" if quality.exact else _decibel(quality.snr)


def _decibel(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else ("exact" if value > 0 else "lost")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _accuracies(report: LayerReport, labels: np.ndarray | None) -> tuple[float | None, float | None, float]:
    """Return the accuracy of the float and of the integer graph, and the share of images with one answer."""
    real, integer = (scores.argmax(axis=1) for scores in report.scores)
    agreement = float((real == integer).mean())
    if labels is None:
        return None, None, agreement
    return float((real == labels).mean()), float((integer == labels).mean()), agreement


def _print_accuracy(report: LayerReport, labels: np.ndarray | None) -> None:
    real, integer, agreement = _accuracies(report, labels)
    accuracy = "" if real is None else f"accuracy: float graph {_share(real)}, integer graph {_share(integer)}; "
    say(f"{accuracy}same class for {_share(agreement)} of the images")


def _draw(report: LayerReport, integer: ir.Graph, values: dict) -> None:
    from bnngen.report.layer_errors import plot_layers

    series = {
        "this layer alone": [layer.alone.snr for layer in report.layers],
        "accumulated": [layer.accumulated.snr for layer in report.layers],
    }
    title = f"{integer.meta.name}, int{options_from(values).activation_bits} stream, {report.images} images"
    plot_layers(series, [layer.name for layer in report.layers], title, values["out"])


def _document(report: LayerReport, integer: ir.Graph, labels: np.ndarray | None, values: dict) -> dict:
    """Return the table as JSON: a ratio that is not finite is null, beside `exact`."""
    real, whole, agreement = _accuracies(report, labels)

    def finite(value: object) -> object:
        if isinstance(value, dict):
            return {key: finite(part) for key, part in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {
        "model": integer.meta.name,
        "activation_bits": options_from(values).activation_bits,
        "data": values["data"] if values["count"] is None else "random pixels",
        "images": report.images,
        "accuracy": {"float": real, "integer": whole, "same_class": agreement},
        "worst": list(report.worst),
        "marks": report.marks,
        "layers": [finite(asdict(layer)) for layer in report.layers],
    }
