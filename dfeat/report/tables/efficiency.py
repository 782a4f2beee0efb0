"""What each method costs beside what it gives [Sec. 5: "significantly more efficient"].

What enters: a run's folder (benchmark files, logs, artifacts, predictions) and the FLOPs of its networks. What leaves:
`efficiency.csv`, `.json` and `.md`, a row for each method, backbone and quantity:

- seconds: wall time of the jobs, from Snakemake's benchmark files (an interrupted job counts its last attempt);
- flops: floating-point operations by `costs.counts`;
- bytes: what is kept on disk;
- joules: of the devices, where they tell; from the jobs' logs (of the last attempt as well, which begins its log anew).

`prepare` and `train` are per training image, `test` per test view (an image at a level); trainings are means over
seeds. `extra` is what preparing and training cost beyond None, and `per_point` that for each percentage point of
top-1 gained over None at the highest level; empty where nothing is gained.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dfeat.config import Settings
from dfeat.costs.counts import Counts
from dfeat.data.index import read_index
from dfeat.errors import UserError
from dfeat.methods import REFERENCE, Need, needed
from dfeat.report.numbers.paper import Cell, backbone_name, method_name
from dfeat.report.numbers.results import load_results
from dfeat.report.numbers.sets import sets_of
from dfeat.report.tables.layout import markdown_escaped
from dfeat.storage.atomic import json_bytes, write_files

QUANTITIES: Final = ("seconds", "flops", "bytes", "joules")
PREPARED: Final[dict[Need, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "inpainted": (("inpaint_", "inpainted_pixels"), ("inpaint/train",)),
    "features": (
        ("latents_train_", "latents_train-occluded_", "features_train_", "features_train-occluded_"),
        ("latents/train", "latents/train-occluded", "features/train", "features/train-occluded"),
    ),
}
"""What makes each artifact that a method needs: jobs of the diffusion step, by their names up to the shard; their folders."""
DEVICELESS: Final = ("inpainted_pixels",)
"""Jobs among these that take no device, and so none of its joules."""
NUMBERED: Final = r"(?:-?\d+(?:-of-\d+)?)?"
"""What follows the beginning of a job's name: a shard, a seed, or nothing. A set may be named `train_more`."""
ENERGY: Final = re.compile(r"^(?:dfeat: )?energy: ([0-9.]+) J\b", re.MULTILINE)
"""The line of `devices.energy` in a job's log."""


@dataclass(frozen=True)
class Row:
    """One quantity of one model; None is what was not measured, or cannot be had."""

    method: str
    backbone: str
    quantity: str
    prepare: float | None
    train: float | None
    test: float | None
    extra: float | None = None
    level: int | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    per_point: float | None = None


@dataclass(frozen=True)
class _Run:
    """The run's folder, and how many images each step saw."""

    results: Path
    settings: Settings
    flops: Counts
    images: int
    views: int

    def measured(self, step: str, beginnings: Iterable[str], read: Callable[[Path, str], float | None]) -> float | None:
        """The sum over a step's jobs of these names, but for a shard or seed; None where one was not measured."""
        folder = self.results / "benchmarks" / step
        starts = "|".join(map(re.escape, beginnings))
        jobs = sorted(p.stem for p in folder.glob("*.tsv") if re.fullmatch(f"(?:{starts}){NUMBERED}", p.stem))
        found = [read(folder / f"{job}.tsv", f"{step}/{job}") for job in jobs]
        return sum(value for value in found if value is not None) if found and None not in found else None

    def seconds(self, path: Path, _job: str) -> float | None:
        """Wall time of a job."""
        try:
            with path.open(newline="") as file:
                return float(next(csv.DictReader(file, delimiter="\t"))["s"])
        except (OSError, ValueError, KeyError, StopIteration):
            return None

    def joules(self, _path: Path, job: str) -> float | None:
        """Energy of a job's devices, as its log tells it."""
        log = self.results / "logs" / f"{job}.log"
        found = ENERGY.findall(log.read_text(errors="replace")) if log.is_file() else []
        return float(found[-1]) if found else None

    def of_jobs(self, quantity: str, step: str, *beginnings: str) -> float | None:
        """Seconds of a step's jobs, or joules of those that take a device."""
        if quantity == "seconds":
            return self.measured(step, beginnings, self.seconds)
        return self.measured(step, [start for start in beginnings if start not in DEVICELESS], self.joules)


