"""Cost against size: what another image costs in index, parts, latents and features, in time and in memory.

What enters: three or more sizes. What leaves: a row for each step, of processor time and of peak memory: what an image
more costs between the two largest sizes, beside what it costs between the two smallest. Starting up and loading the
model cancel out. Each step runs as a user runs it, with one thread and in a process of its own; sets are drawn in
PartImageNet's layout, the model is the built-in one.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from dfeat.bench.index import Run, measured, write_set
from dfeat.bench.table import Result, Row
from dfeat.errors import UserError

SIZES: Final = (1000, 4000, 16_000)
BAR: Final = 1.15
WIDE: Final = {"blocks": ["mid"], "pool": 8}
"""Feature rows of 12 KB, about as wide as the true model's at 2 x 2 (10 KB); narrow ones would drown in the libraries."""
STEPS: Final = ("index", "parts", "latents", "features")


def run(sizes: Sequence[int] = SIZES, **_: Any) -> Result:
    """Run the four steps at each size. UserError for fewer than three sizes, or sizes that do not rise."""
    if len(sizes) < 3 or any(b <= a for a, b in pairwise(sizes)):
        raise UserError(f"--sizes {','.join(map(str, sizes))}: give three numbers of images or more, rising")
    taken = {size: _steps_at(size) for size in sizes}
    rows = [row for step in STEPS for row in _rows(step, {size: runs[step] for size, runs in taken.items()})]
    notes = {
        f"{step}, {size:,} images": f"{run.processor:.1f} s of processor time, {run.megabytes:.0f} MB"
        for size, runs in taken.items()
        for step, run in runs.items()
    }
    return Result(rows, notes)


def _steps_at(size: int) -> dict[str, Run]:
    """What each step takes for a set of `size` images."""
    with tempfile.TemporaryDirectory(prefix="dfeat-bench-") as name:
        folder = Path(name)
        index, parts, latents, features = (folder / part for part in ("train", "parts.json", "l.h5", "f.h5"))
        with ProcessPoolExecutor(1, get_context("spawn")) as other:  # its memory would count as its children's
            other.submit(write_set, folder / "set", size).result()
        counts = {"expected_images": None, "expected_classes": None}
        demo = {"model": {"path": "demo"}}
        return {
            "index": _run("index", "train", {"root": str(folder / "set"), **counts}, index),
            "parts": _run("parts", "--index", index, {}, parts),
            "latents": _run(
                *("latents", "--index", index, "--view", "clean", "--threads", 1), {**demo, "resolution": 64}, latents
            ),
            "features": _run("features", "--latents", latents, "--threads", 1, {**demo, "features": WIDE}, features),
        }


def _run(*words: object) -> Run:
    """Run a verb; the last two words are its settings and its output."""
    *start, settings, out = words
    return measured(*map(str, start), "--settings", json.dumps(settings), "--out", str(out))


def _rows(step: str, runs: Mapping[int, Run]) -> list[Row]:
    """What an image more costs between the largest sizes and between the smallest."""
    sizes = sorted(runs)
    seconds = {size: runs[size].processor for size in sizes}
    megabytes = {size: runs[size].megabytes for size in sizes}

    def each(of: Mapping[int, float], low: int, high: int) -> float:
        return 1000 * (of[high] - of[low]) / (high - low)

    return [
        Row(
            f"{step}, {what} of an image more", each(of, *sizes[-2:]), each(of, *sizes[:2]), unit, BAR,
            f"from {sizes[0]:,} to {sizes[1]:,} images; ours: from {sizes[-2]:,} to {sizes[-1]:,}", bound="at most",
        )
        for what, unit, of in (("time", "ms", seconds), ("memory", "KB", megabytes))
    ]  # fmt: skip
