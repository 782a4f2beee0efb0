"""Tables beyond the paper's, each of its own question, all from stored predictions.

What enters: a run's folder and settings. What leaves: `<name>.csv` and `<name>.md`:

- sweep, object: accuracy at each level and the mean over levels (the area under the curve over its width); the
  levels are shares of the image, or of the object;
- part_cost: what it costs to hide each part category on its own;
- calibration: expected calibration error and mean confidence, against the accuracy;
- per_class: the gain over None of each class at the highest level.

Intervals are those of Tables 1 and 2: images within classes, and seeds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from dfeat.config import Settings
from dfeat.data.index import read_index
from dfeat.data.records import part_of_key, table_text
from dfeat.data.settings import Study
from dfeat.errors import UserError
from dfeat.methods import REFERENCE
from dfeat.report.numbers.paper import METRICS, Cell, backbone_name, method_name
from dfeat.report.numbers.results import SetPredictions, SetResults, load_results, resampled
from dfeat.report.numbers.sets import published_sets, study_sets
from dfeat.report.numbers.statistics import Effect, expected_calibration_error, holm, majority_p, mcnemar
from dfeat.report.tables.layout import markdown_escaped
from dfeat.report.tables.published import percent, probability
from dfeat.storage.atomic import write_files

Weights = dict[Cell, float]
Table = list[dict[str, str]]
SHOWN_CLASSES: Final = 5
"""Classes that the Markdown of per_class lists at either end; the CSV has all."""


def write_study(name: str, results: Path, settings: Settings, out: Path) -> None:
    """Write one of the tables; the same inputs give the same bytes. Raises UserError where the run has no such study."""
    rows, text = STUDIES[name](results, settings)
    columns = tuple(rows[0]) if rows else ()
    table = table_text(columns, [tuple(row.values()) for row in rows])
    note = [f"**{markdown_escaped(settings.report.note)}**", ""] if settings.report.note else []
    heading = f"# {_TITLES[name]}"
    markdown = "\n".join([heading, "", *note, *text]) + "\n"
    write_files({out / f"{name}.csv": table.encode(), out / f"{name}.md": markdown.encode()})


_TITLES: Final = {
    "sweep": "Accuracy against information loss, in fine steps",
    "object": "Accuracy against the share of the object that is hidden",
    "part_cost": "What hiding one part costs",
    "calibration": "Calibration under occlusion",
    "per_class": "Classes that gain and lose",
}


def area_weights(levels: Iterable[int], cell: Cell) -> Weights:
    """Weights of the mean accuracy over the range of levels: the trapezoid rule, divided by the range."""
    ordered = sorted(levels)
    weights: Weights = dict.fromkeys((cell._replace(level=level) for level in ordered), 0.0)
    for low, high in pairwise(ordered):
        for level in (low, high):
            weights[cell._replace(level=level)] += (high - low) / 2 / (ordered[-1] - ordered[0])
    return weights


def _curves(study: Study) -> Callable[[Path, Settings], tuple[Table, list[str]]]:
    def made(results: Path, settings: Settings) -> tuple[Table, list[str]]:
        rows: Table = []
        loaded = load_results(results / "evaluation", settings, study_sets(study, settings))
        for of_set in loaded.values():
            if len(of_set.predictions.levels) < 2:
                raise UserError(f"study {study!r} needs several levels on {of_set.predictions.name!r}; give it some")
            rows += [row for cell in _columns(of_set) for row in _curve_rows(of_set, cell)]
        return rows, _curve_text(rows, study)

    return made


def _columns(of_set: SetResults) -> list[Cell]:
    """A cell at level 0 for each method, backbone and metric."""
    made = of_set.predictions
    return [Cell(m, b, 0, metric) for b in made.backbones for m in made.methods for metric in METRICS]


def _curve_rows(of_set: SetResults, cell: Cell) -> Table:
    points = {str(level): {cell._replace(level=level): 1.0} for level in sorted(of_set.predictions.levels)}
    points["area"] = area_weights(of_set.predictions.levels, cell)
    return [_weighed_row(of_set, cell, level, weights) for level, weights in points.items()]


def _weighed_row(of_set: SetResults, cell: Cell, level: str, weights: Weights) -> dict[str, str]:
    value = of_set.contrast(weights)
    row = {
        "set": of_set.predictions.name, "level": level, "method": cell.method, "backbone": cell.backbone,
        "metric": cell.metric, "value": percent(value.estimate), "low": percent(max(value.low, 0.0)),
        "high": percent(min(value.high, 1.0)), "n": str(of_set.resampled.images),
        "seeds": str(len(of_set.predictions.seeds)),
    }  # fmt: skip
    compared = cell.method != REFERENCE and REFERENCE in of_set.predictions.methods
    none = {one._replace(method=REFERENCE): -weight for one, weight in weights.items()}
    return row | _difference(of_set.contrast({**weights, **none}) if compared else None, "difference")


def _difference(effect: Effect | None, name: str) -> dict[str, str]:
    values = ("", "", "") if effect is None else [percent(value) for value in effect[:3]]
    return dict(zip((f"{name}_to_none", f"{name}_low", f"{name}_high"), values, strict=True))


def _curve_text(rows: Table, study: Study) -> list[str]:
    of = "the object" if study == "object" else "the image"
    lines: list[str] = []
    for name in dict.fromkeys(row["set"] for row in rows):
        shown = [row for row in rows if row["set"] == name and row["metric"] == "top1"]
        levels = list(dict.fromkeys(row["level"] for row in shown))
        lines += [
            f"Top-1 accuracy on {markdown_escaped(name)} in percent, n = {int(shown[0]['n']):,}; levels in percent of {of}. "
            "Mean: over the levels' range (the area under the curve over its width), with its interval, and its difference "
            "from None.",
            "",
            _pipes(["Method", "Architecture", *(f"{level} %" for level in levels[:-1]), "Mean", "Over None"]),
            _pipes(["---", "---"] + ["---:"] * (len(levels) + 1)),
        ]
        for model in dict.fromkeys((row["method"], row["backbone"]) for row in shown):
            own = [row for row in shown if (row["method"], row["backbone"]) == model]
            area = own[-1]
            cells = [f"{float(row['value']):.1f}" for row in own[:-1]]
            lines.append(
                _pipes([*_names(*model), *cells, _with_interval(area, "value", "low", "high"), _over_none(area)])
            )
        lines.append("")
    return lines


def _part_cost(results: Path, settings: Settings) -> tuple[Table, list[str]]:
    rows: Table = []
    for name, of_set in load_results(results / "evaluation", settings, study_sets("parts", settings)).items():
        if set(of_set.predictions.levels) != {0, 100}:
            raise UserError(f"study 'parts' needs the levels [0, 100] on {name!r}; give it both")
        index = read_index(results / "data" / name)
        path = index.annotations_path()
        assert path is not None
        coco = json.loads(path.read_text(encoding="utf-8"))
        names = {category["id"]: category["name"] for category in coco["categories"]}
        of_key = np.array([part_of_key(key)[1] for key in of_set.predictions.keys])
        for category in sorted(set(of_key.tolist())):
            chosen = resampled(_subset(of_set.predictions, of_key == category), settings, f"part {category}")
            rows += [
                _part_row(chosen, category, names[category], cell) for cell in _columns(chosen) if cell.metric == "top1"
            ]
    return rows, _part_text(rows)


def _subset(predictions: SetPredictions, kept: Any) -> SetPredictions:
    """The predictions of some images."""
    keys = tuple(key for key, keep in zip(predictions.keys, kept.tolist(), strict=True) if keep)
    return replace(
        predictions, keys=keys, labels=predictions.labels[kept], rank=predictions.rank[..., kept],
        p1=predictions.p1[..., kept],
    )  # fmt: skip


def _part_row(of_set: SetResults, category: int, name: str, cell: Cell) -> dict[str, str]:
    hidden = cell._replace(level=100)
    cost = of_set.difference(cell, hidden)
    none = {one._replace(method=REFERENCE): -weight for one, weight in {hidden: 1.0}.items()}
    compared = cell.method != REFERENCE and REFERENCE in of_set.predictions.methods
    return {
        "set": of_set.predictions.name, "category": str(category), "part": name, "method": cell.method,
        "backbone": cell.backbone, "n": str(of_set.resampled.images), "seeds": str(len(of_set.predictions.seeds)),
        "whole": percent(of_set.accuracy(cell)), "hidden": percent(of_set.accuracy(hidden)),
        "cost": percent(cost.estimate), "cost_low": percent(cost.low), "cost_high": percent(cost.high),
        **_difference(of_set.contrast({hidden: 1.0, **none}) if compared else None, "hidden"),
    }  # fmt: skip


def _part_text(rows: Table) -> list[str]:
    lines = [
        "Top-1 accuracy in percent on the images that have the part, whole and with that part's pixels black; the cost is "
        "the paired difference in points. Parts in the order of what None loses (the mean over architectures).",
        "",
        _pipes(["Part", "n", "Method", "Architecture", "Whole", "Hidden", "Cost"]),
        _pipes(["---", "---:", "---", "---", "---:", "---:", "---:"]),
    ]
    reference = [row for row in rows if row["method"] == REFERENCE] or rows

    def lost(part: str) -> float:
        return float(np.mean([float(row["cost"]) for row in reference if row["part"] == part]))

    for part in sorted(dict.fromkeys(row["part"] for row in rows), key=lost, reverse=True):
        for row in (row for row in rows if row["part"] == part):
            values = [f"{float(row[key]):.1f}" for key in ("whole", "hidden")]
            cost = _with_interval(row, "cost", "cost_low", "cost_high")
            names = _names(row["method"], row["backbone"])
            lines.append(_pipes([markdown_escaped(part), row["n"], *names, *values, cost]))
    return [*lines, ""]


def _calibration(results: Path, settings: Settings) -> tuple[Table, list[str]]:
    rows: Table = []
    for name, of_set in load_results(results / "evaluation", settings, published_sets(settings)).items():
        made = of_set.predictions
        for level in made.levels:
            for backbone in made.backbones:
                for method in made.methods:
                    rows.append(_calibration_row(of_set, name, Cell(method, backbone, level, "top1")))
    return rows, _calibration_text(rows)


def _calibration_row(of_set: SetResults, name: str, cell: Cell) -> dict[str, str]:
    confidence, correct = of_set.predictions.confidence(cell), of_set.predictions.correct(cell)
    errors = [expected_calibration_error(*pair) for pair in zip(confidence, correct, strict=True)]
    return {
        "set": name, "level": str(cell.level), "method": cell.method, "backbone": cell.backbone,
        "n": str(correct.shape[1]), "seeds": str(correct.shape[0]), "ece": percent(float(np.mean(errors))),
        "confidence": percent(float(confidence.mean())), "accuracy": percent(float(correct.mean())),
        "overconfidence": percent(float(confidence.mean()) - float(correct.mean())),
    }  # fmt: skip


def _calibration_text(rows: Table) -> list[str]:
    lines = [
        "Expected calibration error (15 equal bins of confidence, Guo et al. 2017) in points, and how far the mean confidence "
        "lies above the accuracy; means over seeds. Without intervals: a bootstrap of this error is biased upward.",
        "",
    ]
    for name in dict.fromkeys(row["set"] for row in rows):
        shown = [row for row in rows if row["set"] == name]
        levels = list(dict.fromkeys(row["level"] for row in shown))
        lines += [
            f"## {markdown_escaped(name)}",
            "",
            _pipes(["Method", "Architecture", *(f"{level} %" for level in levels)]),
            _pipes(["---", "---"] + ["---:"] * len(levels)),
        ]
        for model in dict.fromkeys((row["method"], row["backbone"]) for row in shown):
            own = [row for row in shown if (row["method"], row["backbone"]) == model]
            cells = [f"{float(row['ece']):.1f} ({float(row['overconfidence']):+.1f})" for row in own]
            lines.append(_pipes([*_names(*model), *cells]))
        lines.append("")
    return lines


def _per_class(results: Path, settings: Settings) -> tuple[Table, list[str]]:
    if REFERENCE not in settings.training.methods:
        raise UserError(f"per_class compares methods with None; add {REFERENCE!r} to training.methods")
    rows: Table = []
    for name, of_set in load_results(results / "evaluation", settings, published_sets(settings)).items():
        classes = read_index(results / "data" / name).classes
        made = of_set.predictions
        for method in (method for method in made.methods if method != REFERENCE):
            for backbone in made.backbones:
                cell = Cell(method, backbone, max(made.levels), "top1")
                of_model = [_class_row(of_set, cell, label) for label in np.unique(made.labels).tolist()]
                adjusted = holm([float(row["p_mcnemar"]) for row in of_model])
                for row, p in zip(of_model, adjusted, strict=True):
                    info = classes[int(row["label"])]
                    rows.append({**row, "p_holm": probability(p), "wnid": info.wnid, "class": info.name})
    return rows, _class_text(rows)


def _class_row(of_set: SetResults, cell: Cell, label: int) -> dict[str, str]:
    kept = of_set.predictions.labels == label
    ours = of_set.predictions.correct(cell)[:, kept]
    none = of_set.predictions.correct(cell._replace(method=REFERENCE))[:, kept]
    p = majority_p([mcnemar(a, b) for a, b in zip(ours, none, strict=True)])
    return {
        "set": of_set.predictions.name, "level": str(cell.level), "method": cell.method, "backbone": cell.backbone,
        "label": str(label), "n": str(int(kept.sum())), "seeds": str(len(ours)),
        "accuracy": percent(float(ours.mean())), "accuracy_none": percent(float(none.mean())),
        "gain": percent(float(ours.mean()) - float(none.mean())), "p_mcnemar": probability(p),
    }  # fmt: skip


def _class_text(rows: Table) -> list[str]:
    lines = [
        "Top-1 gain over None of each class, in points, at the highest level of each set; McNemar's exact test per seed, "
        f"joined by majority, Holm-adjusted over the model's classes. The {SHOWN_CLASSES} classes at either end; the CSV "
        "has all.",
        "",
        _pipes(["Set", "Method", "Architecture", "Most gained", "Most lost", "Classes with p < 0.05"]),
        _pipes(["---"] * 5 + ["---:"]),
    ]
    for model in dict.fromkeys((row["set"], row["method"], row["backbone"]) for row in rows):
        own = [row for row in rows if (row["set"], row["method"], row["backbone"]) == model]
        own.sort(key=lambda row: -float(row["gain"]))
        best = "; ".join(_class_shown(row) for row in own[:SHOWN_CLASSES] if float(row["gain"]) > 0)
        worst = "; ".join(_class_shown(row) for row in own[::-1][:SHOWN_CLASSES] if float(row["gain"]) < 0)
        significant = sum(float(row["p_holm"]) < 0.05 for row in own)
        lines.append(_pipes([markdown_escaped(model[0]), *_names(*model[1:]), best, worst, str(significant)]))
    return [*lines, ""]


def _class_shown(row: dict[str, str]) -> str:
    return f"{markdown_escaped(row['class'])} {float(row['gain']):+.0f}"


def _names(method: str, backbone: str) -> list[str]:
    return [markdown_escaped(method_name(method)), markdown_escaped(backbone_name(backbone))]


def _with_interval(row: dict[str, str], value: str, low: str, high: str) -> str:
    return f"{float(row[value]):.1f} ({float(row[low]):.1f} to {float(row[high]):.1f})"


def _over_none(row: dict[str, str]) -> str:
    if not row["difference_to_none"]:
        return ""
    value, low, high = (float(row[f"difference_{key}"]) for key in ("to_none", "low", "high"))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def _pipes(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


STUDIES: Final[dict[str, Callable[[Path, Settings], tuple[Table, list[str]]]]] = {
    "sweep": _curves("sweep"),
    "object": _curves("object"),
    "part_cost": _part_cost,
    "calibration": _calibration,
    "per_class": _per_class,
}
