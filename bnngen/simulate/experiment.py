# SPDX-License-Identifier: Apache-2.0
"""An experiment: runs times seeds. Does what is not done yet, and makes one table of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bnngen.continual.scenarios import Scenario
from bnngen.errors import TrainingInterrupted
from bnngen.simulate.config import Job, Run, key_of
from bnngen.simulate.executors import Pool, run_jobs
from bnngen.simulate.job import load_samples
from bnngen.simulate.results import COLUMNS, done_experiences, read_result, rows_of, write_csv
from bnngen.simulate.statistics import half_width, mean_std, paired

SUMMARY = (
    "run", "seeds", "final_accuracy_mean", "final_accuracy_std", "final_accuracy_ci95", "final_accuracy_seen_mean",
    "final_accuracy_seen_std", "final_accuracy_seen_ci95", "final_forgetting_mean", "difference_mean",
    "difference_ci95", "state_bytes", "learning_ram_bytes", "key",
)  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """runs by seeds over one scenario. data: what identifies the images, for the keys of the results."""

    runs: Sequence[Run]
    scenario: Scenario
    seeds: Sequence[int]
    data: dict[str, object]
    out: Path
    evaluate_every: int
    baseline: str

    def job(self, run: Run, seed: int) -> Job:
        key = key_of(run, self.scenario, self.data, self.evaluate_every)
        out = self.out / "seeds" / key / f"{seed}.json"
        return Job(run, self.scenario, seed, str(out.resolve()), self.evaluate_every)

    def jobs(self) -> list[Job]:
        """All jobs, seed by seed, so that an interrupted experiment has whole pairs."""
        return [self.job(run, seed) for seed in self.seeds for run in self.runs]


def carry_out(experiment: Experiment, pool: Callable[[], Pool], progress: Callable[[str, int, int], None]) -> None:
    """Do every job that has no result yet. TrainingInterrupted: the user has stopped it; what is done is kept."""
    jobs = experiment.jobs()
    missing = [job for job in jobs if not Path(job.out).exists()]
    if not missing:
        return
    total = len(load_samples(missing[0]).stream)  # of the first seed; others may differ by a few

    def tick() -> None:
        progress("experiences learned and tested", sum(done_experiences(job, total) for job in jobs), total * len(jobs))

    try:
        run_jobs(missing, pool(), tick)
    except KeyboardInterrupt:
        done = sum(Path(job.out).exists() for job in jobs)
        raise TrainingInterrupted(
            f"stopped: {done} of {len(jobs)} jobs are done",
            where=str(experiment.out),
            why="what was learned and tested is kept there",
            fix="run the same command again: it goes on from there",
        ) from None


def collect(experiment: Experiment) -> dict[str, list[dict]]:
    """Return the results of each run by seed, in the order of the seeds."""
    return {
        run.name: [read_result(Path(experiment.job(run, seed).out)) for seed in experiment.seeds]
        for run in experiment.runs
    }


def summarize(experiment: Experiment, results: dict[str, list[dict]]) -> list[dict]:
    """Return a row per run: means over seeds after the last experience, and paired differences to the baseline."""
    reference = finals(results[experiment.baseline], "accuracy_all")
    rows = []
    for run in experiment.runs:
        found = results[run.name]
        every, seen = finals(found, "accuracy_all"), finals(found, "accuracy_seen")
        forgotten = [f for f in (r["experiences"][-1]["forgetting"] for r in found) if f is not None]
        difference, width = paired(every, reference)
        is_baseline = run.name == experiment.baseline
        values = (
            run.name, len(found), *mean_std(every), half_width(every), *mean_std(seen), half_width(seen),
            mean_std(forgotten)[0] if forgotten else None,
            None if is_baseline else difference, None if is_baseline else width,
            found[0]["state_bytes"], found[0]["learning_ram_bytes"],
            Path(experiment.job(run, experiment.seeds[0]).out).parent.name,
        )  # fmt: skip
        rows.append(dict(zip(SUMMARY, values, strict=True)))
    return rows


def finals(results: Sequence[dict], name: str) -> list[float]:
    """Return a measure after the last experience, for each seed."""
    return [result["experiences"][-1][name] for result in results]


def write_tables(experiment: Experiment, results: dict[str, list[dict]], summary: Sequence[dict]) -> None:
    """Write results.csv, a row per run, seed and experience, and summary.csv, a row per run."""
    rows = (row for name, found in results.items() for result in found for row in rows_of(result, name))
    write_csv(experiment.out / "results.csv", COLUMNS, rows)
    write_csv(experiment.out / "summary.csv", SUMMARY, summary)
