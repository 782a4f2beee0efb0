"""How a run stands: what is made, what runs where since when, what failed and why, and how long the rest will take.

What enters: a run's folder, and the configuration that its Snakemake started with. What leaves: a `Status`, for people and
for programs. It works while the run goes on, after it was killed, and on a finished run without data and weights; nothing
is hashed, and no torch is imported.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfeat.config import Settings
from dfeat.config.files import read_settings
from dfeat.config.points import Run
from dfeat.config.shards import stated_images
from dfeat.costs.counts import is_small
from dfeat.costs.estimate import estimate
from dfeat.costs.measured import speeds_of
from dfeat.errors import UserError
from dfeat.places import HOLDOUT, Place
from dfeat.section import parse
from dfeat.status.jobs import Job, jobs_of
from dfeat.status.standing import Standing, marked_by_snakemake, stand
from dfeat.storage.atomic import under_way
from dfeat.storage.expected import FILE
from dfeat.storage.records import read_json
from dfeat.verify import check_is_run


@dataclass(frozen=True)
class Status:
    """How a run stands. `at_work` is whether a Snakemake works on it, `locked` whether one began and never unlocked."""

    run: str
    at_work: bool
    locked: bool
    jobs: list[Standing]
    expected: dict[str, tuple[float, str]]
    """Seconds that a job of each kind takes, where that is known, and from what: measured, or planned on a card."""

    def count(self, *states: str) -> int:
        """How many jobs are in one of these states."""
        return sum(job.state in states for job in self.jobs)

    @property
    def running(self) -> int:
        """How many jobs run."""
        return self.count("running")

    @property
    def seconds_left(self) -> float | None:
        """Seconds that what is not made takes, one job after another, without jobs of `unknown` kinds; None without others."""
        left = [self.left_of(job) for job in self.jobs if job.state != "made"]
        known = [seconds for seconds in left if seconds is not None]
        return sum(known) if known or not left else None

    @property
    def unknown(self) -> list[str]:
        """The kinds of jobs that are not made and of which nothing says how long they take."""
        return list(dict.fromkeys(job.kind for job in self.jobs if job.state != "made" and self.left_of(job) is None))

    def left_of(self, job: Standing) -> float | None:
        """Seconds that a job that is not made still takes; None where no job of its kind was measured or planned."""
        if job.seconds_left is not None:
            return job.seconds_left
        if job.kind not in self.expected:
            return None
        gone = job.seconds or 0.0 if job.state == "running" else 0.0
        return max(0.0, self.expected[job.kind][0] - gone)


def status_of(folder: Path, settings: Settings | None = None) -> Status:
    """How the run in `folder` stands, by `settings` (default: the configuration that its last Snakemake started with).

    Raises UserError where there is no run, or an older one that does not record its configuration.
    """
    check_is_run(folder)
    configured = settings or _configured(folder)
    run = Run(configured)
    run.place = Place(folder)
    working = folder.absolute().parents[1]
    locked = any((working / ".snakemake" / "locks").glob("*"))
    here = under_way(folder)
    marked = marked_by_snakemake(working)
    jobs = jobs_of(run)
    standing = [stand(job, marked, here, locked) for job in jobs]
    return Status(configured.run, here, locked, standing, _expected(configured, jobs, standing))


def _configured(folder: Path) -> Settings:
    recorded = read_json(folder / FILE, "adopt") if (folder / FILE).is_file() else {}
    configuration = recorded.get("configuration") if isinstance(recorded, dict) else None
    if configuration is not None:
        return parse(Settings, configuration, str(folder / FILE))
    shown = folder / "report" / "config.yaml"
    if shown.is_file():
        return read_settings([shown])
    raise UserError(
        f"{folder} does not record its configuration, as runs of earlier versions do not; give it, with a --config for each "
        "file of `--configfile`"
    )


def _expected(settings: Settings, jobs: Sequence[Job], standing: Sequence[Standing]) -> dict[str, tuple[float, str]]:
    """What a job of each kind takes: the median of those that ended, or else the plan's estimate."""
    took: dict[str, list[float]] = defaultdict(list)
    for found in standing:
        if found.state != "running" and found.seconds is not None:
            took[found.kind].append(found.seconds)
    planned = _planned(settings)
    kinds = dict.fromkeys(job.kind for job in jobs)
    known = {kind: planned[step] for kind in kinds if (step := _step_of(kind)) in planned}
    return known | {
        kind: (statistics.median(seconds), f"measured, {len(seconds)} jobs") for kind, seconds in took.items()
    }


def _step_of(kind: str) -> str:
    """The step of a kind of jobs; of evaluations with the set, whose sizes differ."""
    step, _, model = kind.partition(" of ")
    return f"{step} on {model.rpartition(' on ')[2]}" if step == "evaluation" else step


def _planned(settings: Settings) -> dict[str, tuple[float, str]]:
    """Seconds of a job by the plan, of each step that computes on a device; none for models of sizes it does not know."""
    if is_small(settings):
        return {}
    try:
        speeds = speeds_of(settings)
    except UserError:  # resources.measured is gone
        return {}
    images = {name: count for name, count in stated_images(settings).items() if name != HOLDOUT}
    costs = {cost.step: cost for cost in estimate(settings, images)}
    for name, chosen in settings.data.evaluation.items():
        alone = settings.model_copy(update={"data": settings.data.model_copy(update={"evaluation": {name: chosen}})})
        costs[f"evaluation on {name}"] = next(cost for cost in estimate(alone, images) if cost.step == "evaluation")
    return {
        step: (3600 * cost.hours(speeds).central / cost.jobs, f"planned on one {speeds.card}")
        for step, cost in costs.items()
        if cost.flops
    }


def as_plain(status: Status) -> dict[str, Any]:
    """The status for programs."""
    states = ("made", "running", "failed", "left")
    return {
        "run": status.run,
        "at_work": status.at_work,
        "locked": status.locked,
        "jobs": {state: status.count(state) for state in states},
        "seconds_left": status.seconds_left,
        "unknown": status.unknown,
        "expected": {
            kind: {"seconds": seconds, "source": source} for kind, (seconds, source) in status.expected.items()
        },
        "standing": [
            vars(job) | {"seconds_left": status.left_of(job)} if job.state != "made" else vars(job)
            for job in status.jobs
        ],
    }
