# SPDX-License-Identifier: Apache-2.0
"""A plan: the TOML file of a sweep, or options with several values, as settings of single runs (docs/simulate.md)."""

from __future__ import annotations

import tomllib
from pathlib import Path

import click

from bnngen.cli.build import LEARN_OPTIONS
from bnngen.cli.simulate_options import is_several, parameters, widened
from bnngen.errors import UsageError
from bnngen.simulate.settings import TUNING, Setting, check_method, expand

SPELLINGS = {"qf": "q_f", "qb": "q_b", "json": "as_json"}
NOT_OF_A_RUN = ("name", "method", "model")


def read_plan(path: Path) -> dict:
    """Return the content of a plan with option names as Python has them. UsageError: it is none."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path} is no plan", where="--plan", why=why or "", fix="see docs/simulate.md") from error
    runs = content.pop("run", [])
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs) or not runs:
        raise UsageError("a plan has runs", where=str(path), why="there is no [[run]]", fix="add one: [[run]]")
    return _named(content) | {"run": [_named(run) for run in runs]}


def merge_plan(context: click.Context, plan: dict) -> dict:
    """Return the command's options: as written on the command line, else as in the plan, else the defaults."""
    values = dict(context.params)
    options = {option.name: option for option in context.command.params}
    for name, value in plan.items():
        if name == "run":
            continue
        if name not in options or name == "plan":
            raise UsageError(f"a plan has no {name!r}", where="--plan", fix="see bnngen simulate --help")
        if context.get_parameter_source(name) == click.core.ParameterSource.DEFAULT:
            values[name] = _converted(options[name], value, "--plan")
    return values


def settings_of(values: dict, runs: list[dict]) -> list[Setting]:
    """Return the runs that the options and the tables [[run]] of a plan ask for."""
    if not runs:
        methods = [m.strip() for m in (values["methods"] or "").split(",") if m.strip()]
        runs = [{}, *({"name": name, "method": name} for name in methods)]
        return [setting for run in runs for setting in _settings(values, run, "" if run else "learned head")]
    return [setting for run in runs for setting in _settings(values, run, f"run {run.get('name', '')!r} of the plan")]


def _settings(values: dict, run: dict, where: str) -> list[Setting]:
    """Return the settings of one table: every combination where options have several values."""
    method = run.get("method")
    own = parameters()
    if method is not None:
        check_method(method, where or "--methods")
    chosen, tuning = {name: values[name] for name in own}, {}
    for name, value in run.items():
        if name in own:
            chosen[name] = _converted(widened(own[name]), value, where)
        elif method is not None and name in TUNING:
            tuning[name] = tuple(value) if isinstance(value, list) else (value,)
        elif name not in NOT_OF_A_RUN:
            raise UsageError(f"a run has no {name!r}", where=where, fix="options of bnngen build, name, method, model")
    several = {name: v if is_several(own[name]) else (v,) for name, v in chosen.items()}
    if method is not None:  # what the command line sweeps is swept for the compiled head, not for every method
        several = {n: v if n in run else v[:1] for n, v in several.items()}
    title = str(run.get("name") or method or ", ".join(f"{LABELS.get(n, n)} {run[n]}" for n in run if n in LEARN_NAMES))
    made = expand(title or "" if len(run) or _varies(several) else "learned head", several | tuning)
    model = str(run.get("model", values["model"]))
    return [
        Setting(
            name or "learned head",
            model,
            {n: v for n, v in picked.items() if n in own},
            method,
            tuple(sorted((n, v) for n, v in picked.items() if n in tuning)),
        )
        for name, picked in made
    ]


LEARN_NAMES = tuple(LEARN_OPTIONS.values())
LABELS = {name: name.replace("_", "-") for name in LEARN_NAMES}


def _varies(several: dict[str, tuple]) -> bool:
    return any(len(values) > 1 for values in several.values())


def _named(table: dict) -> dict:
    """Return a table with option names as Python has them."""
    return {SPELLINGS.get(name, name.replace("-", "_")): value for name, value in table.items()}


def _converted(option: click.Parameter, value: object, where: str) -> object:
    """Return a value as the option's type takes it. UsageError: it does not."""
    if isinstance(value, list) and not is_several(option):
        raise UsageError(f"{option.name} has one value, not several", where=where, fix="write a [[run]] for each")
    try:
        return option.type.convert(value if isinstance(value, list | bool) else str(value), option, None)
    except click.BadParameter as error:
        fix = "give it a value that bnngen simulate --help allows"
        raise UsageError(f"{option.name}: {error.message.rstrip('.')}", where=where, fix=fix) from error