def write_efficiency(results: Path, settings: Settings, flops: Counts, out: Path) -> None:
    """Write `efficiency.csv`, `.json` and `.md` into `out`. Raises UserError where no method is compared with None."""
    rows = efficiency_rows(results, settings, flops)
    columns = [field.name for field in dataclasses.fields(Row)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if value is None else _digits(value) for value in dataclasses.astuple(row)] for row in rows)
    content = {"note": _note(settings), "rows": [_plain(row) for row in rows]}
    write_files(
        {
            out / "efficiency.csv": text.getvalue().encode(),
            out / "efficiency.json": json_bytes(content),
            out / "efficiency.md": _markdown(rows, settings).encode(),
        }
    )


def efficiency_rows(results: Path, settings: Settings, flops: Counts) -> list[Row]:
    """A row for each method, backbone and quantity that was measured of any method."""
    if REFERENCE not in settings.training.methods:
        raise UserError(f"efficiency compares methods with None; add {REFERENCE!r} to training.methods")
    data = results / "data"
    views = sum(
        len(read_index(data / name).records) * len(chosen.levels) for name, chosen in settings.data.evaluation.items()
    )
    run = _Run(results, settings, flops, len(read_index(data / "train").records), views)
    gains = dict(_gains(results / "evaluation", settings))
    rows: list[Row] = []
    for quantity in QUANTITIES:
        of_quantity = [
            _row(run, method, backbone, quantity)
            for method in settings.training.methods
            for backbone in settings.training.backbones
        ]
        if any(row.train is not None for row in of_quantity):
            rows += [_with_gain(row, of_quantity, gains) for row in of_quantity]
    return rows


def _row(run: _Run, method: str, backbone: str, quantity: str) -> Row:
    if quantity == "flops":
        return _flops_row(run, method, backbone)
    if quantity == "bytes":
        return _bytes_row(run, method, backbone)
    name, seeds = f"{method}_{backbone}_seed", len(run.settings.training.seeds)
    needs = needed([method])
    jobs = [job for need in needs for job in PREPARED[need][0]]
    prepare = run.of_jobs(quantity, "diffusion", *jobs) if jobs else 0.0
    train = run.of_jobs(quantity, "training", name)
    test = run.of_jobs(quantity, "evaluation", name)
    features = run.of_jobs(quantity, "diffusion", *_test_jobs(run.settings)) if "features" in needs else 0.0
    whole = None if test is None or features is None else test / seeds + features
    return Row(
        method, backbone, quantity, _per(prepare, run.images), _per(train, seeds * run.images), _per(whole, run.views)
    )


def _flops_row(run: _Run, method: str, backbone: str) -> Row:
    settings, flops, needs = run.settings, run.flops, needed([method])
    feature = flops.feature(settings) if "features" in needs else 0.0
    twins = 2 if settings.training.twin_features == "occluded" else 1  # of the image, and of its twin
    prepare = settings.diffusion.views * twins * feature
    if "inpainted" in needs:
        prepare += settings.diffusion.inpaint.copies * flops.inpaint(settings)
    train, test = flops.training(settings, method, backbone), flops.forward[backbone] + feature
    return Row(method, backbone, "flops", prepare, train, test)


def _bytes_row(run: _Run, method: str, backbone: str) -> Row:
    models = [
        run.results / "training" / method / backbone / f"seed{seed}" / "model.safetensors"
        for seed in run.settings.training.seeds
    ]
    if not all(path.is_file() for path in models):
        return Row(method, backbone, "bytes", None, None, None)
    diffusion, needs = run.results / "diffusion", needed([method])
    prepare = sum(_size(diffusion / folder) for need in needs for folder in PREPARED[need][1])
    views = [f"{name}@{level}" for name, chosen in run.settings.data.evaluation.items() for level in chosen.levels]
    kept = [diffusion / kind / view for kind in ("latents", "features") for view in views]
    test = sum(map(_size, kept)) if "features" in needs else 0
    train = sum(path.stat().st_size for path in models) / len(models)
    return Row(method, backbone, "bytes", prepare / run.images, train / run.images, test / run.views)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.h5"))


