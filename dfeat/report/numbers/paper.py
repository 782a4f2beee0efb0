"""The paper's Tables 1 and 2 as data.

What enters: `paper_values.json`, copied digit by digit from the paper. What leaves: `PaperTable`s.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, Literal, NamedTuple

from dfeat import methods

TableName = Literal["table1", "table2"]
Metric = Literal["top1", "top5"]
METRICS: Final[tuple[Metric, ...]] = ("top1", "top5")


class Cell(NamedTuple):
    """One accuracy of a table: `level` is the percent of patches blacked out."""

    method: str
    backbone: str
    level: int
    metric: Metric

    @property
    def none(self) -> Cell:
        """The cell of None with the same backbone, level and metric."""
        return self._replace(method=methods.REFERENCE)


@dataclass(frozen=True)
class PaperTable:
    """A table as printed: `values` in percent, `images` its n, `evaluation_set` the default name of its set here."""

    name: TableName
    title: str
    evaluation_set: str
    images: int
    values: dict[Cell, float]


@functools.cache
def paper_table(name: TableName) -> PaperTable:
    """The paper's table of that name."""
    table = _values()[name]
    values = {
        Cell(entry["method"], entry["backbone"], entry["level"], metric): float(entry[metric])
        for entry in table["values"]
        for metric in METRICS
        if metric in entry
    }
    return PaperTable(name, table["title"], table["set"], table["images"], values)


def paper_source() -> str:
    """The paper's authors and title."""
    return str(_values()["source"])


@functools.cache
def _values() -> dict[str, Any]:
    text = resources.files("dfeat.report.numbers").joinpath("paper_values.json").read_text(encoding="utf-8")
    values: dict[str, Any] = json.loads(text)
    return values
