# SPDX-License-Identifier: Apache-2.0
"""A plan: the TOML file of a sweep, or options with several values, as settings of single runs (docs/simulate.md)."""

from __future__ import annotations

import tomllib
from pathlib import Path

import click

from bnngen.cli.simulate_options import is_several, parameters, widened
from bnngen.errors import UsageError
from bnngen.simulate.settings import TUNING, Setting, check_method, expand

SPELLINGS = {"qf": "q_f", "qb": "q_b", "json": "as_json"}
NOT_OF_A_RUN = ("name", "method", "model")
OF_METHOD = "method."  # keeps options of a reference method apart from learning options of the same name


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
        return [setting for run in runs for setting in _settings(values, run, "--methods")]
    return [setting for run in runs for setting in _settings(values, run, f"run {run.get('name', '')!r} of the plan")]


def _settings(values: dict, run: dict, where: str) -> list[Setting]:
    """Return the settings of one table: every combination where options have several values."""
    method, own = run.get("method"), parameters()
    if method is not None:
        check_method(method, where)
    choices = {name: _choices(values[name]) for name in own}
    if method is not None:  # what the command line sweeps is swept for the compiled head, not for every method
        choices = {name: picked[:1] for name, picked in choices.items()}
    for name, value in run.items():
        if method is not None and name in TUNING:
            choices[OF_METHOD + name] = tuple(value) if isinstance(value, list) else (value,)
        elif name in own:
            choices[name] = _choices(_converted(widened(own[name]), value, where))
        elif name not in NOT_OF_A_RUN:
            raise UsageError(f"a run has no {name!r}", where=where, fix="options of bnngen build, name, method, model")
    made = expand(str(run.get("name") or method or ""), choices)
    return [
        Setting(
            name or "learned head",
            str(run.get("model", values["model"])),
            {n: v for n, v in picked.items() if n in own},
            method,
            tuple((n.removeprefix(OF_METHOD), v) for n, v in sorted(picked.items()) if n.startswith(OF_METHOD)),
        )
        for name, picked in made
    ]


def _choices(value: object) -> tuple:
    return value if isinstance(value, tuple) else (value,)


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
