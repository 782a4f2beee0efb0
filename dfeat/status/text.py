"""A run's status as text for people: a table of the steps, and a line for each job that runs, failed or met trouble."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from dfeat.costs.text import aligned
from dfeat.progress import duration
from dfeat.status import Status
from dfeat.status.standing import Standing

_SHOWN = 12
"""Jobs of a kind of line that are shown, the others counted."""


def as_text(status: Status) -> str:
    """The status for people."""
    counts = [f"{status.count('made')} of {len(status.jobs)} jobs made"]
    counts += [f"{count} {state}" for state in ("running", "failed", "left") if (count := status.count(state))]
    lines = [f'The run "{status.run}": {", ".join(counts)}. {_snakemake(status)}', "", *aligned(_table(status))]
    for title, state in (("Running", "running"), ("Failed", "failed")):
        lines += _section(title, [_line(status, job) for job in status.jobs if job.state == state])
    troubled = [job for job in status.jobs if job.state != "failed" and (job.attempts > 1 or job.halved)]
    lines += _section("Made or going on after trouble", [_trouble(job) for job in troubled])
    return "\n".join([*lines, *_left(status)]) + "\n"


def _snakemake(status: Status) -> str:
    if status.at_work:
        return "Snakemake is at work."
    if status.locked:
        return "Snakemake was killed, or works on another machine; where it is dead, `snakemake --unlock`."
    return "No Snakemake is at work."


def _table(status: Status) -> list[tuple[str, ...]]:
    """A line for each kind of job."""
    rows: list[tuple[str, ...]] = [("step", "jobs of", "made", "running", "failed", "left", "a job takes")]
    for step, kind in dict.fromkeys((job.step, job.kind) for job in status.jobs):
        of_kind = [job for job in status.jobs if (job.step, job.kind) == (step, kind)]
        counts = [sum(job.state == state for job in of_kind) for state in ("made", "running", "failed", "left")]
        seconds, source = status.expected.get(kind, (None, ""))
        takes = f"{duration(seconds)} ({source})" if seconds is not None else ""
        rows.append((step, kind, *(str(count) if count else "" for count in counts), takes))
    return rows


def _section(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield from ("", f"{title}:", *(f"  {line}" for line in lines[:_SHOWN]))
    if len(lines) > _SHOWN:
        yield f"  and {len(lines) - _SHOWN} more (--json has all)"


def _line(status: Status, job: Standing) -> str:
    if job.state == "failed":
        return f"{job.step} {job.name}: {job.told}  [{job.log}]"
    since = datetime.fromisoformat(job.since).strftime("%d %b %H:%M") if job.since else ""
    left = status.left_of(job)
    parts = [f"for {duration(job.seconds or 0)}, since {since}", f"on {job.where}" if job.where else "", job.told]
    parts += [f"some {duration(left)} left" if left else ""]
    return f"{job.step} {job.name}: {'; '.join(filter(None, parts))}"


def _trouble(job: Standing) -> str:
    met = [f"attempt {job.attempts}"] if job.attempts > 1 else []
    met += [f"batches halved to {job.halved[-1]}"] if job.halved else []
    met += [f"before: {job.failures[-1]}"] if job.failures else []
    return f"{job.step} {job.name}: {', '.join(met)}"


def _left(status: Status) -> Iterator[str]:
    if status.count("made") == len(status.jobs):
        return
    total, unknown = status.seconds_left, ", ".join(status.unknown)
    if total is None:
        yield from ("", f"Time left is not known: no job has been measured or planned of {unknown}.")
        return
    at_once = (
        f"; {duration(total / status.running)} with {status.running} at once, as now" if status.running > 1 else ""
    )
    further = f", and what no job has been measured of: {unknown}" if unknown else ""
    yield from ("", f"Left: some {duration(total)}, one job after another{at_once}{further}.")
