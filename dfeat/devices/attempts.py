"""What each attempt of a job measured, a line of JSON as it happens: begun, halved, paces, ended or failed, and why.

What enters: the artifact that a job makes, and what its stages `record`. What leaves: `benchmarks/<step>/<job>.jsonl` of the
run, beside Snakemake's benchmark, and its lines, read. Nothing that is made depends on them, and a job never fails for
them. The log of an attempt begins anew with the next one, these lines go on until the artifact is made.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from dfeat.devices.leases import SCHEDULERS
from dfeat.devices.memory import peak
from dfeat.places import job_of
from dfeat.progress import leads
from dfeat.storage.atomic import append_line

ENDED: Final = "ended"
_at_work: list[Path] = []
"""The file of this process's attempt, where it makes an artifact of a run."""


@contextmanager
def attempt(artifact: Path) -> Iterator[None]:
    """Record an attempt to make `artifact` for the block; nothing outside of a run, or in a team by others than the first."""
    job = job_of(artifact)
    if job is None or not leads():
        yield
        return
    place, step, name = job
    path = place.attempts(step, name)
    before = read_attempts(path)
    if before and before[-1].get("event") == ENDED:
        before = []
    begun = {"attempt": 1 + sum(line.get("event") == "begun" for line in before), **this_job()}
    append_line(path, _line("begun", begun), anew=not before)
    _at_work.append(path)
    try:
        yield
        record(ENDED, memory=peak())
    except SystemExit:
        record("stopped", why="it was told to stop, and saved what it had")
        raise
    except BaseException as error:
        record("failed", why=str(error) or type(error).__name__)
        raise
    finally:
        _at_work.pop()


def record(event: str, **values: Any) -> None:
    """Add a line to the record of the attempt that this process is; nothing outside of one."""
    if _at_work:
        append_line(_at_work[-1], _line(event, values))


def read_attempts(path: Path) -> list[dict[str, Any]]:
    """The lines of a job's attempts so far; none where it recorded none, and none that a kill cut off."""
    found = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        found += [entry] if isinstance(entry, dict) and {"event", "time"} <= entry.keys() else []
    return found


def this_job() -> dict[str, Any]:
    """Which process this is, for those that ask whether it is alive: its host, its number and when it began, and its job."""
    pid = os.getpid()
    ids = [f"{name} {os.environ[variable]}" for variable, name in SCHEDULERS.items() if os.environ.get(variable)]
    return {"host": socket.gethostname(), "pid": pid, "began": _began(pid), **({"job": ids[0]} if ids else {})}


def is_alive(begun: dict[str, Any]) -> bool | None:
    """Whether the process of a line `begun` is alive; None where it is on another host."""
    if begun.get("host") != socket.gethostname():
        return None
    pid = begun.get("pid")
    return isinstance(pid, int) and _began(pid) is not None and _began(pid) == begun.get("began")


def _began(pid: int) -> str | None:
    """When a process of this machine began, in the kernel's clock ticks; None where there is none."""
    try:
        # Fields after the command, which may hold anything up to the last parenthesis; the 22nd of all is the start.
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _line(event: str, values: dict[str, Any]) -> bytes:
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return json.dumps({"event": event, "time": now, **values}).encode() + b"\n"
