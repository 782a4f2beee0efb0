"""Cost against size: processor time and memory per image in index, parts, latents and features.

What enters: three or more sizes. What leaves: for each step the cost per image at the largest size, compared with that
at the size before it. Each step runs by its verb, with one thread and in its own process, which first does the same for
a few images: libraries and the model are then loaded, so the figures are those of the images alone. Memory is the
growth of the process to its peak. Sets are drawn in PartImageNet's layout, and the model is the built-in one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from bench.index import write_set
from bench.table import Comparison, Result
from dfeat.errors import UserError

SIZES: Final = (1000, 4000, 16_000)
BAR: Final = 1.15
WIDE: Final = {"blocks": ["mid"], "pool": 8}
"""Feature rows of 12 KB, about as wide as the true model's at 2 x 2 (10 KB)."""
FEW: Final = 64
"""Images of the small set that each process starts with."""
STEPS: Final = ("index", "parts", "latents", "features")


def run(sizes: Sequence[int] = SIZES, **_: Any) -> Result:
    """Run the four steps at each size. Raises UserError for fewer than three sizes, or sizes not in ascending order."""
    if len(sizes) < 3 or any(b <= a for a, b in pairwise(sizes)):
        raise UserError(
            f"--sizes is {','.join(map(str, sizes))}; give three or more numbers of images in ascending order"
        )
    taken = {size: _steps_at(size) for size in sizes}
    rows = [row for step in STEPS for row in _rows(step, {size: costs[step] for size, costs in taken.items()})]
    notes = {
        f"{step}, {size:,} images": f"{cost.seconds:.1f} s, {cost.megabytes:.1f} MB of growth"
        for size, costs in taken.items()
        for step, cost in costs.items()
    }
    return Result(rows, notes)


@dataclass(frozen=True)
class Usage:
    """Processor seconds, and MB by which the process grew to its peak."""

    seconds: float
    megabytes: float


def _steps_at(size: int) -> dict[str, Usage]:
    """The usage of each step for a set of `size` images, after one of FEW."""
    with tempfile.TemporaryDirectory(prefix="dfeat-bench-") as name:
        few, many = (_commands(Path(name) / str(count), count) for count in (FEW, size))
        return {step: measured_after(few[step], many[step]) for step in STEPS}


def _commands(folder: Path, size: int) -> dict[str, list[str]]:
    """Write a drawn set of `size` images to `folder`, and return the command of each step for it."""
    write_set(folder / "set", size)
    index, parts, latents, features = (folder / part for part in ("train", "parts.json", "l.h5", "f.h5"))
    demo = {"model": {"path": "demo"}}

    def command(*words: object) -> list[str]:
        *start, settings, out = words
        return [*map(str, start), "--settings", json.dumps(settings), "--out", str(out)]

    of_set = {"root": str(folder / "set"), "expected_images": None, "expected_classes": None}
    view = ("--index", index, "--view", "clean", "--threads", 1)
    return {
        "index": command("index", "train", of_set, index),
        "parts": command("parts", "--index", index, {}, parts),
        "latents": command("latents", *view, {**demo, "resolution": 64}, latents),
        "features": command("features", "--latents", latents, "--threads", 1, {**demo, "features": WIDE}, features),
    }


def measured_after(before: Sequence[str], words: Sequence[str]) -> Usage:
    """Measure the verb `words` in a process that has run `before`; works on Linux only, which can reset a peak."""
    command = [sys.executable, "-c", _RUN_AND_MEASURE, json.dumps(before), json.dumps(words)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True).stdout
    return Usage(*json.loads(printed.splitlines()[-1]))


_RUN_AND_MEASURE: Final = """
import contextlib, io, json, sys, time
from bench.memory import megabytes, reset_peak
from dfeat.cli import app

before, words = map(json.loads, sys.argv[1:])
with contextlib.redirect_stdout(io.StringIO()):
    app(before, standalone_mode=False)
    reset_peak()
    there, started = megabytes("VmRSS"), time.process_time()
    app(words, standalone_mode=False)
print(json.dumps([time.process_time() - started, megabytes("VmHWM") - there]))
"""


def _rows(step: str, costs: Mapping[int, Usage]) -> list[Comparison]:
    """Compare the cost per image at the largest size with that at the one before it."""
    *_, middle, largest = sorted(costs)
    peer = f"an image of {middle:,}; ours: of {largest:,}"

    def row(what: str, unit: str, of: Callable[[Usage], float]) -> Comparison:
        ours, theirs = (1000 * of(costs[size]) / size for size in (largest, middle))
        return Comparison(f"{step}, {what} an image", ours, theirs, unit, BAR, peer, bound="at most")

    return [row("time", "ms", lambda cost: cost.seconds), row("memory", "KB", lambda cost: cost.megabytes)]
