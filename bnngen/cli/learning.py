# SPDX-License-Identifier: Apache-2.0
"""The body of `bnngen learn`: the stream, the session on the target, the table and the picture."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from bnngen import ir
from bnngen.cli.console import print_json, progress, say, short, table
from bnngen.cli.data import fit_data, load_data, same_data
from bnngen.cli.model import class_ids
from bnngen.continual.compare import Comparison, compare_methods
from bnngen.continual.mirror import TwinMirror
from bnngen.continual.state_file import LearnedState, check_fits, load_state, read_state, save_state
from bnngen.continual.stream import Experience, NewClasses, new_classes, test_images
from bnngen.data import Dataset
from bnngen.device.compile import BuildResult
from bnngen.device.session import Where, connect
from bnngen.errors import DataError, UsageError
from bnngen.lower.learning import HEADS
from bnngen.pipeline import Compiled
from bnngen.session import Course, Outcome, run_session

FIRST = 10  # images of a data set that `run` prints a row for


@dataclass(frozen=True)
class Request:
    """What the command line asks of a session; names as there."""

    data: str
    first: int | None
    per_experience: int
    order: str | None
    train_limit: int | None
    test_limit: int | None
    seed: int
    compare: bool
    check: bool
    as_json: bool
    out: Path | None
    load_state: Path | None = None
    merge_state: Path | None = None
    save_state: Path | None = None
    forget: str | None = None

    @classmethod
    def of(cls, values: dict) -> Request:
        """Pick the session's options out of all options of the command."""
        return cls(**{f.name: values[f.name] for f in fields(cls)})


@dataclass(frozen=True)
class Stream:
    """Experiences and the test set of all their classes: (images, labels)."""

    data: Dataset
    experiences: list[Experience]
    test: tuple[np.ndarray, np.ndarray]


def make_stream(compiled: Compiled, request: Request) -> Stream:
    """Cut the data set into experiences of new classes."""
    data = fit_data(load_data(request.data), compiled.program.image)
    order, first = _arrival(compiled, data, request)
    _check_capacity(order, compiled)
    plan = NewClasses(order, first, request.per_experience, request.train_limit, request.seed)
    return Stream(data, new_classes(data, plan), test_images(data, order, request.test_limit, request.seed))


def check_head(real: ir.Graph, command: str = "bnngen learn") -> None:
    """Raise UsageError for a float graph without a learned head: nothing needs to be built to see that."""
    if real.meta.head is not None:
        return
    last = real.producer(real.output)
    if isinstance(last, ir.Dense) and real.tensors[last.inputs[0]].dtype == ir.FLOAT:
        why, fix = "it was exported with --cut none", "export it again with a cut: bnngen export MODEL --cut features"
    else:
        why = "a learned head takes the place of a last Dense on real-valued features; the model does not end in one"
        fix = "end the model in Dense(classes), and train and export it again"
    raise UsageError(f"{real.meta.name} has no learned head", where=command, why=why, fix=fix)


def _check_capacity(order: Sequence[int], compiled: Compiled) -> None:
    capacity = compiled.learning.capacity
    if max(order, default=0) >= capacity:
        raise DataError(
            f"the learned head holds {capacity} classes, the stream has class {max(order)}",
            where="--data, --order",
            why="the capacity is fixed at export; classes are counted from 0",
            fix="name fewer classes with --order, or export again with a larger --capacity",
        )


def _arrival(compiled: Compiled, data: Dataset, request: Request) -> tuple[tuple[int, ...], int]:
    """Return the order of the classes, and how many come first: what the backbone was trained on, if it was
    trained on part of these data."""
    meta = compiled.graph.meta
    known = meta.trained_classes if same_data(meta, compiled.program.image, data) else ()
    if request.order is not None:
        order = class_ids(request.order) or ()
    else:
        order = (*known, *(c for c in range(len(data.classes)) if c not in known))
    partly = 0 < len(known) < len(order)
    return order, request.first or (len(known) if partly else request.per_experience)


