"""Figures drawn from the tables of a report folder: what a gain costs, and heat maps.

What enters: `efficiency.csv`, `parts.csv` or `ablation_<name>.csv`. What leaves: `<name>.png` and `.svg` in the look
that `style` gives, the same bytes for the same table.
"""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dfeat.errors import UserError
from dfeat.evaluation.paper import backbone_name, method_name
from dfeat.evaluation.style import COLOURS, MARKERS, WIDTH, add_note, new_figure, panel_grid, save, styled
from dfeat.settings import Settings
from dfeat.storage.records import read_text, refusal

RECIPE: Final = 1
_COSTS: Final = (("seconds", 1.0, "Seconds"), ("flops", 1e-9, "GFLOP"))
Table = list[dict[str, str]]


@styled()
def cost(report: Path, settings: Settings, out: Path) -> None:
    """Gain over None at the highest level against what preparing and training cost for each training image."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    rows = read_table(report / "efficiency.csv", "table efficiency", ("method", "backbone", "quantity", "gain"))
    shown = [entry for entry in _COSTS if any(row["quantity"] == entry[0] and row["gain"] for row in rows)]
    if not shown:
        raise UserError(f"figure cost: {report / 'efficiency.csv'} has no gain over None to set beside a cost")
    backbones = _unique(row["backbone"] for row in rows)
    figure, (axes,) = panel_grid(1, len(shown), 2.9, sharey=True)
    for panel, (quantity, scale, unit) in zip(axes, shown, strict=True):
        for row in rows:
            if row["quantity"] == quantity and row["gain"] and row["prepare"] and row["train"]:
                _cost_point(panel, row, scale, filled=row["backbone"] == backbones[0])
        panel.axhline(0, color="#000000", linewidth=0.6)
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_xlabel(f"{unit} a training image, preparing and training")
    level = next(row["level"] for row in rows if row["gain"])
    axes[0].set_ylabel(f"Gain over None at {level} % loss (points)")
    methods = _unique(row["method"] for row in rows if row["gain"])
    handles = [
        Line2D([], [], linestyle="", color=COLOURS[m], marker=MARKERS[m], markersize=5, label=method_name(m))
        for m in methods
    ]
    for index, backbone in enumerate(backbones):
        face = "#444444" if index == 0 else "white"
        handles.append(Line2D([], [], linestyle="", color="#444444", marker="o", markerfacecolor=face,
                              markersize=5, label=backbone_name(backbone)))  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    add_note(figure, settings.report.note)
    save(figure, out, "cost")


def heat_map(
    name: str, values: Sequence[Sequence[float | None]], rows: Sequence[str], columns: Sequence[str], label: str,
    settings: Settings, out: Path, *, diverging: bool = False, axes: tuple[str, str] = ("", ""),
) -> None:  # fmt: skip
    """A matrix as colours with its numbers in the cells; None is a blank cell. `diverging` centres the colours on 0.

    Colours are cividis, or blue to brown around 0: both are told apart with any colour vision, and in grey by the
    numbers.
    """
    import numpy as np

    matrix = np.round(
        np.array([[np.nan if value is None else value for value in line] for line in values], dtype=float), 1
    )
    with styled():
        height = 0.24 * len(rows) + 1.1
        figure = new_figure(WIDTH if len(columns) > 4 else 5.0, height, "constrained")
        panel = figure.subplots()
        span = float(np.nanmax(np.abs(matrix))) if np.isfinite(matrix).any() else 1.0
        limits = {"vmin": -span, "vmax": span, "cmap": "BrBG"} if diverging else {"cmap": "cividis"}
        image = panel.imshow(matrix, aspect="auto", **limits)
        for (row, column), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                panel.text(column, row, f"{value + 0.0:+.1f}" if diverging else f"{value:.1f}", ha="center", va="center",
                           fontsize=7, color=_readable(tuple(image.to_rgba(value))))  # fmt: skip
        panel.set_xticks(range(len(columns)), [textwrap.fill(column, 14) for column in columns])
        panel.set_yticks(range(len(rows)), rows)
        panel.tick_params(length=0)
        panel.grid(visible=False)
        panel.spines[:].set_visible(False)
        panel.set_ylabel(axes[0])
        panel.set_xlabel(axes[1])
        figure.colorbar(image, label=label, pad=0.02)
        add_note(figure, settings.report.note)
        save(figure, out, name)


def read_table(path: Path, remake: str, columns: Sequence[str]) -> Table:
    """The rows of a CSV that must have these columns; UserError naming the file and the verb that makes it."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path, remake)), strict=True))
    except csv.Error as error:
        raise refusal(path, f"it is no CSV ({error})", remake) from None
    missing = [name for name in columns if not rows or name not in rows[0]]
    if missing:
        raise refusal(path, f"it has no rows with {', '.join(missing)}", remake)
    return rows


def _cost_point(panel: Any, row: dict[str, str], scale: float, *, filled: bool) -> None:
    gain, low, high = (float(row[name]) for name in ("gain", "gain_low", "gain_high"))
    colour = COLOURS[row["method"]]
    panel.errorbar(
        scale * (float(row["prepare"]) + float(row["train"])), gain, [[gain - low], [high - gain]],
        fmt=MARKERS[row["method"]], color=colour, markersize=5, markerfacecolor=colour if filled else "white",
        elinewidth=0.8, capsize=1.5,
    )  # fmt: skip


def _readable(colour: Sequence[float]) -> str:
    """Black or white, whichever stands out from the colour (relative luminance, WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return "#000000" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.18 else "#ffffff"


def _unique(values: Any) -> list[str]:
    return list(dict.fromkeys(values))
