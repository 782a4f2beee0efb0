"""What each method costs, in training and at inference, beside what it gives [Sec. 5: "significantly more efficient"].

What enters: a run's folder (benchmark files, logs, artifacts, predictions) and the FLOPs of its networks. What leaves:
`efficiency.csv`, `.json` and `.md`, a row for each method, backbone and quantity:

- seconds: wall time of the jobs (`measured`);
- flops: floating-point operations by `costs.counts`;
- joules: of the devices, where they report them (`measured`);
- memory: bytes, the most that any job took of a device, or of main memory where it computed on the CPU (`measured`);
- shipped: bytes that a program needs to classify an image: the classifier, and what it takes of a diffusion model;
- bytes: what the run keeps on disk.

`prepare` and `train` are per training image, `test` per test image (at one level); trainings are means over seeds; memory
is that of a job. `extra` is what preparing and training cost beyond None, `extra_test` what a test image costs beyond
None, and `break_even` the number of test images from which on the second, summed over them, exceeds the first, summed over
the training images. `per_point` and `per_point_test` divide the two by the percentage points of top-1 gained over None at
the highest level. Where a gain or a cost is not above noise there is no such price, and `unpriced` has the reason; a gain
is where its p, adjusted by Holm over methods and backbones (`gain_p_holm`), is below 1 - `report.confidence`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import stdev
from typing import Any, Final, Literal

from dfeat.config import Settings
from dfeat.config.labels import Labels
from dfeat.costs.counts import Counts
from dfeat.data.index import read_index
from dfeat.methods import REFERENCE, Need, needed
from dfeat.places import OCCLUDED, TRAIN, Place, level_view
from dfeat.report.numbers.results import load_results
from dfeat.report.numbers.sets import sets_of
from dfeat.report.numbers.statistics import holm
from dfeat.report.numbers.text import csv_text, document, model_names, number, pipe_table, with_interval
from dfeat.report.tables.measured import Measured, size, taken
from dfeat.storage.atomic import json_bytes, write_files

Quantity = Literal["seconds", "flops", "joules", "memory", "shipped", "bytes"]
UNITS: Final[dict[Quantity, tuple[str, float]]] = {
    "seconds": ("s", 1.0), "flops": ("GFLOP", 1e9), "joules": ("J", 1.0), "memory": ("MB", 1e6), "shipped": ("MB", 1e6),
    "bytes": ("KB", 1e3),
}  # fmt: skip
"""The quantities, with the unit in which the Markdown shows each."""
HEADINGS: Final[dict[Quantity, str]] = {
    "seconds": "Wall time", "flops": "Operations", "joules": "Energy", "memory": "Peak memory", "shipped": "Size to ship",
    "bytes": "Disk",
}  # fmt: skip
SPENT: Final = ("seconds", "flops", "joules")
"""Quantities that are spent anew on each image, so that many test images outweigh a training."""
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
    extra_test: float | None = None
    break_even: float | None = None
    level: int | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    gain_p_holm: float | None = None
    per_point: float | None = None
    per_point_test: float | None = None
    unpriced: str = ""

    @property
    def training(self) -> float | None:
        """Preparing and training together: the sum, of memory the larger one."""
        if self.prepare is None or self.train is None:
            return None
        return max(self.prepare, self.train) if self.quantity == "memory" else self.prepare + self.train


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
    """Write `efficiency.csv`, `.json` and `.md` into `out`."""
    run = _costed(results, settings, flops)
    rows = _rows(run)
    texts = [{key: "" if value is None else _digits(value) for key, value in vars(row).items()} for row in rows]
    plain = [{k: float(_digits(v)) if isinstance(v, float) else v for k, v in vars(row).items()} for row in rows]
    note = " ".join(
        filter(None, [settings.report.note, "prepare and train per training image, test per test image at a level"])
    )
    files = {
        "csv": csv_text(texts).encode(),
        "json": json_bytes({"note": note, "images": run.images, "test_images": run.views, "rows": plain}),
        "md": _markdown(rows, settings).encode(),
    }
    write_files({out / f"efficiency.{kind}": content for kind, content in files.items()})


def _costed(results: Path, settings: Settings, flops: Counts) -> _CostedRun:
    """The run with its counts of images."""
    place, sets = Place(results), settings.data.evaluation
    views = sum(len(read_index(place.data(name)).records) * len(chosen.levels) for name, chosen in sets.items())
    return _CostedRun(place, settings, flops, len(read_index(place.data(TRAIN)).records), views)


def _rows(run: _CostedRun) -> list[CostRow]:
    """A row for each method, backbone and quantity that was measured of any method."""
    settings, rows = run.settings, list[CostRow]()
    over_none = dict(gains(run.place.evaluation, settings))
    for quantity in UNITS:
        alike = [
            CostRow(method, backbone, quantity, *_cost(run, quantity, method, backbone))
            for method, backbone in product(settings.training.methods, settings.training.backbones)
        ]
        if any(row.test is not None for row in alike):
            rows += [_beside_none(run, row, alike, over_none.get((row.method, row.backbone), {})) for row in alike]
    return rows


def _cost(run: _CostedRun, quantity: Quantity, method: str, backbone: str) -> StepCosts:
    if quantity == "flops":
        flops, settings = run.flops, run.settings
        test = flops.inference(settings, method, backbone)
        return flops.preparing(settings, method), flops.training(settings, method, backbone), test
    if quantity == "shipped":
        return _shipped(run, method, backbone)
    return _bytes(run, method, backbone) if quantity == "bytes" else _of_jobs(run, quantity, method, backbone)


def _of_jobs(run: _CostedRun, quantity: Measured, method: str, backbone: str) -> StepCosts:
    name, seeds, needs = [f"{method}_{backbone}_seed"], len(run.settings.training.seeds), needed([method])
    jobs = [job for need in needs for job in PREPARED[need][0]]
    prepare = taken(run.place, quantity, "diffusion", jobs) if jobs else 0.0
    train = taken(run.place, quantity, "training", name)
    test = taken(run.place, quantity, "evaluation", name, run.settings.data.evaluation)
    views = [f"{kind}_{view}_" for kind in ("latents", "features") for view in run.test_views]
    features = taken(run.place, quantity, "diffusion", views) if "features" in needs else 0.0
    if quantity == "memory":
        return prepare, train, None if test is None or features is None else max(test, features)

    def per(value: float | None, count: int) -> float | None:
        return None if value is None else value / count

    whole = None if test is None or features is None else test / seeds + features
    return per(prepare, run.images), per(train, seeds * run.images), per(whole, run.views)


def _weights(run: _CostedRun, method: str, backbone: str) -> float | None:
    """The mean bytes of the models that a method trained."""
    models = [run.place.weights(method, backbone, seed) for seed in run.settings.training.seeds]
    if not all(path.is_file() for path in models):
        return None
    return sum(path.stat().st_size for path in models) / len(models)


def _shipped(run: _CostedRun, method: str, backbone: str) -> StepCosts:
    weights = _weights(run, method, backbone)
    return None, None, None if weights is None else weights + run.flops.shipped(run.settings, method)


def _bytes(run: _CostedRun, method: str, backbone: str) -> StepCosts:
    weights, needs = _weights(run, method, backbone), needed([method])
    if weights is None:
        return None, None, None
    prepare = sum(size(run.place.view(*view)) for need in needs for view in PREPARED[need][1])
    kept = [run.place.view(kind, view) for kind in ("latents", "features") for view in run.test_views]
    test = sum(map(size, kept)) if "features" in needs else 0
    return prepare / run.images, weights / run.images, test / run.views


def gains(evaluation: Path, settings: Settings) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Yield (method, backbone) and its gain over None in points, at the highest level of the first set of Table 1."""
    for results in load_results(evaluation, settings, sets_of("table1", settings)[:1]).values():
        level = max(results.predictions.levels)
        cells = [cell for cell in results.predictions.cells("top1") if cell.level == level]
        effects = {cell: effect for cell in cells if (effect := results.over_none({cell: 1.0}))}
        adjusted = holm([effect.p() for effect in effects.values()])
        for (cell, effect), p in zip(effects.items(), adjusted, strict=True):
            gain, low, high = (100 * value for value in effect[:3])
            found = {"level": level, "gain": gain, "gain_low": low, "gain_high": high, "gain_p_holm": p}
            yield (cell.method, cell.backbone), found


