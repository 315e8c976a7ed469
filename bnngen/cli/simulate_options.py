# SPDX-License-Identifier: Apache-2.0
"""The options of `bnngen simulate`: those of build, with several values where a sweep may have them, and its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from bnngen.cli.build import LEARN_OPTIONS, build_options, model_option
from bnngen.continual.scenarios import NIC_GROUPS, SCENARIOS

ALIASES = {"q_f": "--qf", "q_b": "--qb"}


class Several(click.ParamType):
    """One value or several with commas between, each of another type; becomes a tuple."""

    name = "values"

    def __init__(self, kind: click.ParamType) -> None:
        self.kind = kind

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple:
        if isinstance(value, tuple):
            return value
        parts = value if isinstance(value, list) else str(value).split(",")
        return tuple(self.kind.convert(str(part).strip(), param, ctx) for part in parts)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str | None:
        if isinstance(self.kind, click.Choice):
            return f"[{'|'.join(map(str, self.kind.choices))}],..."
        return f"{self.kind.name.upper().replace(' RANGE', '')},..."


def parameters() -> dict[str, click.Option]:
    """Return the options of build by name."""

    @build_options
    def probe() -> None: ...

    return {option.name: option for option in probe.__click_params__}  # type: ignore[attr-defined]


def is_several(option: click.Option) -> bool:
    """True for a learning option that a sweep may give several values."""
    return option.name in LEARN_OPTIONS.values() and not option.is_flag


def widened(option: click.Option) -> click.Option:
    """Return an option of build as simulate has it."""
    if not is_several(option):
        return option
    names = [option.name, *option.opts, *filter(None, [ALIASES.get(option.name)])]
    usual = option.to_info_dict()["default"]
    default = {} if usual is None else {"default": str(usual), "show_default": True}
    return click.Option(names, type=Several(option.type), help=option.help, **default)


COUNT = click.IntRange(min=1)
FILE = click.Path(path_type=Path)
DATA = "digits, cifar10, cifar100, fashion_mnist, FILE.npz, or a FOLDER: of images per class, or of CORe50's images."
OWN = (
    model_option,
    click.option("--data", default="digits", show_default=True, help=DATA),
    click.option("--scenario", type=click.Choice(SCENARIOS), default="nc", show_default=True,
                 help="nc: new classes; ni: new instances; nicv2: a class and a few of its tracks at a time, classes "
                 "return; group: a speaker or site at a time; core50: from lists of files."),
    click.option("--seeds", type=COUNT, default=3, show_default=True, help="Streams: so many, seeds 0, 1, 2 ..."),
    click.option("--first-seed", type=click.IntRange(min=0), default=0, show_default=True, help="The first of them."),
    click.option("--classes", help="Only these classes, for example 80-99; the head counts them from 0."),
    click.option("--order", help="Scenario nc: the classes in this order, whatever the seed."),
    click.option("--first", type=COUNT, help="Classes in the first experience; scenario group: groups."),
    click.option("--per-experience", type=COUNT, help="Classes in each later one; scenario group: groups. Default: nc "
                 "a fifth of up to 10 classes, a tenth of more; otherwise 1."),
    click.option("--experiences", type=COUNT, help="Scenario ni: how many (default 10). Others: end after so many."),
    click.option("--groups", help="Name of the groups: NAME_train in the .npz file. Default: groups, track, session "
                 "or speaker where the scenario needs them."),
    click.option("--groups-per-experience", type=COUNT, default=NIC_GROUPS, show_default=True,
                 help="Scenario nicv2: tracks of a class at a time."),
    click.option("--lists", type=FILE, help="Scenario core50: folder of its batch lists, run0/, run1/ ..."),
    click.option("--train-limit", type=COUNT, help="At most this many training images of a class."),
    click.option("--test-limit", type=COUNT, help="At most this many test images of a class."),
    click.option("--evaluate-every", type=COUNT, default=1, show_default=True,
                 help="Test after every so many experiences, and after the last."),
    click.option("--capacity", type=click.IntRange(min=2), help="Most classes of the learned head. Default: the "
                 "model's."),
    click.option("--methods", help="Reference methods in NumPy beside the compiled head: nearest-mean,slda,..."),
    click.option("--pretraining", help="Data that the backbone was trained on, for methods that need some; as --data."),
    click.option("--pretraining-limit", type=COUNT, default=2000, show_default=True, help="So many images of it."),
    click.option("--plan", type=FILE, help="A TOML file with the runs of a sweep (docs/simulate.md)."),
    click.option("--baseline", help="Name of the run that the others are compared with. Default: the first."),
    click.option("--pixels", is_flag=True, help="Learn and test from pixels, without cached tensors."),
    click.option("--cache", type=FILE, help="Folder of cached tensors. Default: ~/.cache/bnngen/simulate."),
    click.option("--workers", type=COUNT, help="Processes. Default: one for each core."),
    click.option("--cluster", help="Hand the jobs to a cluster: dask[:ADDRESS] or ray[:ADDRESS]."),
    click.option("--json", "as_json", is_flag=True, help="The last line of the output is one JSON object."),
    click.option("-o", "--out", type=FILE, help="Folder of the results. Default: build/simulate-MODEL-DATA-SCENARIO."),
)  # fmt: skip


def simulate_options(function: Callable) -> Callable:
    """Add all options of the command."""
    for option in parameters().values():  # last first, as decorators are applied
        function.__dict__.setdefault("__click_params__", []).append(widened(option))
    for decorator in reversed(OWN):
        function = decorator(function)
    return function
