"""What each method costs beside what it gives [Sec. 5: "significantly more efficient"].

What enters: a run's folder (benchmark files, logs, artifacts, predictions) and the FLOPs of its networks. What leaves:
`efficiency.csv`, `.json` and `.md`, a row for each method, backbone and quantity:

- seconds: wall time of the jobs (`measured`);
- flops: floating-point operations by `costs.counts`;
- bytes: what is kept on disk;
- joules: of the devices, where they report them (`measured`).

`prepare` and `train` are per training image, `test` per test view (an image at a level); trainings are means over
seeds. `extra` is what preparing and training cost beyond None, and `per_point` that for each percentage point of
top-1 gained over None at the highest level; empty where nothing is gained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal

from dfeat.config import Settings
from dfeat.costs.counts import Counts
from dfeat.data.index import read_index
from dfeat.errors import UserError
from dfeat.methods import REFERENCE, Need, needed
from dfeat.places import OCCLUDED, TRAIN, Place, level_view
from dfeat.report.numbers.paper import backbone_name, method_name
from dfeat.report.numbers.results import load_results
from dfeat.report.numbers.sets import sets_of
from dfeat.report.numbers.text import csv_text, document, pipe_table, with_interval
from dfeat.report.tables.measured import size, total
from dfeat.storage.atomic import json_bytes, write_files

Quantity = Literal["seconds", "flops", "bytes", "joules"]
UNITS: Final[dict[Quantity, tuple[str, float]]] = {
    "seconds": ("s", 1.0), "flops": ("GFLOP", 1e9), "bytes": ("KB", 1e3), "joules": ("J", 1.0)
}  # fmt: skip
"""The quantities, with the unit in which the Markdown shows each."""
PREPARED: Final[dict[Need, tuple[tuple[str, ...], tuple[tuple[str, str], ...]]]] = {
    "inpainted": (("inpaint_", "inpainted_pixels"), (("inpaint", TRAIN),)),
    "features": (
        tuple(f"{kind}_{view}_" for kind in ("latents", "features") for view in (TRAIN, OCCLUDED)),
        tuple(product(("latents", "features"), (TRAIN, OCCLUDED))),
    ),
}
"""What makes each artifact that a method needs: jobs of the diffusion step, by their names up to the shard; their views."""
StepCosts = tuple[float | None, float | None, float | None]
"""The cost of preparing, training and testing; None if it was not measured."""


@dataclass(frozen=True)
class CostRow:
    """One quantity of one model; None if it was not measured or does not apply."""

    method: str
    backbone: str
    quantity: Quantity
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
class _CostedRun:
    """The run's folder, and how many images each step saw."""

    place: Place
    settings: Settings
    flops: Counts
    images: int
    views: int

    @property
    def test_views(self) -> list[str]:
        """The views of all evaluation sets."""
        sets = self.settings.data.evaluation
        return [level_view(name, level) for name, chosen in sets.items() for level in chosen.levels]


def write_efficiency(results: Path, settings: Settings, flops: Counts, out: Path) -> None:
    """Write `efficiency.csv`, `.json` and `.md` into `out`. Raises UserError where no method is compared with None."""
    rows = efficiency_rows(results, settings, flops)
    texts = [{key: "" if value is None else _digits(value) for key, value in vars(row).items()} for row in rows]
    plain = [{k: float(_digits(v)) if isinstance(v, float) else v for k, v in vars(row).items()} for row in rows]
    note = " ".join(filter(None, [settings.report.note, "prepare and train per training image, test per test view"]))
    files = {
        "csv": csv_text(texts).encode(),
        "json": json_bytes({"note": note, "rows": plain}),
        "md": _markdown(rows, settings.report.note).encode(),
    }
    write_files({out / f"efficiency.{kind}": content for kind, content in files.items()})


def efficiency_rows(results: Path, settings: Settings, flops: Counts) -> list[CostRow]:
    """A row for each method, backbone and quantity that was measured of any method."""
    if REFERENCE not in settings.training.methods:
        raise UserError(f"efficiency compares methods with None; add {REFERENCE!r} to training.methods")
    place, sets = Place(results), settings.data.evaluation
    views = sum(len(read_index(place.data(name)).records) * len(chosen.levels) for name, chosen in sets.items())
    run = _CostedRun(place, settings, flops, len(read_index(place.data(TRAIN)).records), views)
    over_none = dict(gains(place.evaluation, settings))
    rows: list[CostRow] = []
    for quantity in UNITS:
        alike = [
            CostRow(method, backbone, quantity, *_cost(run, quantity, method, backbone))
            for method, backbone in product(settings.training.methods, settings.training.backbones)
        ]
        if any(row.train is not None for row in alike):
            rows += [_with_gain(row, alike, over_none.get((row.method, row.backbone), {})) for row in alike]
    return rows