def check_picture(path: Path | None) -> None:
    """Raise UsageError for a picture that could not be written at the end of a long session."""
    if path is None:
        return
    if path.suffix != ".png" or path.is_dir():
        raise UsageError(f"{path} is no name for the picture", where="-o", why="it is a PNG file", fix="-o NAME.png")
    check_writable(path, "-o")


def check_writable(path: Path, option: str) -> None:
    """Raise UsageError for a file that could not be written at the end of a long session."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"there is no folder for {path}", where=option, fix=f"mkdir -p {path.parent}")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = error.strerror or str(error)
        fix = "choose a folder of your own"
        raise UsageError(f"{path} cannot be written", where=option, why=why, fix=fix) from error


def run(compiled: Compiled, built: BuildResult, where: Where, request: Request) -> list[Outcome]:
    """Hold the session and report it."""
    stream = make_stream(compiled, request)
    course = _course(compiled, stream, request)
    if not request.as_json:
        _introduce(compiled, stream, built)
    mirror = comparison = None
    with progress() as report, connect(built, where) as client:
        if request.check:
            mirror = TwinMirror(compiled.graph, compiled.learning.config, request.seed, client, compiled.tail_options)
        outcomes = run_session(mirror or client, course, report)
        if request.save_state is not None:
            saved = save_state(client, compiled.learning, compiled.program.model_hash)
            request.save_state.write_bytes(saved.to_bytes())
        board = client.info()
        if request.compare:
            comparison = compare_methods(
                compiled.graph,
                compiled.learning.config,
                stream.experiences,
                stream.test,
                request.seed,
                client.features,
                report,
            )
    picture = _picture(built, outcomes, stream, comparison, request)
    if request.as_json:
        print_json(_document(compiled, stream, outcomes, comparison))
        return outcomes
    _report(outcomes, stream, comparison, _method(compiled))
    if mirror is not None:
        say(
            f"the NumPy twin held the same learned state, byte for byte, after every start, step and end "
            f"({mirror.comparisons} comparisons)"
        )
    if board.stack_peak:
        say(f"stack: at most {board.stack_peak:,} of {board.stack_bytes:,} reserved bytes were used")
    say(f"picture: {short(picture)}")
    if request.save_state is not None:
        say(f"learned state: {short(request.save_state)}")
    return outcomes


def _course(compiled: Compiled, stream: Stream, request: Request) -> Course:
    """Return what the session consists of. Raises UsageError, DataError for what cannot be, before anything runs."""
    if request.check and (request.load_state or request.merge_state) is not None:
        raise UsageError(
            "--check needs the whole session",
            where="bnngen learn --load-state, --merge-state",
            why="the NumPy twin has not learned what the file holds",
            fix="leave --check out, or the file",
        )
    start = None
    if request.load_state is not None:
        start = read_state(request.load_state)
        check_fits(start, compiled.learning, compiled.program.model_hash, str(request.load_state))
    forget = class_ids(request.forget) or ()
    wrong = [c for c in forget if c >= compiled.learning.capacity]
    if wrong:
        raise UsageError(
            f"class {wrong[0]} cannot be forgotten",
            where="--forget",
            why=f"the learned head holds classes 0 to {compiled.learning.capacity - 1}",
        )
    decide = compiled.learning.config.reject > 0
    return Course(
        stream.experiences, stream.test, request.seed, start, forget, decide, _to_merge(compiled, request.merge_state)
    )


def _to_merge(compiled: Compiled, path: Path | None) -> LearnedState | None:
    """Return the other learner's state. Raises UsageError for a head whose state is no sum."""
    if path is None:
        return None
    if not compiled.learning.head.observes:
        raise UsageError(
            "what two devices have learned cannot be added",
            where=f"--merge-state with --head {compiled.learning.config.head}",
            why="only the sums of analytic heads do not depend on who saw a sample",
            fix="learn on both with an analytic --head",
        )
    other = read_state(path)
    check_fits(other, compiled.learning, compiled.program.model_hash, str(path))
    return other


