"""How each job of a run stands: made, running, failed or left, where and since when, and what its attempts met.

What enters: a job, what stands of its files, its log and benchmark, the record of its attempts, and what Snakemake has marked
as begun. What leaves: a `Standing`. Nothing is opened of a job that was not begun, and no artifact of any is read.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from dfeat.devices.attempts import ENDED, is_alive, read_attempts
from dfeat.report.tables.measured import benchmark_rows
from dfeat.status.jobs import Job
from dfeat.storage.journal import journal_rows, journals

Marks = dict[Path, tuple[float, str]]
State = Literal["made", "running", "failed", "left"]
_TAIL: Final = 4096
"""Bytes of the end of a log that are read for its last line."""


@dataclass
class Standing:
    """A job's state. Times are seconds, `since` is ISO 8601; what is not known is None or empty."""

    name: str
    step: str
    kind: str
    state: State
    log: str = ""
    since: str | None = None
    where: str = ""
    told: str = ""
    """What it is at, or what went wrong."""
    seconds: float | None = None
    """What it took when it last ended; of one that runs, what it has been at."""
    seconds_left: float | None = None
    attempts: int = 0
    halved: list[int] = field(default_factory=list)
    """Rows at a time after each halving of a batch that did not fit the memory."""
    failures: list[str] = field(default_factory=list)
    """What was wrong in attempts that failed, the last attempt's included."""
    computed: dict[str, float] = field(default_factory=dict)
    """Rows, seconds of computing and of waiting for images, and bytes of memory of the last attempt that computed."""


def marked_by_snakemake(folder: Path) -> Marks:
    """What Snakemake has marked in a working folder as begun and not as done: by path the time, and the id of a scheduler's
    job."""
    marked: Marks = {}
    root = folder / ".snakemake" / "incomplete"
    for path in root.rglob("*") if root.is_dir() else ():
        try:
            # A long name is split over folders, whose names begin with @.
            encoded = "".join(part.removeprefix("@") for part in path.relative_to(root).parts)
            name = base64.urlsafe_b64decode(encoded).decode()
            content = json.loads(path.read_text())
            marked[(folder / name).resolve()] = path.stat().st_mtime, str(content.get("external_jobid") or "")
        except (OSError, ValueError, AttributeError):
            continue
    return marked


def stand(job: Job, marked: Marks, here: bool, elsewhere: bool) -> Standing:
    """How a job stands; `here` and `elsewhere` are whether a Snakemake is at work on its run, or may be on another host."""
    lines = read_attempts(job.place.attempts(job.step, job.name))
    begun = [line for line in lines if line.get("event") == "begun"]
    found = Standing(job.title, job.step, job.kind, "left", str(job.log), attempts=len(begun))
    found.halved = [int(line["batch"]) for line in lines if line.get("event") == "halved" and "batch" in line]
    found.failures = [str(line.get("why")) for line in lines if line.get("event") == "failed"]
    last: dict[str, Any] = next((line for line in reversed(lines) if line.get("event") == "computed"), {})
    found.computed = {name: last[name] for name in ("rows", "seconds", "waited", "memory") if name in last}
    mark = next((marked[path] for path in (one.resolve() for one in job.makes if marked) if path in marked), None)
    open_since = begun[-1] if begun and lines[-1].get("event") not in (ENDED, "failed", "stopped") else None
    if open_since is not None:
        alive = is_alive(open_since)
        runs = alive or (alive is None and mark is not None and (here or elsewhere))
    else:
        runs = here and mark is not None and not _told(begun, mark)
    if runs:
        _running(job, found, lines if open_since else [], open_since, mark)
        return found
    found.seconds = _took(job)
    if all(path.exists() for path in job.makes):
        found.state = "made"
    else:
        _left(job, found, lines, open_since is not None)
    return found


def _told(begun: list[dict[str, Any]], mark: tuple[float, str]) -> bool:
    """Whether the attempt that Snakemake has marked has begun, by its own record."""
    return bool(begun) and datetime.fromisoformat(begun[-1]["time"]).timestamp() >= mark[0] - 1


def _running(
    job: Job, found: Standing, lines: list[dict[str, Any]], begun: dict[str, Any] | None, mark: tuple[float, str] | None
) -> None:
    found.state = "running"
    now = datetime.now().astimezone()
    marked = datetime.fromtimestamp(mark[0]).astimezone() if mark else now
    since = datetime.fromisoformat(begun["time"]) if begun else marked
    found.since, found.seconds = since.isoformat(timespec="seconds"), (now - since).total_seconds()
    device = next((str(line["device"]) for line in reversed(lines) if line.get("event") == "device"), "")
    scheduled = (begun or {}).get("job") or (f"job {mark[1]}" if mark and mark[1] else "")
    found.where = ", ".join(filter(None, [(begun or {}).get("host", ""), device, scheduled]))
    paces = [line for line in lines[_last_begun(lines) :] if line.get("event") == "epoch"]
    if paces:
        pace = paces[-1]
        gone = (now - datetime.fromisoformat(pace["time"])).total_seconds()
        found.seconds_left = max(0.0, pace["seconds_left"] - gone)
        found.told = f"epoch {pace['epoch']} of {pace['epochs']} done, {pace['images_per_second']:.3g} images a second"
    elif rows := sum(journal_rows(path) for path in journals(job.makes[0])):
        found.told = f"{rows} rows so far"
    else:
        found.told = last_line(job.log)


def _left(job: Job, found: Standing, lines: list[dict[str, Any]], killed: bool) -> None:
    """A job whose files do not stand: it failed, if its last attempt did, or its log is all that is known of one."""
    ended = lines[-1].get("event") if lines else None
    told = last_line(job.log)
    if killed or ended in ("failed", "stopped") or (not lines and told and not _succeeded(job)):
        found.state = "failed"
        found.told = (told or found.failures[-1]) if ended == "failed" else told
        if killed:
            found.failures.append("its process ended without a word")
            found.told = "; last: ".join(filter(None, [found.failures[-1], told]))
    checkpoint = job.makes[0].parent / "checkpoint.safetensors"
    if job.step == "training" and checkpoint.is_file():
        kept = _checkpointed(checkpoint)
        found.told = f"{found.told}; {kept}" if found.told else kept


def _last_begun(lines: list[dict[str, Any]]) -> int:
    return max((number for number, line in enumerate(lines) if line.get("event") == "begun"), default=0)


def _succeeded(job: Job) -> bool:
    """Whether a job's last attempt ended well: only then has Snakemake written its benchmark."""
    try:
        return job.place.benchmark(job.step, job.name).stat().st_mtime >= job.log.stat().st_mtime - 1
    except OSError:
        return False


def _took(job: Job) -> float | None:
    """Wall time of a job that ended, from Snakemake's benchmark."""
    try:
        return float(benchmark_rows(job.place.benchmark(job.step, job.name))[0]["s"])
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _checkpointed(path: Path) -> str:
    """How far a checkpoint is, from the header of its file."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, path.stat().st_size)))
        state = json.loads(header["__metadata__"]["state"])
        return f"a checkpoint stands at step {int(state['step'])}, after epoch {len(state['metrics'])}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a checkpoint stands"


def last_line(log: Path) -> str:
    """The last line of a log that is not blank; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