def _beside_none(run: _CostedRun, row: CostRow, rows: list[CostRow], gain: dict[str, Any]) -> CostRow:
    """The row with what it costs beyond None, and with the price of a point gained."""
    if row.method == REFERENCE:
        return row
    none = next(other for other in rows if (other.method, other.backbone) == (REFERENCE, row.backbone))
    extra, extra_test = _less(row.training, none.training), _less(row.test, none.test)
    noise, noise_test = _noise(run, row, rows)
    spent = _above(extra, noise), _above(extra_test, noise_test)
    even = run.images * spent[0] / spent[1] if row.quantity in SPENT and spent[0] and spent[1] else None
    row = dataclasses.replace(row, extra=extra, extra_test=extra_test, break_even=even, **gain)
    if row.gain is None or row.gain_p_holm is None or row.quantity == "memory":
        return row
    if row.gain <= 0 or row.gain_p_holm >= 1 - run.settings.report.confidence:
        lost = row.gain < 0 and row.gain_p_holm < 1 - run.settings.report.confidence
        return dataclasses.replace(row, unpriced="a loss" if lost else "no gain above noise")
    price, price_test = (None if cost is None else cost / row.gain for cost in spent)
    reason = "no further cost above noise" if price is None and price_test is None else ""
    return dataclasses.replace(row, per_point=price, per_point_test=price_test, unpriced=reason)


