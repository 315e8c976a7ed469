# SPDX-License-Identifier: Apache-2.0
"""What jobs leave on disk, and the tables made of it.

A job that runs keeps OUT/seeds/KEY/SEED.part, a line of JSON per experience; when it is done SEED.json takes its
place, written beside and renamed. results.csv has a row per run, seed and experience; summary.csv a row per run.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from bnngen.errors import DataError
from bnngen.simulate.config import Job, Memory

COLUMNS = (
    "run", "seed", "experience", "classes", "accuracy_seen", "accuracy_all", "forgetting", "samples", "steps",
    "verdict", "seconds", "state_bytes", "learning_ram_bytes",
)  # fmt: skip
PART_KEYS = {"experience", "classes", "samples", "steps", "verdict", "learn_seconds", "state", "per_class"}


def read_part(path: Path) -> list[dict]:
    """Return the finished experiences of a job that was stopped. A last line that was cut off does not count, nor does
    anything from the first damaged line on."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = text.split("\n")[:-1]
    rows: list[dict] = []
    for line in lines:
        row = _row(line)
        if row is None or row["experience"] != len(rows):
            break
        rows.append(row)
    if len(rows) < len(lines) or not text.endswith("\n"):
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def _row(line: str) -> dict | None:
    """Return a finished experience, None where the line is not one."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and row.keys() >= PART_KEYS else None


def append_part(path: Path, row: dict) -> None:
    """Add a finished experience."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def write_result(job: Job, rows: list[dict], memory: Memory) -> None:
    """Write the result of a job, and drop its part."""
    document = {
        "run": job.run.name,
        "seed": job.seed,
        "identity": job.run.identity,
        "classes": list(job.scenario.classes),
        "state_bytes": memory.state,
        "learning_ram_bytes": memory.peak,
        "memory": memory.items,
        "experiences": rows,
    }
    write_text(Path(job.out), json.dumps(document, indent=1, default=str) + "\n")
    job.part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def read_result(path: Path) -> dict:
    """Return the result of a job. DataError: the file is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            "this is not a result", where=str(path), why=str(error), fix="delete it and run again"
        ) from error


def done_experiences(job: Job, total: int) -> int:
    """Return how many experiences of a job are finished; all of `total` when it is done."""
    if Path(job.out).exists():
        return total
    try:
        return job.part.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def rows_of(result: dict, name: str) -> Iterable[dict]:
    """Yield the rows of results.csv of one job, under the name that the run has now."""
    for row in result["experiences"]:
        yield {
            "run": name,
            "seed": result["seed"],
            "experience": row["experience"],
            "classes": " ".join(map(str, row["classes"])),
            "accuracy_seen": row["accuracy_seen"],
            "accuracy_all": row["accuracy_all"],
            "forgetting": row["forgetting"],
            "samples": row["samples"],
            "steps": row["steps"],
            "verdict": row["verdict"],
            "seconds": row["learn_seconds"],
            "state_bytes": result["state_bytes"],
            "learning_ram_bytes": result["learning_ram_bytes"],
        }


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict]) -> None:
    """Write rows with a header, whole or not at all; None is an empty cell."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)


def read_summary(folder: Path) -> list[dict]:
    """Return the rows of a folder's summary.csv, numbers as numbers. DataError: there is none."""
    path = folder / "summary.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{name: _number(text) for name, text in row.items()} for row in csv.DictReader(file)]
    except OSError as error:
        raise DataError(
            f"{folder} holds no results",
            where=str(path),
            why=error.strerror or str(error),
            fix="bnngen simulate -o FOLDER",
        ) from error


def _number(text: str) -> float | str | None:
    try:
        return float(text)
    except ValueError:
        return text or None