@dataclass(frozen=True)
class Asked:
    """Images (uint8 [H, W, C]) by name, names of the classes, and the right classes where they are known. shown: so
    many are printed."""

    images: dict[str, np.ndarray]
    classes: Sequence[str]
    labels: Sequence[int] | None = None
    shown: int = FIRST


def asked_of(compiled: Compiled, spec: str, limit: int | None) -> Asked:
    """Return the test images of a data set, of all classes that the learned head has room for."""
    data = fit_data(load_data(spec), compiled.program.image)
    rows = np.flatnonzero(data.y_test < compiled.learning.capacity) if compiled.learning else np.arange(0)
    chosen = rows[np.arange(count := min(limit or len(rows), len(rows))) * len(rows) // max(count, 1)]
    images = {f"{i}": data.x_test[i] for i in chosen}
    return Asked(images, data.classes, [int(y) for y in data.y_test[chosen]], limit or FIRST)


def classify(compiled: Compiled, built: BuildResult, where: Where, path: Path, asked: Asked) -> None:
    """Print what the learned head says of images, from a state that a session has saved."""
    if compiled.learning is None:
        raise UsageError("this model has no learned head", where="--load-state", fix="leave --load-state out")
    state = read_state(path)
    check_fits(state, compiled.learning, compiled.program.model_hash, str(path))
    answers = []
    with connect(built, where) as client, progress() as report:
        client.learn_init(0)
        load_state(client, state)
        for done, image in enumerate(asked.images.values(), 1):
            answers.append(client.decide(image))
            report("classify", done, len(asked.images))
    _print_answers(asked, answers)


def _print_answers(asked: Asked, answers: list[int]) -> None:
    def name(label: int) -> str:
        known = asked.classes[label] if label < len(asked.classes) else f"class {label}"
        return "unknown" if label < 0 else known

    if asked.labels is None:
        table(["image", "class"], list(zip(asked.images, map(name, answers), strict=True)))
        return
    rows = list(zip(asked.images, map(name, answers), map(name, asked.labels), strict=True))
    table(["image", "class", "right"], rows[: asked.shown])
    right = sum(a == b for a, b in zip(answers, asked.labels, strict=True))
    unknown = f"; {answers.count(-1)} taken for unknown" if -1 in answers else ""
    say(f"accuracy of the learned head: {right / max(len(answers), 1):.2%} of {len(answers)} test images{unknown}")


def _introduce(compiled: Compiled, stream: Stream, built: BuildResult) -> None:
    meta, learn = compiled.graph.meta, compiled.learning.config
    names = ", ".join(meta.classes[i] for i in meta.trained_classes[:12])
    more = " ..." if len(meta.trained_classes) > 12 else ""
    learning = "block learns" if learn.tail == 1 else f"{learn.tail} blocks learn"
    frozen = f"its last {learning} too" if learn.tail else "is frozen"
    trained_on = meta.source.get("data") or "other data"
    say(f"{built.target.board.title}: the backbone was trained on {trained_on}, classes {names}{more}, and {frozen}")
    say(f"  {_how(compiled)}")
    say(f"  {len(stream.experiences)} experiences of {stream.data.name}; test set {len(stream.test[1])} images")


def _method(compiled: Compiled) -> str:
    """Return what learns on the target, in a few words."""
    learn = compiled.learning.config
    if HEADS[learn.head] is HEADS["lda"]:
        return learn.head
    name = {"cwr": "CWR*", "cwr+": "CWR+", "sgd": "SGD", "float32": "CWR* float32"}[learn.head]
    widths = "" if learn.head == "float32" else f" {learn.q_f}/{learn.q_b}"
    replay = f"1-bit replay ({learn.policy})" if learn.replay else "no replay"
    return f"{name}{widths}, {replay}" + (f", tail {learn.tail}" if learn.tail else "")


def _how(compiled: Compiled) -> str:
    """Return what an experience is learned from, in a line."""
    learn = compiled.learning.config
    if HEADS[learn.head] is HEADS["lda"]:
        return f"head {learn.head}: sums of every image, seen once; no replay memory"
    replay = f"memory {learn.replay} x {4 * compiled.program.latent_words} bytes ({learn.policy})"
    if learn.policy == "generative":
        replay = f"memory of {learn.components} components a class (generative) for {learn.replay} samples"
    if not learn.replay:
        replay = "memory: none"
    mix = f"{learn.new_per_batch} new" if learn.new_per_batch else "new and old by their classes"
    course = f"batch {learn.batch} ({mix}), {learn.epochs} epochs, rate {learn.lr:g}"
    return f"head {learn.head}, replay {replay}, buffer {learn.buffer}, {course}"


def _names(stream: Stream, classes: Sequence[int]) -> str:
    return ", ".join(stream.data.classes[c] for c in classes)


def _report(outcomes: list[Outcome], stream: Stream, comparison: Comparison | None, method: str) -> None:
    judged = any(_is_judged(o) for o in outcomes)
    rows = [
        (
            o.experience if o.event == "learned" else o.event,
            _names(stream, o.classes),
            o.samples,
            o.steps,
            f"{o.accuracy_seen:.2%}",
            f"{o.accuracy_all:.2%}",
            *_judgement(o, judged),
        )
        for o in outcomes
    ]
    columns = ["", "new classes", "shown", "steps", "accuracy, classes seen", "all classes"]
    if judged:
        columns.append("held-back samples")
    if any(o.rejected for o in outcomes):
        columns.append("taken for unknown")
    table(columns, rows, (2, 3, 4, 5))
    if comparison is not None:
        say()
        rows = [(f"on the target: {method}", f"{outcomes[-1].accuracy_seen:.2%}")]
        rows += [(name, f"{curve[-1]:.2%}") for name, curve in comparison.items()]
        table(["after the last experience", "accuracy, classes seen"], rows, (1,))


def _is_judged(outcome: Outcome) -> bool:
    """True where held-back samples had a say: without any, the device takes every experience over."""
    counts = outcome.verdict
    return counts.get("outcome", "not judged") != "not judged" and counts["new"] + counts["known"] > 0


def _judgement(outcome: Outcome, judged: bool) -> list[str]:
    """Return the cells that governed learning adds to a row: verdict and counts, shares taken for unknown."""
    cells = []
    if judged:
        v = outcome.verdict
        known = f", known {v['before']} -> {v['after']} of {v['known']}" if v and v["known"] else ""
        cells.append(f"{v['outcome']}; new {v['new_right']} of {v['new']}{known}" if v else "")
    if outcome.rejected:
        cells.append(", ".join(f"{share:.0%} of {name}" for name, share in outcome.rejected.items()))
    return cells


def _picture(
    built: BuildResult,
    outcomes: list[Outcome],
    stream: Stream,
    comparison: Comparison | None,
    request: Request,
) -> Path:
    from bnngen.report.learning_curve import plot_learning

    curves = {f"on {built.target.name}": [o.accuracy_seen for o in outcomes], **(comparison or {})}
    path = request.out or built.directory.with_name(f"{built.directory.name}-{Path(stream.data.name).stem}-learn.png")
    labels = [_names(stream, o.classes) for o in outcomes]
    return plot_learning(curves, labels, f"{stream.data.name}: new classes learned on {built.target.board.title}", path)


def _document(compiled: Compiled, stream: Stream, outcomes: list[Outcome], comparison: Comparison | None) -> dict:
    return {
        "model": compiled.program.name,
        "model_hash": compiled.program.model_hash,
        "target": compiled.target.name,
        "data": stream.data.name,
        "data_sha256": stream.data.sha256,
        "learn": asdict(compiled.learning.config),
        "experiences": [asdict(outcome) for outcome in outcomes],
        "compare": comparison,
        "final_accuracy": outcomes[-1].accuracy_seen,
    }