def _noise(run: _CostedRun, row: CostRow, rows: list[CostRow]) -> tuple[float, float]:
    """How large a difference of training cost, and of inference cost, may be by chance.

    Jobs of equal operations differ in seconds and joules by what else the machine does. So the spread s among methods of
    as many operations as None is that of one figure, s sqrt(2) that of a difference, of which two are allowed for.
    """
    if row.quantity not in ("seconds", "joules"):
        return 0.0, 0.0

    def limit(operations: Callable[[str], float], cost: Callable[[CostRow], float | None]) -> float:
        same = [one for one in rows if one.backbone == row.backbone and operations(one.method) == operations(REFERENCE)]
        values = [value for one in same if (value := cost(one)) is not None]
        return 2 * math.sqrt(2) * stdev(values) if len(values) > 1 else 0.0

    flops, settings = run.flops, run.settings
    return (
        limit(lambda method: flops.training(settings, method, row.backbone), lambda one: one.train),
        limit(lambda method: flops.inference(settings, method, row.backbone), lambda one: one.test),
    )


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _above(value: float | None, noise: float) -> float | None:
    """A cost, where it is more than noise."""
    return value if value is not None and value > max(noise, 0.0) else None


def _digits(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _tested(settings: Settings) -> str:
    """By which test a gain is significant."""
    alpha = f"p < {1 - settings.report.confidence:.2g}"
    if len(settings.training.seeds) == 1:
        return f"(Holm-adjusted over methods and architectures, {alpha}; with one seed over images alone, so another training may decide otherwise)"
    return f"(over images and seeds, Holm-adjusted over methods and architectures, {alpha})"


def _markdown(rows: list[CostRow], settings: Settings) -> str:
    blocks = [
        "Preparing and training per training image, inference per test image at one level. Extra is what a method costs "
        "beyond None. At inference it has to be paid for every image, so after the number of test images under “even after” "
        "it exceeds the extra of the whole training. Both are divided by the points of top-1 gained over None at the highest "
        f"level, where the gain is significant {_tested(settings)} and the cost above the spread of jobs of equal operations. Wall times "
        "are those of this run's machine and of its other jobs; memory is the most that a job took.",
        "Size to ship is what a program needs to classify an image. For diffusion features that is the classifier, the VAE's "
        "encoder and the U-Net up to the block that is read, not the text encoder: the embedding of the null prompt can be "
        "stored instead.",
    ]
    for quantity, (unit, scale) in UNITS.items():
        heads = [
            *(f"{part}, {unit}" for part in ("Prepare", "Train", "Inference", "Extra in training", "Extra at inference")),
            "Even after, images", "Gain, points", f"{unit} per point, training", f"{unit} per point, inference",
        ]  # fmt: skip
        lines = [_cells(row, scale, settings.labels) for row in rows if row.quantity == quantity]
        table = pipe_table("llrrrrrrrrr", ["Method", "Architecture", *heads], lines)
        blocks += [f"## {HEADINGS[quantity]}", table if lines else f"Not measured: {_UNMEASURED.get(quantity, '')}."]
    return document("What each method costs beside what it gives", settings.report.note, blocks)


_UNMEASURED: Final = {
    "joules": "no job's device told its energy",
    "seconds": "a job has no benchmark file",
    "memory": "a job has no benchmark file",
    "shipped": "a model is missing",
    "bytes": "a model is missing",
}
"""Why the whole of a quantity may be missing."""


def _cells(row: CostRow, scale: float, labels: Labels) -> list[str]:
    def shown(value: float | None) -> str:
        return "" if value is None else number(value / scale)

    gain = ""
    if row.gain is not None and row.gain_low is not None and row.gain_high is not None:
        gain = with_interval(row.gain, row.gain_low, row.gain_high, "+.1f")
    costs = map(shown, (row.prepare, row.train, row.test, row.extra, row.extra_test))
    even = "" if row.break_even is None else f"{row.break_even:,.0f}"
    prices = [row.unpriced, ""] if row.unpriced else [shown(row.per_point), shown(row.per_point_test)]
    return [*model_names(labels, row.method, row.backbone), *costs, even, gain, *prices]
