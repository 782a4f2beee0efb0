"""`python -m tests.workflow.journal VERB ...`: dfeat, which writes down when it holds which device, and dies where told.

Workflow tests put it on the path as `dfeat`. Environment: `JOURNAL` is the file written to; `KILL_EVERY=n` makes
every n-th shard end itself by SIGKILL, once, at a random moment after it took its device.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple


class JournalEntry(NamedTuple):
    """A process held a device from `start` to `end` (seconds of the machine's monotonic clock)."""

    device: str
    pid: int
    start: float
    end: float


def read_journal(path: Path) -> list[JournalEntry]:
    """The entries of a journal; a process that never ended its entry held its device for ever."""
    started: dict[tuple[str, int], float] = {}
    entries: list[JournalEntry] = []
    for line in path.read_text().splitlines():
        event, device, pid, moment = json.loads(line)
        if event == "start":
            started[device, pid] = moment
        else:
            entries.append(JournalEntry(device, pid, started.pop((device, pid)), moment))
    return entries + [JournalEntry(device, pid, start, float("inf")) for (device, pid), start in started.items()]


def overlaps(entries: Sequence[JournalEntry]) -> list[tuple[JournalEntry, JournalEntry]]:
    """Pairs of processes that held one device at the same time."""
    return [
        (one, other)
        for one, other in combinations(entries, 2)
        if one.device == other.device and one.start < other.end and other.start < one.end
    ]


def dfeat_on_the_path(folder: Path) -> Path:
    """A folder with this module as the command `dfeat`, to be put first on the path."""
    folder.mkdir(parents=True, exist_ok=True)
    command = folder / "dfeat"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.workflow.journal "$@"\n')
    command.chmod(0o755)
    return folder


def write(event: str, device: str) -> None:
    node = os.environ.get("SLURMD_NODENAME")
    line = json.dumps([event, f"{node}:{device}" if node else device, os.getpid(), time.monotonic()]) + "\n"
    descriptor = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def must_die() -> bool:
    """Whether this is the first attempt of a shard that is to be killed."""
    every = int(os.environ.get("KILL_EVERY", "0"))
    if not every or "--shard" not in sys.argv:
        return False
    shard = sys.argv[sys.argv.index("--shard") + 1].partition("/")[0]
    try:
        Path(f"{os.environ['JOURNAL']}.killed.{shard}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return int(shard) % every == 0


def main() -> None:
    import dfeat.devices
    from dfeat.cli import main as run_dfeat

    take = dfeat.devices.lease

    def journalled(count: int, job: str):  # type: ignore[no-untyped-def]
        devices = take(count, job)
        for device in devices:
            write("start", device.uuid)

        once = threading.Lock()

        def end(die: bool) -> None:
            if not once.acquire(blocking=False):
                return
            for device in devices:
                write("end", device.uuid)
            if die:
                os.kill(os.getpid(), signal.SIGKILL)

        die = must_die()
        atexit.register(end, die)
        if die:
            timer = threading.Timer(random.uniform(0, 2), end, [True])
            timer.daemon = True
            timer.start()
        return devices

    dfeat.devices.lease = journalled  # type: ignore[assignment]
    run_dfeat()


if __name__ == "__main__":
    main()
