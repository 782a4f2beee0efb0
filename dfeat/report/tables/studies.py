"""Tables beyond the paper's, each on a question of its own, all from stored predictions.

What enters: a run's folder and settings. What leaves: `<name>.csv` and `<name>.md`:

- sweep, object_occlusion: accuracy at each level and the mean over levels (the area under the curve over its width); the
  levels are shares of the image, or of the object;
- part_cost: what it costs to hide each part category on its own;
- calibration: expected calibration error and mean confidence, against the accuracy;
- per_class: the gain over None of each class at the highest level.

Intervals are those of Tables 1 and 2: images within classes, and seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Final

import numpy as np

from dfeat.config import Settings
from dfeat.config.labels import Labels
from dfeat.data.index import read_index
from dfeat.data.records import ClassInfo, part_of_key
from dfeat.data.settings import Study
from dfeat.methods import REFERENCE
from dfeat.places import Place
from dfeat.report.numbers import text
from dfeat.report.numbers.paper import METRICS, Cell
from dfeat.report.numbers.results import SetPredictions, SetResults, Weights, load_results, measured
from dfeat.report.numbers.sets import study_sets
from dfeat.report.numbers.statistics import Bools, Effect, holm
from dfeat.report.numbers.text import TextRow, escaped, grouped, percent, probability

MakeStudy = Callable[[Place, Settings], tuple[list[TextRow], list[str]]]
"""Returns the rows of the CSV, and the blocks of the Markdown."""
SHOWN_CLASSES: Final = 5
"""Classes that the Markdown of per_class lists at either end; the CSV has all."""


def write_study(name: str, results: Path, settings: Settings, out: Path) -> None:
    """Write one of the tables; the same inputs give the same bytes."""
    title, study = STUDIES[name]
    rows, blocks = study(Place(results), settings)
    text.write_rows(out, name, rows, title, settings.report.note, blocks)


def area_weights(levels: Iterable[int], cell: Cell) -> Weights:
    """Weights of the mean accuracy over the range of levels: the trapezoid rule, divided by the range."""
    ordered = sorted(levels)
    weights: Weights = dict.fromkeys((cell._replace(level=level) for level in ordered), 0.0)
    for low, high in pairwise(ordered):
        for level in (low, high):
            weights[cell._replace(level=level)] += (high - low) / 2 / (ordered[-1] - ordered[0])
    return weights


def _curves(study: Study, place: Place, settings: Settings) -> tuple[list[TextRow], list[str]]:
    rows: list[TextRow] = []
    for results in load_results(place.evaluation, settings, study_sets(study, settings)).values():
        rows += [row for cell in _whole_cells(results) for row in _curve_rows(results, cell)]
    sets = grouped(rows, "set").items()
    return rows, [block for (name,), shown in sets for block in _curve_blocks(name, shown, study, settings.labels)]


def _whole_cells(results: SetResults) -> list[Cell]:
    """A cell at level 0 for each backbone, method and metric."""
    axes = product(results.predictions.backbones, results.predictions.methods, METRICS)
    return [Cell(method, backbone, 0, metric) for backbone, method, metric in axes]


def _curve_rows(results: SetResults, cell: Cell) -> list[TextRow]:
    levels = sorted(results.predictions.levels)
    points: dict[str, Weights] = {str(level): {cell._replace(level=level): 1.0} for level in levels}
    points["area"] = area_weights(levels, cell)
    rows = []
    for level, weights in points.items():
        value = results.contrast(weights)
        rows.append({
            "set": results.predictions.name, "level": level, "method": cell.method, "backbone": cell.backbone,
            "metric": cell.metric, "value": percent(value.estimate), "low": percent(max(value.low, 0.0)),
            "high": percent(min(value.high, 1.0)), **_counts(results),
            **_over_none(results.over_none(weights), "difference"),
        })  # fmt: skip
    return rows


def _counts(results: SetResults) -> TextRow:
    return {"n": str(results.outcomes.images), "seeds": str(len(results.predictions.seeds))}


def _over_none(effect: Effect | None, name: str) -> TextRow:
    values = ("", "", "") if effect is None else [percent(value) for value in effect[:3]]
    return dict(zip((f"{name}_to_none", f"{name}_low", f"{name}_high"), values, strict=True))


def _curve_blocks(name: str, rows: list[TextRow], study: Study, labels: Labels) -> list[str]:
    hidden = "the object" if study == "object_occlusion" else "the image"
    models = grouped((row for row in rows if row["metric"] == "top1"), "method", "backbone")
    levels = [row["level"] for row in next(iter(models.values()))]
    lines = []
    for model, (*points, area) in models.items():
        interval = text.with_interval(area["value"], area["low"], area["high"])
        gain, low, high = (area[f"difference_{key}"] for key in ("to_none", "low", "high"))
        over_none = text.with_interval(gain, low, high, "+.1f") if gain else ""
        values = [f"{float(row['value']):.1f}" for row in points]
        lines.append([*text.model_names(labels, *model), *values, interval, over_none])
    heads = ["Method", "Architecture", *(f"{level} %" for level in levels[:-1]), "Mean", "Over None"]
    return [
        f"Top-1 accuracy on {escaped(labels.set(name))} in percent, n = {int(rows[0]['n']):,}; levels in percent of {hidden}. "
        "Mean: over the levels' range (the area under the curve over its width), with its interval, and its difference "
        "from None.",
        text.pipe_table("ll" + "r" * (len(levels) + 1), heads, lines),
    ]


def _part_cost(place: Place, settings: Settings) -> tuple[list[TextRow], list[str]]:
    rows: list[TextRow] = []
    for name, results in load_results(place.evaluation, settings, study_sets("part_cost", settings)).items():
        annotations = read_index(place.data(name)).annotations()
        assert annotations is not None
        parts = {category["id"]: category["name"] for category in annotations["categories"]}
        hidden = np.array([part_of_key(key)[1] for key in results.predictions.keys])
        for category in np.unique(hidden).tolist():
            chosen = measured(_subset(results.predictions, hidden == category), settings.report.confidence)
            cells = [cell for cell in _whole_cells(chosen) if cell.metric == "top1"]
            rows += [_part_row(chosen, category, parts[category], cell) for cell in cells]
    return rows, _part_blocks(rows, settings.labels)


def _subset(predictions: SetPredictions, kept: Bools) -> SetPredictions:
    """The predictions of the images where `kept` is true."""
    keys = tuple(key for key, keep in zip(predictions.keys, kept.tolist(), strict=True) if keep)
    return replace(
        predictions, keys=keys, labels=predictions.labels[kept], rank=predictions.rank[..., kept],
        p1=predictions.p1[..., kept],
    )  # fmt: skip


def _part_row(results: SetResults, category: int, part: str, cell: Cell) -> TextRow:
    hidden = cell._replace(level=100)
    cost = results.difference(cell, hidden)
    return {
        "set": results.predictions.name, "category": str(category), "part": part, "method": cell.method,
        "backbone": cell.backbone, **_counts(results), "whole": percent(results.accuracy(cell)),
        "hidden": percent(results.accuracy(hidden)), "cost": percent(cost.estimate), "cost_low": percent(cost.low),
        "cost_high": percent(cost.high), **_over_none(results.over_none({hidden: 1.0}), "hidden"),
    }  # fmt: skip


def _part_blocks(rows: list[TextRow], labels: Labels) -> list[str]:
    parts = {part: of_part for (part,), of_part in grouped(rows, "part").items()}
    compared = grouped((row for row in rows if row["method"] == REFERENCE), "part") or grouped(rows, "part")

    def lost(part: str) -> float:
        return float(np.mean([float(row["cost"]) for row in compared.get((part,), [])]))

    lines = [
        [
            escaped(part), row["n"], *text.model_names(labels, row["method"], row["backbone"]), f"{float(row['whole']):.1f}",
            f"{float(row['hidden']):.1f}", text.with_interval(row["cost"], row["cost_low"], row["cost_high"]),
        ]
        for part in sorted(parts, key=lost, reverse=True)
        for row in parts[part]
    ]  # fmt: skip
    return [
        "Top-1 accuracy in percent on the images that have the part, whole and with that part's pixels black; the cost is "
        "the paired difference in points. Parts in the order of what None loses (the mean over architectures).",
        text.pipe_table("lrllrrr", ["Part", "n", "Method", "Architecture", "Whole", "Hidden", "Cost"], lines),
    ]


def _calibration(place: Place, settings: Settings) -> tuple[list[TextRow], list[str]]:
    loaded = load_results(place.evaluation, settings, settings.data.published)
    sets = [results.predictions for results in loaded.values()]
    rows, labels = [_calibration_row(one, cell) for one in sets for cell in one.cells("top1")], settings.labels
    blocks = [
        "Expected calibration error (15 equal bins of confidence, Guo et al. 2017) in points, and how far the mean confidence "
        "lies above the accuracy; means over seeds. Without intervals: on resampled images this error is biased upward."
    ]
    for (name,), shown in grouped(rows, "set").items():
        levels = [f"{level} %" if name not in labels.uncut else "Error" for (level,) in grouped(shown, "level")]
        lines = []
        for model, own in grouped(shown, "method", "backbone").items():
            values = [f"{float(row['ece']):.1f} ({float(row['overconfidence']):+.1f})" for row in own]
            lines.append([*text.model_names(labels, *model), *values])
        table = text.pipe_table("ll" + "r" * len(levels), ["Method", "Architecture", *levels], lines)
        blocks += [f"## {escaped(labels.set(name))}", table]
    return rows, blocks


def _calibration_row(predictions: SetPredictions, cell: Cell) -> TextRow:
    confidence, correct = predictions.confidence(cell), predictions.correct(cell)
    return {
        "set": predictions.name, "level": str(cell.level), "method": cell.method, "backbone": cell.backbone,
        "n": str(correct.shape[1]), "seeds": str(correct.shape[0]), "ece": percent(predictions.calibration_error(cell)),
        "confidence": percent(float(confidence.mean())), "accuracy": percent(float(correct.mean())),
        "overconfidence": percent(float(confidence.mean()) - float(correct.mean())),
    }  # fmt: skip


def _per_class(place: Place, settings: Settings) -> tuple[list[TextRow], list[str]]:
    rows: list[TextRow] = []
    for name, results in load_results(place.evaluation, settings, settings.data.published).items():
        classes, made = read_index(place.data(name)).classes, results.predictions
        of_class = {
            label: measured(_subset(made, made.labels == label), settings.report.confidence)
            for label in np.unique(made.labels).tolist()
        }
        for method, backbone in product(made.methods, made.backbones):
            if method != REFERENCE:
                rows += _class_rows(of_class, Cell(method, backbone, max(made.levels), "top1"), classes)
    return rows, _class_blocks(rows, settings)


def _class_rows(of_class: Mapping[int, SetResults], cell: Cell, classes: Sequence[ClassInfo]) -> list[TextRow]:
    """A row for each class of one model, Holm-adjusted over them; with one seed no class is tested."""
    gains = {label: results.difference(cell, cell.none) for label, results in of_class.items()}
    p_values = {label: gain.p() for label, gain in gains.items() if len(of_class[label].predictions.seeds) > 1}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    rows = []
    for label, results in of_class.items():
        gain, low, high = map(percent, gains[label][:3])
        p, p_holm = (probability(of[label]) if label in of else "" for of in (p_values, adjusted))
        rows.append({
            "set": results.predictions.name, "level": str(cell.level), "method": cell.method,
            "backbone": cell.backbone, "label": str(label), **_counts(results),
            "accuracy": percent(results.accuracy(cell)), "accuracy_none": percent(results.accuracy(cell.none)),
            "gain": gain, "gain_low": low, "gain_high": high, "p": p, "p_holm": p_holm,
            "wnid": classes[label].wnid, "class": classes[label].name,
        })  # fmt: skip
    return rows


def _class_blocks(rows: list[TextRow], settings: Settings) -> list[str]:
    labels, confidence = settings.labels, settings.report.confidence

    def named(ranked: list[TextRow], sign: int) -> str:
        shown = [row for row in ranked[:SHOWN_CLASSES] if sign * float(row["gain"]) > 0]
        return "; ".join(f"{escaped(row['class'])} {float(row['gain']):+.0f}" for row in shown)

    lines = []
    for (name, *model), own in grouped(rows, "set", "method", "backbone").items():
        ranked = sorted(own, key=lambda row: -float(row["gain"]))
        signs = [np.sign(float(row["gain"])) for row in own if row["p_holm"] and float(row["p_holm"]) < 1 - confidence]
        ends = [named(ranked, 1), named(ranked[::-1], -1)]
        place = escaped(labels.place(name, own[0]["level"]))
        lines.append([place, *text.model_names(labels, *model), *ends, str(signs.count(1)), str(signs.count(-1))])
    heads = ["Set", "Method", "Architecture", "Most gained", "Most lost", "Classes better", "Classes worse"]
    return [
        "Top-1 gain over None of each class, in points, at the highest level of each set, and the number of classes whose "
        f"gain is significant: over images and seeds, Holm-adjusted over the model's classes, p < {1 - confidence:.2g}; "
        "none with one seed.",
        text.pipe_table("lllllrr", heads, lines),
        f"Named are the {SHOWN_CLASSES} classes at either end; `per_class.csv` has all.",
    ]


STUDIES: Final[dict[str, tuple[str, MakeStudy]]] = {
    "sweep": ("Accuracy against information loss, in fine steps", partial(_curves, "sweep")),
    "object_occlusion": (
        "Accuracy against the share of the object that is hidden",
        partial(_curves, "object_occlusion"),
    ),
    "part_cost": ("What hiding one part costs", _part_cost),
    "calibration": ("Calibration under occlusion", _calibration),
    "per_class": ("Classes that gain and lose", _per_class),
}
