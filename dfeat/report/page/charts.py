"""The curves as Vega-Lite specifications: accuracy against information loss, and the gain over None.

What enters: the rows of Tables 1 and 2, and the template engine, whose templates `accuracy.json.jinja` and
`gain.json.jinja` hold the specifications. What leaves: plain mappings that a browser draws.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from dfeat.config.labels import Labels
from dfeat.methods import REFERENCE, row_of
from dfeat.report.numbers.text import unique
from dfeat.report.tables.layout import CellRow


class Chart(NamedTuple):
    """A chart: its title, and the Vega-Lite specification."""

    title: str
    spec: dict[str, Any]


def accuracy_charts(
    environment: Any, rows: Sequence[CellRow], labels: Labels, hidden: str = "Information loss (%)"
) -> list[Chart]:
    """A chart for each set with several levels and each backbone: a line and a band for each method.

    `hidden` is the title of the axis of levels. All charts have one range of accuracies.
    """
    charts = []
    bounds = _bounds((row.low, row.high) for row in rows if row.metric == "top1")
    for name, backbone in unique((row.set, row.backbone) for row in rows if row.metric == "top1"):
        shown = [row for row in rows if (row.metric, row.set, row.backbone) == ("top1", name, backbone)]
        data = [
            {
                "method": labels.method(row.method), "loss": int(row.level), "accuracy": float(row.value),
                "low": float(row.low), "high": float(row.high),
            }
            for row in shown
        ]  # fmt: skip
        spec = _spec(
            environment, "accuracy", f"Top-1 accuracy against {hidden[0].lower()}{hidden[1:]}, a line for each of", shown,
            labels, data, bounds, hidden=hidden, levels=sorted({int(row.level) for row in shown}),
            is_none=f"datum.method === {json.dumps(labels.method(REFERENCE))}",
        )  # fmt: skip
        charts.append(Chart(f"{labels.backbone(backbone)}, {labels.set(name)}", spec))
    return charts


def gain_charts(environment: Any, rows: Sequence[CellRow], labels: Labels) -> list[Chart]:
    """A chart for each backbone: bars of the paired difference from None, with their intervals, all of one range."""
    compared = [row for row in rows if row.metric == "top1" and row.difference_to_none]
    bounds = _bounds((row.difference_low, row.difference_high, "0") for row in compared)
    charts = []
    for backbone in unique(row.backbone for row in compared):
        shown = [row for row in compared if row.backbone == backbone]
        simulated = unique(row.set for row in shown if row.table == "table1")
        data = [
            {
                "method": labels.method(row.method), "place": _place(row, len(simulated) > 1, labels),
                "gain": float(row.difference_to_none), "low": float(row.difference_low),
                "high": float(row.difference_high),
            }
            for row in shown
        ]  # fmt: skip
        text = "Gain in top-1 accuracy over None, in percentage points, a bar for each of"
        places = unique(entry["place"] for entry in data)
        charts.append(
            Chart(
                labels.backbone(backbone), _spec(environment, "gain", text, shown, labels, data, bounds, places=places)
            )
        )
    return charts


def _bounds(values: Iterable[Sequence[str]]) -> list[float]:
    """The least and the largest number, between which an axis goes."""
    numbers = [float(value) for row in values for value in row]
    return [min(numbers, default=0.0), max(numbers, default=100.0)]


def _spec(
    environment: Any,
    template: str,
    text: str,
    rows: Sequence[CellRow],
    labels: Labels,
    data: list[dict[str, Any]],
    bounds: list[float],
    **more: Any,
) -> dict[str, Any]:
    methods = unique(row.method for row in rows)
    names = [labels.method(method) for method in methods]
    colours = ["currentColor" if method == REFERENCE else row_of(method).colour for method in methods]
    spec: dict[str, Any] = json.loads(
        environment.get_template(f"{template}.json.jinja").render(
            description=f"{text} {', '.join(names)}.", data=data, methods=names, colours=colours, bounds=bounds, **more
        )
    )
    return spec


def _place(row: CellRow, named: bool, labels: Labels) -> str:
    """A really occluded set by its name, a level of simulated occlusion by its loss, with the set's name if `named`."""
    if row.table == "table2":
        return labels.set(row.set)
    return f"{labels.set(row.set)} {row.level} %" if named else f"{row.level} %"