def _cost(run: _CostedRun, quantity: Quantity, method: str, backbone: str) -> StepCosts:
    if quantity == "flops":
        return _flops(run, method, backbone)
    return _bytes(run, method, backbone) if quantity == "bytes" else _of_jobs(run, quantity, method, backbone)


def _of_jobs(run: _CostedRun, quantity: Literal["seconds", "joules"], method: str, backbone: str) -> StepCosts:
    def per(value: float | None, count: int) -> float | None:
        return None if value is None else value / count

    name, seeds, needs = [f"{method}_{backbone}_seed"], len(run.settings.training.seeds), needed([method])
    jobs = [job for need in needs for job in PREPARED[need][0]]
    prepare = total(run.place, quantity, "diffusion", jobs) if jobs else 0.0
    train = total(run.place, quantity, "training", name)
    test = total(run.place, quantity, "evaluation", name)
    views = [f"{kind}_{view}_" for kind in ("latents", "features") for view in run.test_views]
    features = total(run.place, quantity, "diffusion", views) if "features" in needs else 0.0
    whole = None if test is None or features is None else test / seeds + features
    return per(prepare, run.images), per(train, seeds * run.images), per(whole, run.views)


def _flops(run: _CostedRun, method: str, backbone: str) -> StepCosts:
    settings, flops, needs = run.settings, run.flops, needed([method])
    feature = flops.feature(settings) if "features" in needs else 0.0
    twins = 2 if settings.training.twin_features == "occluded" else 1  # of the image, and of its twin
    prepare = settings.diffusion.views * twins * feature
    if "inpainted" in needs:
        prepare += settings.diffusion.inpaint.copies * flops.inpaint(settings)
    return prepare, flops.training(settings, method, backbone), flops.forward[backbone] + feature


def _bytes(run: _CostedRun, method: str, backbone: str) -> StepCosts:
    models = [run.place.weights(method, backbone, seed) for seed in run.settings.training.seeds]
    if not all(path.is_file() for path in models):
        return None, None, None
    needs = needed([method])
    prepare = sum(size(run.place.view(*view)) for need in needs for view in PREPARED[need][1])
    kept = [run.place.view(kind, view) for kind in ("latents", "features") for view in run.test_views]
    test = sum(map(size, kept)) if "features" in needs else 0
    train = sum(path.stat().st_size for path in models) / len(models)
    return prepare / run.images, train / run.images, test / run.views


def gains(evaluation: Path, settings: Settings) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Yield (method, backbone) and its gain over None in points, at the highest level of the first set of Table 1."""
    for results in load_results(evaluation, settings, sets_of("table1", settings)[:1]).values():
        level = max(results.predictions.levels)
        for cell in results.predictions.cells("top1"):
            if cell.level == level and (effect := results.over_none({cell: 1.0})):
                gain, low, high = (100 * value for value in effect[:3])
                yield (cell.method, cell.backbone), {"level": level, "gain": gain, "gain_low": low, "gain_high": high}


def _with_gain(row: CostRow, rows: list[CostRow], gain: dict[str, Any]) -> CostRow:
    none = next(other for other in rows if (other.method, other.backbone) == (REFERENCE, row.backbone))
    if row.method == REFERENCE or row.prepare is None or row.train is None or none.train is None:
        return row
    extra = row.prepare + row.train - none.train
    points = gain.get("gain", 0.0)
    return dataclasses.replace(row, extra=extra, **gain, per_point=extra / points if points > 0 else None)


def _digits(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _markdown(rows: list[CostRow], note: str) -> str:
    blocks = [
        "Preparing and training per training image, testing per test view (an image at one level). Extra is preparing "
        "and training beyond None; it is divided by the points of top-1 gained over None at the highest level, with "
        "the gain's interval. Wall times are those of this run's machine and of its other jobs."
    ]
    for quantity, (unit, scale) in UNITS.items():
        heads = [
            *(f"{part}, {unit}" for part in ("Prepare", "Train", "Test", "Extra")),
            "Gain, points",
            f"{unit} per point",
        ]
        lines = [_cells(row, scale) for row in rows if row.quantity == quantity]
        table = pipe_table("llrrrrrr", ["Method", "Architecture", *heads], lines)
        blocks += [f"## {quantity.capitalize()}", table if lines else "Not measured: no job's device told its energy."]
    return document("What each method costs beside what it gives", note, blocks)


def _cells(row: CostRow, scale: float) -> list[str]:
    def shown(value: float | None) -> str:
        return "" if value is None else f"{value / scale:,.4g}"

    gain = ""
    if row.gain is not None and row.gain_low is not None and row.gain_high is not None:
        gain = with_interval(row.gain, row.gain_low, row.gain_high, "+.1f")
    costs = map(shown, (row.prepare, row.train, row.test, row.extra))
    return [method_name(row.method), backbone_name(row.backbone), *costs, gain, shown(row.per_point)]
