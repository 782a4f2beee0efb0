"""Tables as the page shows them: the paper's layout, and any CSV of the report folder as it is.

What enters: rows of text. What leaves: small read-only views that a template walks through.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from markupsafe import Markup

from dfeat.config import Settings
from dfeat.config.labels import Labels
from dfeat.report.numbers.paper import TableName
from dfeat.report.numbers.text import TextRow, read_csv
from dfeat.report.tables import layout
from dfeat.report.tables.efficiency import HEADINGS, UNITS
from dfeat.report.tables.layout import CellRow


class Value(NamedTuple):
    """What a cell shows, and what it is sorted by."""

    text: str
    order: str


class CsvView(NamedTuple):
    """A table: heads, which columns hold numbers, and rows. The first `labels` columns name a row.

    `same` has what all rows share, and no column shows: "set imagenet_val".
    """

    heads: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Value, ...], ...]
    labels: int = 1
    same: str = ""


def paper_table_view(name: TableName, rows: list[CellRow], settings: Settings) -> dict[str, Any]:
    """Table 1 or 2 with these rows: in the paper's layout, and with every column."""
    labels = settings.labels
    return {
        "name": name,
        "heading": layout.heading(name, rows),
        "explanation": layout.explanation(rows, settings.report.confidence, labels) if rows else "",
        "grids": layout.grids(name, rows, labels),
        "cells": csv_view([vars(row) for row in rows], labels),
    }


def cell_filters() -> dict[str, Any]:
    """The template's filters for the rows of a cell: its accuracies with bold type, intervals, the paper's values.

    The numbers are formatted from floats, so the bold type around them is safe.
    """
    return {
        "accuracies": lambda cell: Markup(layout.values(cell, "<b>{}</b>".format)),
        "intervals": layout.intervals,
        "printed": layout.printed,
    }


def csv_view(rows: Iterable[TextRow], names: Labels, classes: Sequence[str] = ()) -> CsvView:
    """Rows with display names, heads in words, and numbers at sensible digits; sorting goes by the digits of the file.

    Left out are columns that are empty throughout, those of names and counts that are the same throughout (`CsvView.same`)
    and the note, which the page shows once. A column `label` shows the name of the class where `classes` has one.
    """
    rows = _without_single_levels(rows)
    kept = [name for name in (rows[0] if rows else ()) if name != "note" and any(row[name] for row in rows)]
    kept = [name for name in kept if not (name in ("label", "wnid") and "class" in kept)]
    facts = [name for name in kept if name in (*_LABELS, *_COUNTS)]
    shared = [name for name in facts if len(rows) > 1 and len({row[name] for row in rows}) == 1]
    kept = [name for name in kept if name not in shared]
    kept.sort(key=lambda name: 0 if name in _LABELS else 2 if name in _COUNTS else 1)
    kept = [name for name in kept if _low_of(name) not in kept]
    numeric = [all(_is_number(row[name]) for row in rows if row[name]) for name in kept]
    columns = [_column(name, number, rows, names, classes) for name, number in zip(kept, numeric, strict=True)]
    labels = next((place for place, name in enumerate(kept) if name not in _LABELS), len(kept))
    same = [
        f"{_head(name).lower()} {_named(name, rows[0][name], names, classes)}" for name in shared if name != "table"
    ]
    numeric = [number and name not in _TEXTS for name, number in zip(kept, numeric, strict=True)]
    lines = tuple(zip(*columns, strict=True))
    return CsvView(tuple(map(_head, kept)), tuple(numeric), lines, max(labels, 1), ", ".join(same))


def efficiency_view(rows: Sequence[TextRow], names: Labels) -> CsvView:
    """The table of costs in the units of its Markdown: each row names its unit beside its quantity."""
    scaled = []
    for row in rows:
        unit, scale = UNITS.get(row["quantity"], ("", 1.0))  # type: ignore[call-overload]
        quantity = HEADINGS.get(row["quantity"], row["quantity"])  # type: ignore[call-overload]
        costs = {name: f"{float(row[name]) / scale:.6g}" for name in _COSTS if row.get(name)}
        scaled.append(row | costs | {"quantity": f"{quantity} ({unit})" if unit else quantity})
    return csv_view(scaled, names)


def curve_rows(path: Path) -> list[CellRow]:
    """The rows of a table of curves (`sweep.csv`, `object.csv`) but for the area under them; none without the file."""
    if not path.is_file():
        return []
    names = {field.name for field in dataclasses.fields(CellRow)}
    rows = [{name: value for name, value in line.items() if name in names} for line in read_csv(path)]
    return [CellRow(**{"table": path.stem, **row}) for row in rows if row.get("level", "").isdigit()]


