# SPDX-License-Identifier: Apache-2.0
"""From what a user writes, options with several values, to the settings of single runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product

from bnngen.continual.methods import METHODS, Tuning
from bnngen.errors import UsageError

TUNING = {f.name: f.type for f in fields(Tuning)}


@dataclass(frozen=True)
class Setting:
    """One run before anything is built. values: options by name, a single value each; method: of a reference method,
    None for a compiled run; tuning: its own options."""

    name: str
    model: str
    values: dict[str, object]
    method: str | None = None
    tuning: tuple[tuple[str, object], ...] = ()


def expand(name: str, choices: Mapping[str, Sequence[object]]) -> list[tuple[str, dict[str, object]]]:
    """Return (name, option -> value) for every combination; the name says what varies."""
    varying = [option for option, values in choices.items() if len(values) > 1]
    made = []
    for combination in product(*choices.values()):
        chosen = dict(zip(choices, combination, strict=True))
        said = ", ".join(f"{option.rpartition('.')[2].replace('_', '-')} {chosen[option]}" for option in varying)
        made.append((", ".join(filter(None, (name, said))), chosen))
    return made


def check_method(name: str, where: str) -> str:
    """Return the name of a reference method. UsageError: there is none of that name."""
    if name not in METHODS:
        raise UsageError(f"there is no method {name!r}", where=where, fix=f"one of {', '.join(METHODS)}")
    return name


def check_names(settings: Sequence[Setting], baseline: str | None) -> str:
    """Return the baseline's name, the first run's by default. UsageError: two runs of one name, no such baseline."""
    names = [setting.name for setting in settings]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(f"two runs are called {twice[0]!r}", where="[[run]]", fix="give each a name of its own")
    if baseline is None:
        return names[0]
    if baseline not in names:
        raise UsageError(f"no run is called {baseline!r}", where="baseline", fix=f"one of: {'; '.join(names)}")
    return baseline
