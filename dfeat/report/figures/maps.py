"""Figures drawn from the tables of a report folder: what a gain costs, and heat maps.

What enters: `efficiency.csv`, `part_cost.csv` or `ablation_<name>.csv`. What leaves: `<name>.png`, `.pdf` and `.svg` in the look
that `style` gives, the same bytes for the same table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dfeat.config import Settings
from dfeat.config.labels import Labels
from dfeat.errors import UserError
from dfeat.methods import REFERENCE, row_of
from dfeat.places import HOLDOUT
from dfeat.report.figures.style import COLUMN, LETTER, TEXT, add_legend, panel_grid, save_with_note, styled, wrapped
from dfeat.report.numbers.text import TextRow, grouped, read_csv, unique
from dfeat.report.tables.ablations import setting_names

RECIPE: Final = 3
_COSTS: Final = (("seconds", 1.0, "Seconds"), ("flops", 1e-9, "GFLOP"))
_STEPS: Final = (
    (("prepare", "train"), "per training image (preparing and training)"),
    (("test",), "per test image (inference)"),
)


@styled()
def cost(report: Path, settings: Settings, out: Path) -> None:
    """Gain over None at the highest level against cost: a row for each quantity, training beside inference."""
    from matplotlib.lines import Line2D

    rows = read_csv(report / "efficiency.csv", "table efficiency", ("method", "backbone", "quantity", "gain"))
    shown = [entry for entry in _COSTS if any(row["quantity"] == entry[0] and row["gain"] for row in rows)]
    if not shown:
        raise UserError(f"figure cost: {report / 'efficiency.csv'} has no gain over None to set beside a cost")
    backbones = unique(row["backbone"] for row in rows)
    level = next(row["level"] for row in rows if row["gain"])
    figure, grid = panel_grid(len(shown), len(_STEPS), 2.2 * len(shown), sharey=True)
    for line, (quantity, scale, unit) in zip(grid, shown, strict=True):
        line[0].set_ylabel(f"Gain over None at {level} % loss\n(points)")
        for panel, (columns, step) in zip(line, _STEPS, strict=True):
            costed = [row for row in rows if row["quantity"] == quantity and row["gain"] and all(map(row.get, columns))]
            for row in costed:
                spent = scale * math.fsum(float(row[column]) for column in columns)
                _cost_point(panel, row, spent, filled=row["backbone"] == backbones[0])
            _cost_axis(panel, f"{unit} {step}")
    methods, labels = unique(row["method"] for row in rows if row["gain"]), settings.labels
    looks: list[dict[str, Any]] = [
        {"color": row_of(m).colour, "marker": row_of(m).marker, "label": labels.method(m)} for m in methods
    ]
    for index, backbone in enumerate(backbones):
        face = "#444444" if index == 0 else "white"
        looks.append({"color": "#444444", "marker": "o", "markerfacecolor": face, "label": labels.backbone(backbone)})
    handles = [Line2D([], [], linestyle="", markersize=5, **look) for look in looks]
    add_legend(figure, handles)
    save_with_note(figure, settings.report.note, out, "cost")


def _cost_axis(panel: Any, label: str) -> None:
    """A logarithmic axis of costs, and the line of no gain."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    panel.axhline(0, color="#000000", linewidth=0.6)
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel(label)


@styled()
def part_cost(report: Path, settings: Settings, out: Path) -> None:
    """What hiding one part costs each method: parts down, in the order of what they cost, a panel for each backbone."""
    rows = read_csv(report / "part_cost.csv", "table part_cost", ("part", "method", "backbone", "cost"))
    methods, backbones = (unique(row[name] for row in rows) for name in ("method", "backbone"))
    costs = {(row["part"], row["method"], row["backbone"]): float(row["cost"]) for row in rows}
    reference = REFERENCE if REFERENCE in methods else methods[0]

    def lost(part: str) -> float:
        return math.fsum(costs.get((part, reference, backbone), 0.0) for backbone in backbones)

    parts = sorted(unique(row["part"] for row in rows), key=lost, reverse=True)
    labels = settings.labels
    maps = {labels.backbone(b): [[costs.get((part, m, b)) for m in methods] for part in parts] for b in backbones}
    label = "Top-1 accuracy lost when the part is hidden (points)"
    _heat_maps("part_cost", maps, parts, [labels.method(m) for m in methods], label, settings, out, len(backbones))