def _test_jobs(settings: Settings) -> list[str]:
    sets = settings.data.evaluation
    return [
        f"{kind}_{name}@{level}_"
        for kind in ("latents", "features")
        for name, chosen in sets.items()
        for level in chosen.levels
    ]


def _per(value: float | None, count: int) -> float | None:
    return None if value is None else value / count


def _gains(evaluation: Path, settings: Settings) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """(method, backbone) -> its gain over None in points at the highest level of the first set of Table 1."""
    for of_set in list(load_results(evaluation, settings, sets_of("table1", settings)).values())[:1]:
        level = max(of_set.predictions.levels)
        for method in of_set.predictions.methods:
            for backbone in of_set.predictions.backbones:
                cell = Cell(method, backbone, level, "top1")
                effect = of_set.difference(cell, cell._replace(method=REFERENCE))
                gain, low, high = (100 * value for value in effect[:3])
                yield (method, backbone), {"level": level, "gain": gain, "gain_low": low, "gain_high": high}


def _with_gain(row: Row, rows: list[Row], gains: dict[tuple[str, str], dict[str, Any]]) -> Row:
    none = next(other for other in rows if (other.method, other.backbone) == (REFERENCE, row.backbone))
    if row.method == REFERENCE or row.prepare is None or row.train is None or none.train is None:
        return row
    extra = row.prepare + row.train - none.train
    gain = gains.get((row.method, row.backbone), {})
    points = gain.get("gain", 0.0)
    return dataclasses.replace(row, extra=extra, **gain, per_point=extra / points if points > 0 else None)


def _note(settings: Settings) -> str:
    return " ".join(filter(None, [settings.report.note, "prepare and train per training image, test per test view"]))


def _plain(row: Row) -> dict[str, Any]:
    values = dataclasses.asdict(row)
    return {key: float(_digits(value)) if isinstance(value, float) else value for key, value in values.items()}


def _digits(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _markdown(rows: list[Row], settings: Settings) -> str:
    lines = ["# What each method costs beside what it gives", ""]
    if settings.report.note:
        lines += [f"**{markdown_escaped(settings.report.note)}**", ""]
    lines += [
        "Preparing and training per training image, testing per test view (an image at one level). Extra is preparing "
        "and training beyond None; it is divided by the points of top-1 gained over None at the highest level, with "
        "the gain's interval. Wall times are those of this run's machine and of its other jobs.",
        "",
    ]
    for quantity in QUANTITIES:
        shown = [row for row in rows if row.quantity == quantity]
        if not shown:
            lines += [f"## {quantity.capitalize()}", "", "Not measured: no job's device told its energy.", ""]
            continue
        unit = {"seconds": "s", "flops": "GFLOP", "bytes": "KB", "joules": "J"}[quantity]
        scale = {"flops": 1e9, "bytes": 1e3}.get(quantity, 1.0)
        lines += [
            f"## {quantity.capitalize()}",
            "",
            f"| Method | Architecture | Prepare, {unit} | Train, {unit} | Test, {unit} | Extra, {unit} | Gain, points "
            f"| {unit} per point |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for row in shown:
            cost = [_shown(value, scale) for value in (row.prepare, row.train, row.test, row.extra)]
            gain = "" if row.gain is None else f"{row.gain:+.1f} ({row.gain_low:+.1f} to {row.gain_high:+.1f})"
            cells = [method_name(row.method), backbone_name(row.backbone), *cost, gain, _shown(row.per_point, scale)]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _shown(value: float | None, scale: float) -> str:
    return "" if value is None else f"{value / scale:,.4g}"