_COSTS: Final = ("prepare", "train", "test", "extra", "extra_test", "per_point", "per_point_test")
_LABELS: Final = (
    "table", "set", "level", "part", "category", "method", "control", "backbone", "quantity", "metric", "key", "label",
    "class", "seed",
)  # fmt: skip
"""Columns that name a row; they come first."""
_COUNTS: Final = ("n", "seeds")
"""Columns that come last."""
_TEXTS: Final = ("level", "label", "category", "key", "seed")
_HEADS: Final = {
    "level": "Loss", "backbone": "Architecture", "n": "Images", "value": "Value (%)", "low": "Interval",
    "difference_to_none": "Over None (points)", "difference_low": "Interval",
    "hidden_to_none": "Hidden, over None (points)", "hidden_low": "Interval",
    "difference": "Difference (points)", "control_value": "Control (%)", "p_by_seed": "p of each seed (McNemar)",
    "p_holm": "p (Holm)", "smallest_difference": "Smallest found (points)", "baseline": "Best other method",
    "baseline_difference": "Over it (points)", "baseline_low": "Interval",
    "baseline_p_by_seed": "p of each seed", "baseline_p": "p", "baseline_p_holm": "p (Holm)", "baseline_mark": "Mark",
    "paper": "Paper (%)", "paper_inside": "Inside our interval", "best_p_holm": "p of best (Holm)",
    "ece": "Calibration error (%)", "confidence": "Mean confidence (%)", "accuracy": "Accuracy (%)",
    "overconfidence": "Overconfidence (points)", "accuracy_none": "None (%)", "gain": "Gain (points)", "gain_low": "Interval",
    "gain_p_holm": "p of gain (Holm)", "whole": "Whole (%)",
    "hidden": "Hidden (%)", "cost": "Cost (points)", "cost_low": "Interval", "test": "Inference",
    "extra": "Extra in training", "extra_test": "Extra at inference", "break_even": "Even after (images)",
    "per_point": "Per point, training", "per_point_test": "Per point, inference", "unpriced": "No price, since",
}  # fmt: skip
"""Heads that are more than the column's name; an interval is one column."""


def _without_single_levels(given: Iterable[TextRow]) -> list[TextRow]:
    """The rows, the level empty for sets whose images are evaluated as they are."""
    rows = list(given)
    occluded = {row.get("set") for row in rows if row.get("level") != "0"}
    return [row | {"level": ""} if "level" in row and row.get("set") not in occluded else row for row in rows]


def _head(name: str) -> str:
    return _HEADS.get(name, name[:1].upper() + name[1:].replace("_", " "))


def _low_of(name: str) -> str:
    """The column of the lower end of the interval that a column has the upper end of; no name where it has none."""
    return f"{name.removesuffix('high')}low" if name.endswith("high") else ""


def _column(name: str, numeric: bool, rows: Sequence[TextRow], names: Labels, classes: Sequence[str]) -> list[Value]:
    """The cells of a column; that of an interval's lower end has both ends."""
    if not numeric or name in _TEXTS:
        return [Value(_named(name, row[name], names, classes), row[name]) for row in rows]
    shown = _numbers(name, rows)
    high = f"{name.removesuffix('low')}high"
    if name.endswith("low") and high in rows[0]:
        shown = [f"{low} to {end}" if low else "" for low, end in zip(shown, _numbers(high, rows), strict=True)]
    return [Value(text, row[name]) for text, row in zip(shown, rows, strict=True)]


def _numbers(name: str, rows: Sequence[TextRow]) -> list[str]:
    """The numbers of a column. Those of one quantity have the same decimals: two, or more where all are below 1."""
    most: dict[str, float] = {}
    for row in rows:
        kind = row.get("quantity", "")
        most[kind] = max(most.get(kind, 0.0), abs(float(row[name] or 0)))
    return [_digits(name, row[name], most[row.get("quantity", "")]) for row in rows]


def _named(name: str, value: str, names: Labels, classes: Sequence[str]) -> str:
    if name == "label" and value.isdigit() and int(value) < len(classes):
        return classes[int(value)]
    if name.endswith("p_by_seed"):
        return " ".join(_digits("p", p, 1.0) for p in value.split())
    if name == "level":
        return f"{value} %" if value.isdigit() else value
    if name == "metric":
        return {"top1": "top-1", "top5": "top-5", "ece": "calibration error"}.get(value, value)
    labelled = {"backbone": names.backbone, "set": names.set} | dict.fromkeys(
        ("method", "control", "baseline"), names.method
    )
    return labelled[name](value) if value and name in labelled else value


def _digits(name: str, value: str, most: float) -> str:
    """A number for reading; `most` is the largest of its quantity in the column."""
    if not value or not math.isfinite(float(value)):
        return value
    number = float(value)
    if name in ("p", "p_by_seed") or name.endswith(("_p", "p_holm", "p_by_seed")):
        return f"{number:.2g}" if number >= 0.0001 or number == 0 else "< 0.0001"
    if number.is_integer() and "." not in value:
        return f"{number:,.0f}"
    decimals = 0 if most >= 10_000 else 2 if most >= 1 or not most else min(8, 2 - math.floor(math.log10(most)))
    return f"{round(number, decimals) + 0.0:,.{decimals}f}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
