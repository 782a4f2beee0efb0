"""Tables as the page shows them: the paper's layout, and any CSV of the report folder as it is.

What enters: CSV files. What leaves: small read-only views that a template walks through; no HTML is made here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from dfeat.config import ReportSettings
from dfeat.report.numbers.paper import TableName, backbone_name, method_name
from dfeat.report.numbers.text import read_csv
from dfeat.report.tables.layout import (
    CellRow,
    Grid,
    explanation,
    grids,
    heading,
    intervals,
    printed,
    read_rows,
    values,
)

_NAMES = {"method": method_name, "backbone": backbone_name}


@dataclass(frozen=True)
class GridCell:
    """A cell of the paper's layout; `sort_key` is its first accuracy, `accuracies` may hold bold type."""

    sort_key: str
    accuracies: Markup
    intervals: str
    paper: str


@dataclass(frozen=True)
class GridView:
    """A table in the paper's layout: heads, and lines of (labels, cells). Labels stand in every line, so it sorts."""

    title: str
    groups: tuple[tuple[str, int], ...]
    heads: tuple[str, ...]
    labels: int
    lines: tuple[tuple[tuple[str, ...], tuple[GridCell, ...]], ...]


@dataclass(frozen=True)
class CsvView:
    """A table of text: its columns, which of them are numbers, and its rows."""

    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class PaperTableView:
    """Table 1 or 2: in the paper's layout, and with every column."""

    name: TableName
    heading: str
    explanation: str
    grids: tuple[GridView, ...]
    cells: CsvView


def paper_table_view(name: TableName, path: Path, settings: ReportSettings) -> PaperTableView:
    """Read `table1.csv` or `table2.csv`."""
    rows = read_rows(path)
    text = explanation(rows, settings.confidence) if rows else ""
    layout = tuple(_grid_view(grid) for grid in grids(name, rows))
    return PaperTableView(name, heading(name, rows), text, layout, _csv_view([vars(row) for row in rows]))


def csv_view(path: Path, classes: Sequence[str] = ()) -> CsvView:
    """Read a CSV as `_csv_view` shows it."""
    return _csv_view(read_csv(path), classes)


def _csv_view(rows: Sequence[Mapping[str, str]], classes: Sequence[str] = ()) -> CsvView:
    """Rows without the columns that are empty throughout and the note, which the page shows once.

    A column `label` shows the name of the class where `classes` has one.
    """
    kept = [name for name in (rows[0] if rows else ()) if name != "note" and any(row[name] for row in rows)]
    shown = tuple(tuple(_shown(name, row[name], classes) for name in kept) for row in rows)
    numeric = tuple(all(_is_number(line[place]) for line in shown if line[place]) for place in range(len(kept)))
    return CsvView(tuple(kept), numeric, shown)


def curve_rows(path: Path) -> list[CellRow]:
    """The rows of a table of curves (`sweep.csv`, `object.csv`) but for the area under them; none without the file."""
    if not path.is_file():
        return []
    names = {field.name for field in dataclasses.fields(CellRow)}
    rows = [{name: value for name, value in line.items() if name in names} for line in read_csv(path)]
    return [CellRow(**{"table": path.stem, **row}) for row in rows if row.get("level", "").isdigit()]


def _grid_view(grid: Grid) -> GridView:
    lines, previous = [], ""
    for labels, cells in grid.lines:
        previous = labels[0] or previous
        lines.append(((previous, *labels[1:]), tuple(_grid_cell(cell) for cell in cells)))
    return GridView(grid.title, grid.groups, grid.heads, len(grid.lines[0][0]), tuple(lines))


def _grid_cell(cell: tuple[CellRow, ...]) -> GridCell:
    """The numbers of a cell; they are formatted from floats, so that the bold type around them is safe."""
    accuracies = Markup(values(cell, "<b>{}</b>".format, "†"))
    return GridCell(cell[0].value if cell else "", accuracies, intervals(cell), printed(cell))


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
