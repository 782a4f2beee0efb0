"""What the jobs of a run took, as its files record it: seconds, joules and bytes.

What enters: Snakemake's benchmark files, the jobs' logs, and the artifacts on disk. What leaves: numbers; None where one
was not measured. An interrupted job counts its last attempt, which begins its log and benchmark anew.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from dfeat.places import Place
from dfeat.report.numbers.text import TextRow

DEVICELESS: Final = ("inpainted_pixels",)
"""Jobs that occupy no device, and so use none of its joules."""
ENERGY: Final = re.compile(r"^(?:dfeat: )?energy: ([0-9.]+) J\b", re.MULTILINE)
"""The line of `devices.energy` in a job's log."""
_NUMBERED: Final = r"(?:-?\d+(?:-of-\d+)?)?"
"""What follows the beginning of a job's name: a shard, a seed, or nothing. A set may be named `train_more`."""


def benchmark_rows(path: Path) -> list[TextRow]:
    """The lines of a benchmark file of Snakemake."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def total(place: Place, quantity: Literal["seconds", "joules"], step: str, beginnings: Iterable[str]) -> float | None:
    """The sum over a step's jobs with these names up to the shard or seed; None if any of them was not measured."""
    if quantity == "joules":
        beginnings = [start for start in beginnings if start not in DEVICELESS]
    name = re.compile(f"(?:{'|'.join(map(re.escape, beginnings))}){_NUMBERED}")
    benchmarks = sorted(place.benchmark(step, "job").parent.glob("*.tsv"))
    read = _seconds if quantity == "seconds" else _joules
    found = [read(place, step, path.stem) for path in benchmarks if name.fullmatch(path.stem)]
    return sum(value for value in found if value is not None) if found and None not in found else None


def size(folder: Path) -> int:
    """The bytes of the HDF5 files in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.h5"))


def _seconds(place: Place, step: str, job: str) -> float | None:
    """Wall time of a job."""
    try:
        return float(benchmark_rows(place.benchmark(step, job))[0]["s"])
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _joules(place: Place, step: str, job: str) -> float | None:
    """Energy of a job's devices, from its log."""
    log = place.log(step, job)
    found = ENERGY.findall(log.read_text(errors="replace")) if log.is_file() else []
    return float(found[-1]) if found else None
