"""Tables as the page shows them: the paper's layout, and any CSV of the report folder as it is.

What enters: rows of text. What leaves: small read-only views that a template walks through.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from dfeat.config import ReportSettings
from dfeat.report.numbers.paper import TableName, backbone_name, method_name
from dfeat.report.numbers.text import read_csv
from dfeat.report.tables import layout
from dfeat.report.tables.layout import CellRow

_NAMES = {"method": method_name, "backbone": backbone_name}


class CsvView(NamedTuple):
    """A table of text: its columns, which of them are numbers, and its rows."""

    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]


def paper_table_view(name: TableName, rows: list[CellRow], settings: ReportSettings) -> dict[str, Any]:
    """Table 1 or 2 with these rows: in the paper's layout, and with every column."""
    return {
        "name": name,
        "heading": layout.heading(name, rows),
        "explanation": layout.explanation(rows, settings.confidence) if rows else "",
        "grids": layout.grids(name, rows),
        "cells": csv_view([vars(row) for row in rows]),
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


def csv_view(rows: Sequence[Mapping[str, str]], classes: Sequence[str] = ()) -> CsvView:
    """Rows without the columns that are empty throughout and the note, which the page shows once.

    A column `label` shows the name of the class where `classes` has one.
    """
    kept = [name for name in (rows[0] if rows else ()) if name != "note" and any(row[name] for row in rows)]
    shown = tuple(tuple(_shown(name, row[name], classes) for name in kept) for row in rows)
    numeric = tuple(all(_is_number(line[place]) for line in shown if line[place]) for place in range(len(kept)))
    return CsvView(tuple(kept), numeric, shown)


def curve_rows(path: Path) -> list[CellRow]:
    """The rows of a table of curves (`sweep.csv`, `object_occlusion.csv`) but for the area under them; none without the file."""
    if not path.is_file():
        return []
    names = {field.name for field in dataclasses.fields(CellRow)}
    rows = [{name: value for name, value in line.items() if name in names} for line in read_csv(path)]
    return [CellRow(**{"table": path.stem, **row}) for row in rows if row.get("level", "").isdigit()]


def _shown(column: str, value: str, classes: Sequence[str]) -> str:
    if column == "label" and value.isdigit() and int(value) < len(classes):
        return classes[int(value)]
    return _NAMES[column](value) if column in _NAMES else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
