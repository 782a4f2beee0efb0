"""Throughput of the true architectures on a GPU: a row for each step, precision, batch size, compiled or not.

What enters: a CUDA device, which is leased; weights are random and photographs drawn. What leaves, row by row as they
come: images a second, FLOP/s and their share of the card's peak, memory, energy, the share of the time in which the device
idled and in which the loop waited for images, and the plan's estimate beside it. `bench.gpu_rows` lists the rows, the most
telling ones first, and `bench.gpu_meter` measures one. A dry run does the same on the CPU with tiny networks.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from bench.gpu_meter import Measured, measure
from bench.gpu_rows import ROWS, Place, Row, flops_of, in_miniature, work_of
from bench.table import Result, write_rows
from dfeat.costs.efficiency import Work, expected_speed
from dfeat.costs.operations import diffusion_flops
from dfeat.devices import compute_on
from dfeat.devices.cards import CARDS, card_of
from dfeat.devices.energy import counters
from dfeat.devices.leases import lease, shared
from dfeat.errors import UserError

JOB: Final = "bench gpu"
LEAST: Final = 5.0
"""Seconds for which a row is measured at least."""
NEEDS: Final = {"latents": 10, "features": 10, "inpaint": 12, "training": 12, "evaluation": 20}
"""Seconds that a row takes, beside those of the batches that the clock does not count."""
UNCOUNTED: Final = 5
"""Such batches: of warming up and profiling, and the first of an inpainting with all its steps."""
COMPILING: Final = 75
"""Seconds that compiling adds."""
COLUMNS: Final = ("images/s", "TFLOP/s", "of peak", "MB", "J/image", "idle", "waited", "planned/s", "of plan")


def run(seconds: float = 480, dry: bool = False, workers: int = 8, out: Path | None = None, **_options: Any) -> Result:
    """Measure rows until `seconds` are over, printing each, and writing all so far to `out`.

    `workers` threads or processes prepare images. A `dry` run has tiny networks on the CPU and a row of every kind, and
    its figures mean nothing. Raises UserError where there is no CUDA device.
    """
    started = time.monotonic()
    # First of all: CUDA, once it has started, reads the leased device no more.
    device = compute_on(0 if dry else 1, torch.get_num_threads(), JOB)
    if not dry and device.type != "cuda":
        raise UserError(
            "`python -m bench gpu` needs a CUDA device, and there is none; run the other benchmarks, which need none, or "
            "try this one with --dry"
        )
    name = "dry run" if dry else torch.cuda.get_device_name(device)
    card = card_of(name)
    energy = partial(counters, lease(1, JOB)) if device.type == "cuda" and not shared() else list
    about = {"device": name, "date": datetime.now().isoformat(" ", "seconds"), "workers": str(workers)}
    print(f"{JOB}: {name}\n{_line('row', COLUMNS)}", flush=True)
    figures: list[dict[str, Any]] = []
    left_out: list[str] = []

    def result() -> Result:
        return Result([], about | ({"no time for": "; ".join(left_out)} if left_out else {}), figures)

    with tempfile.TemporaryDirectory(prefix="dfeat-bench-") as folder:
        place = Place(Path(folder), device, workers, small=dry, images=8 if dry else 256)
        for row in in_miniature() if dry else ROWS:
            if not dry and time.monotonic() - started + needed(row, card) > seconds:
                left_out.append(str(row))
                continue
            figures.append(figures_of(row, place, card, 0 if dry else LEAST, energy))
            print(described(figures[-1]), flush=True)
            if out is not None:
                write_rows(out, {"gpu": result()})
    return result()


def needed(row: Row, card: str | None) -> float:
    """Seconds that a row is expected to take: it is begun where they are left."""
    batches = UNCOUNTED * row.batch / planned(row, card)[0] if card else 0
    return NEEDS[row.step] + batches + (COMPILING if row.compiled else 0)


def figures_of(
    row: Row, place: Place, card: str | None, seconds: float, energy: Callable[[], Sequence[int]]
) -> dict[str, Any]:
    """All figures of a row, or what went wrong with it: a row that fails does not stop the others."""
    found: dict[str, Any] = {"row": str(row), **asdict(row)}
    place.release(row)
    try:
        work = work_of(row, place)
        try:
            measured = measure(work, place.device, seconds, energy)
        finally:
            work.close()
    except Exception as error:
        return found | {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return found | with_plan(measured, row, card)


def with_plan(measured: Measured, row: Row, card: str | None) -> dict[str, Any]:
    """The figures of a row with what follows from its FLOPs, and the plan's estimate where it knows the card."""
    work = measured.rate * flops_of(row)
    found = asdict(measured) | {"rate": measured.rate, "tflops": work / 1e12}
    if card is None:
        return found | dict.fromkeys(("peak", "planned", "of_plan"))
    low, central, high = planned(row, card)
    share = {"peak": work / CARDS[card].peak[row.precision], "of_plan": measured.rate / central}
    return found | share | {"planned": {"low": low, "central": central, "high": high}}


def planned(row: Row, card: str) -> tuple[float, float, float]:
    """Images a second of a row by the estimate that `dfeat plan` makes: low, central, high."""
    # a pass of the U-Net has two rows an image, with the prompt and without
    one = 2 * diffusion_flops("unet", 512) if row.step == "inpaint" else flops_of(row)
    speed = expected_speed(card, Work(row.step, row.precision, row.compiled, row.batch * one))
    low, central, high = (flops / flops_of(row) for flops in speed.flops)
    return low, central, high


def described(figures: Mapping[str, Any]) -> str:
    """The line of a row."""
    if "failed" in figures:
        return f"{figures['row']}: failed: {figures['failed']}"
    rate, tflops, memory, joules = (_number(figures[key]) for key in ("rate", "tflops", "megabytes", "joules"))
    peak, idle, waited, of_plan = (_share(figures[key]) for key in ("peak", "idle", "waited", "of_plan"))
    plan = _number(figures["planned"] and figures["planned"]["central"])
    return _line(figures["row"], (rate, tflops, peak, memory, joules, idle, waited, plan, of_plan))


def _line(name: str, cells: Sequence[str]) -> str:
    return f"{name:52}" + "".join(f"{cell:>10}" for cell in cells)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