@styled()
def ablation(name: str, report: Path, settings: Settings, out: Path) -> None:
    """Accuracy over the grid of `ablation_<name>.csv`, a panel for each method and backbone.

    Two settings taken apart are rows and columns, at the highest level of the set with the most levels; else points are
    rows, and columns are sets and levels.
    """
    labels, needed = settings.labels, ("point", "set", "level", "method", "backbone", "value")
    table = read_csv(report / f"ablation_{name}.csv", f"ablation {name}", needed)
    keys = list(table[0])[1 : list(table[0]).index("set")]
    measured = "images held out of training" if table[0]["set"] == HOLDOUT else "test images"
    label = f"Top-1 accuracy (%) on {measured}"
    if len(keys) == 2:
        sets = [grouped(rows, "level") for rows in grouped(table, "set").values()]
        levels = max(sets, key=len)
        (level,) = max(levels, key=lambda key: int(key[0]))
        table = levels[level,]
        label = f"{label} ({labels.place(table[0]['set'], level)})"
    places = [_ablation_place(row, keys, labels) for row in table]
    rows, columns = (unique(place[axis] for place in places) for axis in (0, 1))
    values = {
        (*place, row["method"], row["backbone"]): float(row["value"]) for place, row in zip(places, table, strict=True)
    }
    maps = {
        f"{labels.method(m)}, {labels.backbone(b)}": [[values.get((r, c, m, b)) for c in columns] for r in rows]
        for m, b in grouped(table, "method", "backbone")
    }
    together = len(unique(row["backbone"] for row in table))
    _heat_maps(f"ablation_{name}", maps, rows, columns, label, settings, out, together, around_0=False)


def _ablation_place(row: TextRow, keys: Sequence[str], labels: Labels) -> tuple[str, str]:
    """Row and column of a value."""
    shown = [f"{name} {row[key]}" for name, key in zip(setting_names(keys), keys, strict=True)]
    return (shown[0], shown[1]) if len(keys) == 2 else (", ".join(shown), labels.place(row["set"], row["level"]))


def _heat_maps(
    name: str, maps: dict[str, list[list[float | None]]], rows: Sequence[str], columns: Sequence[str], label: str,
    settings: Settings, out: Path, together: int, *, around_0: bool = True,
) -> None:  # fmt: skip
    """Matrices as colours with their numbers in the cells, `together` of them side by side where they fit; None is blank.

    Blue-green below 0, white at 0, brown above, or cividis from the least to the most: distinguishable with any colour
    vision, and in grey by the numbers.
    """
    import numpy as np

    matrices = {
        title: np.round(np.array([[np.nan if value is None else value for value in line] for line in values]), 1) + 0.0
        for title, values in maps.items()
    }
    finite = np.concatenate([m[np.isfinite(m)] for m in matrices.values()])
    span = float(np.max(np.abs(finite), initial=0.0)) or 1.0
    low, high = (
        (-span, span) if around_0 else (float(np.min(finite, initial=100.0)), float(np.max(finite, initial=0.0)))
    )
    rows = [wrapped(row, 1.5) for row in rows]
    heads = 0.2 + LETTER * 7 * max(len(line) for row in rows for line in row.split("\n"))
    across, width = _across(len(matrices), together, len(columns), heads)
    lines, cell = -(-len(matrices) // across), ((width - heads) / across - 0.1) / len(columns)
    of_panel = 0.3 + 0.11 * sum(row.count("\n") + 2 for row in rows)
    figure, axes = panel_grid(lines, across, of_panel * lines + 0.8, width, sharex=True, sharey=True)
    panels = [panel for line in axes for panel in line]
    for panel, (title, matrix) in zip(panels, matrices.items(), strict=True):
        image = panel.imshow(matrix, aspect="auto", vmin=low, vmax=high, cmap="BrBG_r" if around_0 else "cividis")
        if cell >= _NUMBERED:
            _number_cells(panel, matrix, image.to_rgba(matrix))
        panel.set_title(wrapped(title, cell * len(columns), 9), loc="left", fontweight="bold")
        panel.set_xticks(range(len(columns)), [wrapped(column, cell, 6.5) for column in columns], fontsize=6.5)
        panel.set_yticks(range(len(rows)), rows, fontsize=7)
        panel.tick_params(length=0)
        panel.grid(visible=False)
        panel.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=panels, location="bottom", aspect=50, pad=0.02)
    bar.set_label(wrapped(label, width, 7.5), fontsize=7.5)
    save_with_note(figure, settings.report.note, out, name)


_NUMBERED: Final = 0.25
"""Inches of the narrowest cell that has its number in it."""


def _across(panels: int, together: int, columns: int, heads: float) -> tuple[int, float]:
    """How many panels stand side by side, and how wide the figure is; `heads` is the width of the rows' names."""
    need = 0.1 + columns * 0.38
    if panels == 1 and heads + need <= COLUMN:
        return 1, COLUMN
    fit = [count for count in range(1, together + 1) if together % count == 0 and heads + count * need <= TEXT]
    return max(fit, default=1), TEXT


def _number_cells(panel: Any, matrix: Any, colours: Any) -> None:
    """Each finite value in its cell, in black or white."""
    import numpy as np

    for (row, column), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            colour = _readable(colours[row, column])
            panel.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=6, color=colour)


def _cost_point(panel: Any, row: TextRow, spent: float, *, filled: bool) -> None:
    gain, low, high = (float(row[name]) for name in ("gain", "gain_low", "gain_high"))
    shown = row_of(row["method"])
    panel.errorbar(
        spent, gain, [[gain - low], [high - gain]],
        fmt=shown.marker, color=shown.colour, markersize=5, markerfacecolor=shown.colour if filled else "white",
        elinewidth=0.8, capsize=1.5,
    )  # fmt: skip


def _readable(colour: Any) -> str:
    """Black or white, whichever stands out from the colour (relative luminance, WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return "#000000" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.18 else "#ffffff"
