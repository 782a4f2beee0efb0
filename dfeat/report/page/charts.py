"""The curves as Vega-Lite specifications: accuracy against information loss, and the gain over None.

What enters: the rows of Tables 1 and 2. What leaves: plain mappings that a browser draws. Text and the line of None
take the page's own colour, so the charts follow a dark page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from dfeat.methods import REFERENCE, row_of
from dfeat.report.numbers.paper import backbone_name, method_name
from dfeat.report.numbers.text import unique
from dfeat.report.tables.layout import CellRow

_HEIGHT: Final = 300
_INK: Final = "currentColor"
_CONFIG: Final[dict[str, Any]] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "axis": {
        "labelColor": _INK, "titleColor": _INK, "domainColor": _INK, "tickColor": _INK, "gridColor": _INK,
        "gridOpacity": 0.15, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal",
    },
    "legend": {"labelColor": _INK, "labelFontSize": 12, "orient": "bottom", "columns": 2, "symbolOpacity": 1},
    "view": {"stroke": None},
}  # fmt: skip


@dataclass(frozen=True)
class Chart:
    """A chart: its title, and the Vega-Lite specification."""

    title: str
    spec: dict[str, Any]


def accuracy_charts(rows: Sequence[CellRow], hidden: str = "Information loss (%)") -> list[Chart]:
    """A chart for each set with several levels and each backbone: a line and a band for each method.

    `hidden` says what the levels are a share of.
    """
    return [
        Chart(
            f"{backbone_name(backbone)}, {name}", _accuracy([row for row in rows if _is(row, name, backbone)], hidden)
        )
        for name, backbone in unique((row.set, row.backbone) for row in rows if row.metric == "top1")
    ]


def gain_charts(rows: Sequence[CellRow]) -> list[Chart]:
    """A chart for each backbone: bars of the paired difference from None, with their intervals."""
    compared = [row for row in rows if row.metric == "top1" and row.difference_to_none]
    return [
        Chart(backbone_name(backbone), _gain([row for row in compared if row.backbone == backbone]))
        for backbone in unique(row.backbone for row in compared)
    ]


def _accuracy(rows: list[CellRow], hidden: str) -> dict[str, Any]:
    data = [
        {
            "method": method_name(row.method), "loss": int(row.level), "accuracy": float(row.value),
            "low": float(row.low), "high": float(row.high),
        }
        for row in rows
    ]  # fmt: skip
    methods = unique(row.method for row in rows)
    loss = {"field": "loss", "type": "quantitative", "title": hidden}
    y = {"field": "accuracy", "type": "quantitative", "title": "Top-1 accuracy (%)", "scale": {"zero": False}}
    dash = {
        "condition": {"test": f"datum.method === {json.dumps(method_name(REFERENCE))}", "value": [6, 4]},
        "value": [1, 0],
    }
    levels = sorted({int(row.level) for row in rows})
    return _chart(
        data,
        methods,
        f"Top-1 accuracy against {hidden[0].lower()}{hidden[1:]}, a line for each of {', '.join(_names(methods))}.",
        [
            {
                "mark": "area",
                "encoding": {
                    "x": loss | {"axis": {"values": levels, "grid": False}}, "opacity": _dimmed(0.14),
                    "y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"},
                },
            },
            {
                "mark": {"type": "line", "strokeWidth": 2},
                "encoding": {"x": loss, "y": y, "opacity": _dimmed(1), "strokeDash": dash},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 60},
                "encoding": {
                    "x": loss, "y": y, "opacity": _dimmed(1),
                    "tooltip": _tooltip("accuracy", "loss", hidden),
                },
            },
        ],
    )  # fmt: skip


def _gain(rows: list[CellRow]) -> dict[str, Any]:
    simulated = unique(row.set for row in rows if row.table == "table1")
    data = [
        {
            "method": method_name(row.method), "place": _place(row, len(simulated) > 1),
            "gain": float(row.difference_to_none), "low": float(row.difference_low), "high": float(row.difference_high),
        }
        for row in rows
    ]  # fmt: skip
    methods = unique(row.method for row in rows)
    places = unique(entry["place"] for entry in data)
    x = {
        "x": {"field": "place", "type": "nominal", "sort": places, "title": "Information loss, or set", "axis": {"labelAngle": 0}},
        "xOffset": {"field": "method", "sort": _names(methods)}, "opacity": _dimmed(1),
    }  # fmt: skip
    return _chart(
        data,
        methods,
        f"Gain in top-1 accuracy over None, in percentage points, a bar for each of {', '.join(_names(methods))}.",
        [
            {
                "mark": "bar",
                "encoding": x
                | {
                    "y": {"field": "gain", "type": "quantitative", "title": "Gain over None (points)"},
                    "tooltip": _tooltip("gain", "place", "Set"),
                },
            },
            {
                "mark": {"type": "rule", "color": _INK, "strokeWidth": 1.2},
                "encoding": x
                | {
                    "y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}, "color": {"value": _INK},
                },
            },
        ],
    )  # fmt: skip


def _chart(data: list[Any], methods: list[str], description: str, layers: list[Any]) -> dict[str, Any]:
    colours = [_INK if method == REFERENCE else row_of(method).colour for method in methods]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": description,
        "width": "container",
        "height": _HEIGHT,
        "data": {"values": data},
        "encoding": {
            "color": {"field": "method", "scale": {"domain": _names(methods), "range": colours}, "title": None}
        },
        "layer": [{"params": [_TOGGLE], **layers[0]}, *layers[1:]],
        "config": _CONFIG,
    }


_TOGGLE: Final = {"name": "shown", "select": {"type": "point", "fields": ["method"]}, "bind": "legend"}


def _dimmed(opacity: float) -> dict[str, Any]:
    """Full where the legend's choice includes the method; a click on the legend chooses, shift-click adds."""
    return {"condition": {"param": "shown", "value": opacity}, "value": opacity / 10}


def _tooltip(value: str, place: str, title: str) -> list[dict[str, Any]]:
    numbers = {value: value.capitalize(), "low": "Interval from", "high": "to"}
    return [
        {"field": "method", "title": "Method"},
        {"field": place, "title": title},
        *({"field": field, "title": text, "format": ".2f"} for field, text in numbers.items()),
    ]


def _place(row: CellRow, named: bool) -> str:
    """A really occluded set by its name, a level of simulated occlusion by its loss, with the set's name if `named`."""
    if row.table == "table2":
        return row.set
    return f"{row.set} {row.level} %" if named else f"{row.level} %"


def _names(methods: Sequence[str]) -> list[str]:
    return [method_name(method) for method in methods]


def _is(row: CellRow, set_name: str, backbone: str) -> bool:
    return row.metric == "top1" and (row.set, row.backbone) == (set_name, backbone)
