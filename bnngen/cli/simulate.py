# SPDX-License-Identifier: Apache-2.0
"""`bnngen simulate`: continual-learning experiments in which the compiled runtime does the learning."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from bnngen.cli.build import BUILD_DIR, alone, options_from
from bnngen.cli.console import progress, say, short
from bnngen.cli.data import fit_data, load_data
from bnngen.cli.learning import check_head
from bnngen.cli.model import class_ids, find_model
from bnngen.cli.simulate_options import simulate_options
from bnngen.cli.simulate_plan import merge_plan, read_plan, settings_of
from bnngen.cli.simulate_report import document, draw, print_table
from bnngen.continual.scenarios import Scenario
from bnngen.data import Dataset
from bnngen.errors import UsageError
from bnngen.frontend import load_onnx
from bnngen.pipeline import BuildOptions
from bnngen.simulate.cache import cache_folder
from bnngen.simulate.executors import check_cluster, open_pool
from bnngen.simulate.experiment import Experiment, carry_out, collect, summarize, write_tables
from bnngen.simulate.prepare import Data, Preparation, Where
from bnngen.simulate.settings import Setting, check_names


@click.command()
@simulate_options
@click.pass_context
def simulate(context: click.Context, plan: Path | None, **_: object) -> None:
    """Learn streams of experiences with the compiled head, for several seeds, and measure after each.

    Learning options may have several values, as --replay 100,300: one run each, over the same streams. Results go to
    a folder; the same command again goes on where it was stopped.
    """
    runs: list[dict] = []
    values = dict(context.params)
    if plan is not None:
        content = read_plan(plan)
        runs, values = content["run"], merge_plan(context, content)
    run(values, settings_of(values, runs))


def run(values: dict, settings: Sequence[Setting]) -> None:
    """Carry out an experiment and report it."""
    baseline = check_names(settings, values["baseline"])
    wanted = [(setting, *_asked(setting, values["capacity"])) for setting in settings]
    out = values["out"] or _default_folder(values, wanted[0][1])
    open_pool_later = _pool(values)
    with alone(out / ".lock"), progress() as report:
        where = Where(out, BUILD_DIR / "simulate", cache_folder(values["cache"]), _workers(values), report)
        loader = Loader(values)
        scenario = loader.scenario()
        preparation = Preparation(loader.data(), scenario, where, values["pixels"])
        made = [preparation.run_of(*item) for item in wanted]
        seeds = range(values["first_seed"], values["first_seed"] + values["seeds"])
        identity = {"sha256": loader.labels().sha256}
        experiment = Experiment(made, scenario, seeds, identity, out, values["evaluate_every"], baseline)
        carry_out(experiment, open_pool_later, report)
    results = collect(experiment)
    summary = summarize(experiment, results)
    write_tables(experiment, results, summary)
    names = [loader.labels().classes[c] for c in scenario.classes]
    pictures = draw(experiment, results, summary, names)
    _finish(experiment, summary, pictures, values["as_json"])


def _finish(experiment: Experiment, summary: list[dict], pictures: list[Path], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(document(experiment, summary) + "\n")
        return
    print_table(experiment, summary)
    say(f"results: {short(experiment.out)}/results.csv, summary.csv; pictures: "
        f"{', '.join(path.name for path in pictures)}")


def _asked(setting: Setting, capacity: int | None) -> tuple[Path, BuildOptions]:
    """Return the model file and the build options of a setting. UsageError: that cannot learn."""
    options = options_from(setting.values)
    if options.float32:
        raise UsageError(
            "float32 builds do not learn",
            where="--activations float32",
            why="float32 is the reference for inference; latents and the learned head are integers (docs/adr/0003)",
            fix="leave --activations out, or give int8 or int16",
        )
    path = find_model(setting.model, ".onnx", "bnngen export")
    check_head(load_onnx(path), "bnngen simulate")
    if capacity is not None:
        options = replace(options, learn=replace(options.learn, capacity=capacity))
    return path, options


def _pool(values: dict) -> Callable:
    cluster, workers = values["cluster"], _workers(values)
    if cluster is not None:
        check_cluster(cluster)  # before anything is built
    return lambda: open_pool(cluster, workers)


def _workers(values: dict) -> int:
    return values["workers"] or len(os.sched_getaffinity(0))


def _default_folder(values: dict, model: Path) -> Path:
    return BUILD_DIR / f"simulate-{model.stem}-{Path(values['data']).stem}-{values['scenario']}"


class Loader:
    """The images that the options name, loaded once."""

    def __init__(self, values: dict) -> None:
        self.values = values
        self._loaded: dict[str, Dataset] = {}
        self._core50 = None
        if values["scenario"] == "core50":
            from bnngen.data.core50 import load_core50

            lists = values["lists"]
            if lists is None:
                raise UsageError("scenario core50 needs its lists", where="--lists",
                                 why="they say which images an experience shows",
                                 fix="--lists FOLDER, which holds run0/train_batch_00_filelist.txt ...")
            self._core50 = load_core50(Path(values["data"]), lists)

    def labels(self) -> Dataset:
        """Return the data set; its images may be of another shape than a model's."""
        if self._core50 is not None:
            return self._core50.dataset(None)
        return self._load(self.values["data"])

    def scenario(self) -> Scenario:
        """Return the scenario that the options describe."""
        values, data = self.values, self.labels()
        known = [int(c) for c in np.unique(data.y_train)]
        order, classes = class_ids(values["order"]), class_ids(values["classes"])
        wanted = tuple(sorted(set(classes or order or known)))
        wrong = [c for c in wanted if c >= len(data.classes)]
        if wrong:
            raise UsageError(f"there is no class {wrong[0]}", where="--classes or --order",
                             why=f"{data.name} has classes 0 to {len(data.classes) - 1}", fix="name existing classes")
        names = ("first", "per_experience", "experiences", "groups_per_experience", "train_limit")
        return Scenario(values["scenario"], wanted, order, **{name: values[name] for name in names})

    def data(self) -> Data:
        """Return what jobs are prepared from."""
        values, other = self.values, self.values["pretraining"]
        load = self._core50.dataset if self._core50 else lambda shape: fit_data(self._load(values["data"]), shape)
        pretraining = (lambda shape: fit_data(self._load(other), shape)) if other else None
        lists = self._core50.places if self._core50 else None
        return Data(load, values["groups"], values["test_limit"], lists, pretraining, values["pretraining_limit"])

    def _load(self, spec: str) -> Dataset:
        if spec not in self._loaded:
            self._loaded[spec] = load_data(spec)
        return self._loaded[spec]
