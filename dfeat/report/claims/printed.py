"""Arithmetic on the paper's printed tables: values that no count of images can give, and odd orders.

What enters: a `PaperTable`. What leaves: the values that are no share of the printed n, rounded to two decimals,
with the nearest shares; and cells where more occlusion raises an accuracy. Nothing here is an opinion: a share of n
images is k / n for a whole k, and the mean over r runs is k / (r n).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product
from typing import Final, NamedTuple

from dfeat.config.labels import Labels
from dfeat.report.numbers.paper import METRICS, Cell, PaperTable
from dfeat.report.numbers.text import model_names, pipe_table, unique

MOST_RUNS: Final = 5
"""The largest number of runs whose mean is tried before a value counts as unexplained."""


class Impossible(NamedTuple):
    """A printed value, in percent, that no count of the table's n gives; it may be the mean of `runs` runs, 0 of none."""

    cell: Cell
    value: float
    below: int
    runs: int


def is_share(value: float, images: int) -> bool:
    """Whether 100 k / images rounds to `value` (two decimals, halves either way) for some whole k."""
    hundredths = round(100 * value)
    nearest = round(hundredths * images / 10_000)
    return any(abs(20_000 * k - 2 * hundredths * images) <= images for k in (nearest - 1, nearest, nearest + 1))


def impossible_values(table: PaperTable) -> list[Impossible]:
    """The printed values that are no share of the table's n, in its order."""
    return [
        Impossible(
            cell,
            value,
            int(round(100 * value) * table.images // 10_000),
            next((runs for runs in range(2, MOST_RUNS + 1) if is_share(value, runs * table.images)), 0),
        )
        for cell, value in table.values.items()
        if not is_share(value, table.images)
    ]


def rises(table: PaperTable) -> list[tuple[Cell, Cell]]:
    """Neighbouring levels (lower, higher) of one model where the accuracy rises with the information lost."""
    levels = pairwise(sorted({cell.level for cell in table.values}))
    models = unique((cell.method, cell.backbone) for cell in table.values)
    pairs = [
        (Cell(*model, low, metric), Cell(*model, high, metric))
        for model, metric, (low, high) in product(models, METRICS, levels)
    ]
    return [(a, b) for a, b in pairs if a in table.values and b in table.values and table.values[b] > table.values[a]]


def arithmetic(table: PaperTable, labels: Labels) -> Iterator[str]:
    """The findings on one table as blocks of Markdown."""
    n, name = table.images, table.name.replace("table", "Table ")
    found, rising = impossible_values(table), rises(table)
    yield f"{name}: {len(found)} of {len(table.values)} values cannot equal k/{n:,} rounded to two decimals."
    if found:
        lines = []
        for one in found:
            near = " and ".join(f"{k:,} ({100 * k / n:.2f})" for k in (one.below, one.below + 1))
            runs = f"of {one.runs}, perhaps" if one.runs else f"none of 2 to {MOST_RUNS}"
            lines.append([f"{one.value:.2f}", _cell(one.cell, table, labels), near, runs])
        yield pipe_table("rlll", ["Value", "Cell", f"Nearest counts of {n:,}", "Mean of several runs"], lines)
    if rising:
        yield "\n".join(
            f"- {_cell(low, table, labels)}: {table.values[low]:.2f}; it rises to {table.values[high]:.2f} at {high.level} % loss."
            for low, high in rising
        )


def _cell(cell: Cell, table: PaperTable, labels: Labels) -> str:
    level = f", {cell.level} %" if len({other.level for other in table.values}) > 1 else ""
    return f"{', '.join(model_names(labels, cell.method, cell.backbone))}{level}, {cell.metric.replace('top', 'top-')}"
