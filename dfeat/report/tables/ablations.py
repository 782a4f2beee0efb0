"""Ablations: the effect on accuracy of changing one choice of the run, or several.

What enters: predictions of every point of a grid, under `results/<run>/ablation/<name>/<number>/evaluation`. What
leaves: `ablation_<name>.csv`, a row for each point, model, set and level, with the paired difference from the grid's
first point, and the same as `.md`. Points are compared on the same images: those held out of training, or the test
sets. What is chosen by a test set must not be measured on it again, and the text says so where it applies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np

from dfeat.config import Settings, ablation_points
from dfeat.config.labels import Labels
from dfeat.errors import UserError, nearest
from dfeat.places import HOLDOUT, Place, point_folder
from dfeat.report.numbers import text
from dfeat.report.numbers.paper import Cell
from dfeat.report.numbers.results import SetResults, axes_of, load_set, measured
from dfeat.report.numbers.statistics import holm
from dfeat.report.numbers.text import TextRow, escaped, grouped, percent, probability

RECIPE: Final = 5


def write_ablation(name: str, results: Path, settings: Settings, out: Path) -> None:
    """Write `ablation_<name>.csv` and `.md` into `out`. Raises UserError for a grid that the settings do not have."""
    check_grid(name, settings)
    points, point_settings = zip(*ablation_points(settings, name), strict=True)
    rows: list[TextRow] = []
    for set_name, method in product(settings.measured_on(name), settings.ablation[name].methods):
        rows += _rows(joined(name, results, point_settings, method, set_name, settings), points, method)
    _mark(rows, 1 - settings.report.confidence)
    shown = measured_on_text(settings, name)
    title = f"Ablation: {escaped(name)}, on {shown}"
    blocks = _blocks(rows, points, shown, settings.labels)
    text.write_rows(out, f"ablation_{name}", rows, title, settings.report.note, blocks)


def check_grid(name: str, settings: Settings) -> None:
    """Raise UserError for a grid that the settings do not have."""
    if name not in settings.ablation:
        known = list(settings.ablation)
        raise UserError(f"no ablation {name!r}{nearest(name, known)} The settings have {', '.join(known) or 'none'}")


def measured_on_text(settings: Settings, name: str) -> str:
    """What a grid is measured on, in words."""
    sets = settings.measured_on(name)
    if HOLDOUT in sets:
        return f"images held out of training ({settings.data.train.holdout} of each class)"
    return f"the test sets ({', '.join(escaped(settings.labels.set(one)) for one in sets)})"


def joined(
    name: str, results: Path, points: Sequence[Settings], method: str, set_name: str, settings: Settings
) -> SetResults:
    """One method's predictions at every point as if the points were methods, so that all are compared with all.

    The backbones are each point's own, since a grid may change the settings behind a name.
    """
    axes = replace(axes_of(points[0], set_name), methods=(method,))
    folders = [Place(results, point_folder(name, number)) for number in range(len(points))]
    loaded = [
        load_set(folder.evaluation, set_name, replace(axes, backbones=point.training.backbones))
        for folder, point in zip(folders, points, strict=True)
    ]
    first = loaded[0]
    for folder, other in zip(folders, loaded, strict=True):
        if other.keys != first.keys:
            raise UserError(
                f"{folder.home} holds predictions of other images of {set_name} than {folders[0].home}; make it again"
            )
    together = replace(
        first, methods=tuple(map(str, range(len(points)))), rank=np.concatenate([one.rank for one in loaded]),
        p1=np.concatenate([one.p1 for one in loaded]),
    )  # fmt: skip
    return measured(together, settings.report.confidence)


def _rows(results: SetResults, points: Sequence[dict[str, Any]], method: str) -> list[TextRow]:
    made = results.predictions
    rows = []
    for (number, point), backbone, level in product(enumerate(points), made.backbones, made.levels):
        cell = Cell(str(number), backbone, level, "top1")
        low, high = results.interval(cell)
        effect = results.difference(cell, cell._replace(method="0"))
        differences = [percent(value) if number else "" for value in effect[:3]]
        rows.append({
            "point": str(number), **{key: _shown(value) for key, value in point.items()},
            "set": made.name, "level": str(level), "method": method, "backbone": backbone, "metric": "top1",
            "value": percent(results.accuracy(cell)), "low": percent(low), "high": percent(high),
            "n": str(results.outcomes.images), "seeds": str(len(made.seeds)),
            **dict(zip(("difference_to_first", "difference_low", "difference_high"), differences, strict=True)),
            "p": probability(effect.p()) if number and len(made.seeds) > 1 else "",
        })  # fmt: skip
    return rows


def _mark(rows: list[TextRow], alpha: float) -> None:
    """Add `p_holm`, adjusted over the table, and `mark`, ↑ or ↓ where it is below alpha."""
    tested = [row for row in rows if row["p"]]
    adjusted = dict(zip(map(id, tested), holm([float(row["p"]) for row in tested]), strict=True))
    for row in rows:
        p = adjusted.get(id(row))
        row["p_holm"] = "" if p is None else probability(p)
        row["mark"] = "" if p is None or p >= alpha else "↑" if float(row["difference_to_first"]) > 0 else "↓"


def setting_names(keys: Sequence[str]) -> list[str]:
    """Settings by the last words of their dotted keys, with spaces; with the words before where two end alike."""
    last = [key.rpartition(".")[2] for key in keys]
    return [(key if last.count(word) > 1 else word).replace("_", " ") for key, word in zip(keys, last, strict=True)]


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _blocks(rows: list[TextRow], points: Sequence[dict[str, Any]], shown: str, labels: Labels) -> list[str]:
    keys = list(points[0])
    chosen = (
        "A choice among them has seen no test image."
        if rows[0]["set"] == HOLDOUT
        else "A choice among them is made by what it would be tested on: data.train.holdout holds images out for this."
    )
    blocks = [
        "Top-1 accuracy in percent; in brackets the paired difference from the first point, ↑ or ↓ where it is "
        "significant over images and seeds, Holm-adjusted over the table (never with one seed). All points are measured "
        f"on {shown}. {chosen}"
    ]
    for model, own in grouped(rows, "method", "backbone").items():
        places = [labels.place(*place) for place in grouped(own, "set", "level")]
        lines = [
            [*(escaped(_shown(points[int(number)][key])) for key in keys), *map(_cell, own_rows)]
            for (number,), own_rows in grouped(own, "point").items()
        ]
        table = text.pipe_table(
            "l" * len(keys) + "r" * len(places), map(escaped, [*setting_names(keys), *places]), lines
        )
        blocks += [f"## {', '.join(text.model_names(labels, *model))}", table]
    return blocks


def _cell(row: TextRow) -> str:
    value = f"{float(row['value']):.1f}"
    if not row["difference_to_first"]:
        return value
    return f"{value} ({float(row['difference_to_first']):+.1f}{row['mark']})"
