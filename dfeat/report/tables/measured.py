"""What the jobs of a run took, as its files record it: seconds, joules, memory and bytes.

What enters: Snakemake's benchmark files, the jobs' logs, and the artifacts on disk. What leaves: numbers; None where one
was not measured. An interrupted job counts its last attempt, which begins its log and benchmark anew.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from dfeat.places import Place
from dfeat.report.numbers.text import TextRow
from dfeat.shortage import pass_on

DEVICELESS: Final = ("inpainted_pixels",)
"""Jobs that occupy no device, and so use none of its joules and memory."""
ENERGY: Final = re.compile(r"^(?:dfeat: )?energy: ([0-9.]+) J\b", re.MULTILINE)
"""The line of `devices.energy` in a job's log."""
MEMORY: Final = re.compile(r"^(?:dfeat: )?memory: ([0-9]+) MB\b", re.MULTILINE)
"""The line of `devices.memory` in the log of a job that computed on a device, one for each of its processes."""
Measured = Literal["seconds", "joules", "memory"]
_NUMBERED: Final = r"(?:-?\d+(?:-of-\d+)?)?"
"""What follows the beginning of a job's name: a shard, a seed, or nothing. A set may be named `train_more`."""


def benchmark_rows(path: Path) -> list[TextRow]:
    """The lines of a benchmark file of Snakemake."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def taken(
    place: Place, quantity: Measured, step: str, beginnings: Iterable[str], sets: Iterable[str] = ()
) -> float | None:
    """The sum over a step's jobs with these names up to the shard or seed, and these sets after it, if any; of memory, in
    bytes, the most of any of them.

    None if any of them was not measured.
    """
    if quantity != "seconds":
        beginnings = [start for start in beginnings if start not in DEVICELESS]
    endings = "|".join(f"@{re.escape(name)}" for name in sets)
    name = re.compile(f"(?:{'|'.join(map(re.escape, beginnings))}){_NUMBERED}(?:{endings})")
    jobs = [
        path.stem for path in sorted(place.benchmark(step, "job").parent.glob("*.tsv")) if name.fullmatch(path.stem)
    ]
    read = {"seconds": _seconds, "joules": _joules, "memory": _memory}[quantity]
    found = [value for job in jobs if (value := read(place, step, job)) is not None]
    if not found or len(found) < len(jobs):
        return None
    return max(found) if quantity == "memory" else math.fsum(found)


def size(folder: Path) -> int:
    """The bytes of the HDF5 files in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.h5"))


def _seconds(place: Place, step: str, job: str) -> float | None:
    """Wall time of a job."""
    return _benchmarked(place, step, job, "s")


def _joules(place: Place, step: str, job: str) -> float | None:
    """Energy of a job's devices, from its log."""
    found = ENERGY.findall(_log(place, step, job))
    return float(found[-1]) if found else None


def _memory(place: Place, step: str, job: str) -> float | None:
    """Bytes that a job took of a device, from its log; of main memory where it computed on the CPU."""
    found = MEMORY.findall(_log(place, step, job))
    resident = _benchmarked(place, step, job, "max_rss")  # in units of 2^20 bytes
    return 1e6 * max(map(float, found)) if found else None if resident is None else 2**20 * resident


def _benchmarked(place: Place, step: str, job: str, column: str) -> float | None:
    """A value of a job's benchmark file."""
    try:
        return float(benchmark_rows(place.benchmark(step, job))[0][column])
    except (OSError, ValueError, KeyError, IndexError) as error:
        pass_on(error)
        return None


def _log(place: Place, step: str, job: str) -> str:
    log = place.log(step, job)
    return log.read_text(errors="replace") if log.is_file() else ""
