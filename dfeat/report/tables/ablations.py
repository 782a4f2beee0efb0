"""Ablations: what becomes of the accuracy when one choice of the run is taken apart.

What enters: predictions of every point of a grid, under `results/<run>/ablation/<name>/<number>/evaluation`. What
leaves: `ablation_<name>.csv`, a row for each point, model, set and level, with the paired difference from the grid's
first point, and the same as `.md`. Points are compared on the same resampled images. All are evaluated on the test sets,
so the best of them is not a setting to report as the method's own: it was chosen by what it is measured on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dfeat.config import Settings, ablation_points
from dfeat.data.records import table_text
from dfeat.errors import UserError, nearest
from dfeat.report.numbers.paper import Cell, backbone_name, method_name
from dfeat.report.numbers.results import SetResults, axes_of, load_set, resampled
from dfeat.report.numbers.sets import published_sets
from dfeat.report.tables.layout import markdown_escaped
from dfeat.report.tables.published import percent
from dfeat.storage.atomic import write_files


def write_ablation(name: str, results: Path, settings: Settings, out: Path) -> None:
    """Write `ablation_<name>.csv` and `.md` into `out`. Raises UserError for a grid that the settings do not have."""
    if name not in settings.ablation:
        known = list(settings.ablation)
        raise UserError(f"no ablation {name!r}{nearest(name, known)} The settings have {', '.join(known) or 'none'}")
    points, of_points = zip(*ablation_points(settings, name), strict=True)
    rows: list[dict[str, str]] = []
    for set_name in published_sets(settings):
        for method in settings.ablation[name].methods:
            of_set = _joined(results / "ablation" / name, of_points, method, set_name, settings)
            rows += _rows(of_set, points, method)
    table = table_text(tuple(rows[0]), [tuple(row.values()) for row in rows])
    text = "\n".join(_markdown(name, rows, points, settings)) + "\n"
    write_files({out / f"ablation_{name}.csv": table.encode(), out / f"ablation_{name}.md": text.encode()})


def _joined(folder: Path, points: Sequence[Settings], method: str, set_name: str, settings: Settings) -> SetResults:
    """One method's predictions at every point as if the points were methods, so that all are compared with all.

    The backbones are each point's own, since a grid may change what a name stands for.
    """
    axes = replace(axes_of(settings, set_name), methods=(method,))
    loaded = [
        load_set(folder / str(number) / "evaluation", set_name, replace(axes, backbones=point.training.backbones))
        for number, point in enumerate(points)
    ]
    first = loaded[0]
    odd = next((number for number, other in enumerate(loaded) if other.keys != first.keys), None)
    if odd is not None:
        raise UserError(f"{folder / str(odd)} tells of other images of {set_name} than {folder / '0'}; make it again")
    joined = replace(
        first, methods=tuple(map(str, range(len(points)))), rank=np.concatenate([one.rank for one in loaded]),
        p1=np.concatenate([one.p1 for one in loaded]),
    )  # fmt: skip
    return resampled(joined, settings, f"{folder.name} {method}")


def _rows(of_set: SetResults, points: Sequence[dict[str, Any]], method: str) -> list[dict[str, str]]:
    made = of_set.predictions
    rows = []
    for number, point in enumerate(points):
        for backbone in made.backbones:
            for level in made.levels:
                cell = Cell(str(number), backbone, level, "top1")
                low, high = of_set.interval(cell)
                other = of_set.difference(cell, cell._replace(method="0"))
                values = [percent(value) for value in other[:3]] if number else ["", "", ""]
                rows.append({
                    "point": str(number), **{key: _shown(value) for key, value in point.items()},
                    "set": made.name, "level": str(level), "method": method, "backbone": backbone, "metric": "top1",
                    "value": percent(of_set.accuracy(cell)), "low": percent(low), "high": percent(high),
                    "n": str(of_set.resampled.images), "seeds": str(len(made.seeds)),
                    **dict(zip(("difference_to_first", "difference_low", "difference_high"), values, strict=True)),
                })  # fmt: skip
    return rows


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _markdown(name: str, rows: list[dict[str, str]], points: Sequence[dict[str, Any]], settings: Settings) -> list[str]:
    keys = list(points[0])
    lines = [f"# Ablation: {markdown_escaped(name)}", ""]
    if settings.report.note:
        lines += [f"**{markdown_escaped(settings.report.note)}**", ""]
    lines += [
        "Top-1 accuracy in percent; in brackets the paired difference from the first point, with an asterisk where its "
        "interval excludes 0 (not corrected for the number of points). All points are measured on the test sets: the best "
        "of them was chosen by what it is measured on.",
        "",
    ]
    for model in dict.fromkeys((row["method"], row["backbone"]) for row in rows):
        own = [row for row in rows if (row["method"], row["backbone"]) == model]
        places = list(dict.fromkeys((row["set"], row["level"]) for row in own))
        heads = [*keys, *(f"{name}, {level} %" for name, level in places)]
        lines += [f"## {markdown_escaped(method_name(model[0]))}, {markdown_escaped(backbone_name(model[1]))}", ""]
        lines += [_pipes(map(markdown_escaped, heads)), _pipes(["---"] * len(keys) + ["---:"] * len(places))]
        for number, point in enumerate(points):
            cells = [_cell(row) for row in own if row["point"] == str(number)]
            lines.append(_pipes([*(markdown_escaped(_shown(point[key])) for key in keys), *cells]))
        lines.append("")
    return lines


def _cell(row: dict[str, str]) -> str:
    if not row["difference_to_first"]:
        return f"{float(row['value']):.1f}"
    low, high = float(row["difference_low"]), float(row["difference_high"])
    mark = "\\*" if low > 0 or high < 0 else ""
    return f"{float(row['value']):.1f} ({float(row['difference_to_first']):+.1f}{mark})"


def _pipes(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"
