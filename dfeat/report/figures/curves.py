"""The curves: accuracy against information loss, and the gain over None, as Tables 1 and 2 have them.

What enters: a run's evaluation folder and settings. What leaves: `<name>.png` and `<name>.svg`, the same bytes for the
same inputs, in the look that `style` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dfeat.config import Settings
from dfeat.methods import REFERENCE, row_of
from dfeat.report.figures.style import line_style, panel_grid, save_with_note, styled
from dfeat.report.numbers.paper import Cell, backbone_name, method_name
from dfeat.report.numbers.results import SetResults, load_results
from dfeat.report.numbers.sets import sets_of

RECIPE: Final = 3


@styled()
def accuracy(evaluation: Path, settings: Settings, out: Path) -> None:
    """Top-1 accuracy against information loss: a panel for each set and backbone, a line with band for each method."""
    results = load_results(evaluation, settings, sets_of("table1", settings))
    panels = [(one, b) for one in results.values() for b in one.predictions.backbones]
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = panel_grid(lines, columns, 2.7 * lines, sharey=True)
    flat = [panel for line in axes for panel in line]
    for panel, (one, backbone) in zip(flat, panels, strict=False):
        _accuracy_panel(panel, one, backbone)
        set_name = f", {one.predictions.name}" if len(results) > 1 else ""
        panel.set_title(f"{backbone_name(backbone)}{set_name}", loc="left", fontweight="bold")
    for panel in flat[len(panels) :]:
        panel.set_visible(False)
    for line in axes:
        line[0].set_ylabel("Top-1 accuracy (%)")
    handles = [Line2D([], [], label=method_name(m), **line_style(m)) for m in settings.training.methods]
    _add_legend(figure, handles, settings, results)
    save_with_note(figure, settings.report.note, out, "accuracy")


@styled()
def gain(evaluation: Path, settings: Settings, out: Path) -> None:
    """Gain in top-1 accuracy over None with its interval: a panel for each backbone, bars for each level and set."""
    methods = [method for method in settings.training.methods if method != REFERENCE]
    results = load_results(evaluation, settings)
    backbones = list(settings.training.backbones)
    figure, axes = panel_grid(len(backbones), 1, 2.1 * len(backbones), sharey=True)
    simulated_first = sorted(results.values(), key=lambda one: len(one.predictions.levels) == 1)
    groups = [(one, level) for one in simulated_first for level in one.predictions.levels]
    for panel, backbone in zip([line[0] for line in axes], backbones, strict=True):
        _gain_panel(panel, groups, backbone, methods)
        panel.set_title(backbone_name(backbone), loc="left", fontweight="bold")
        panel.set_ylabel("Gain over None (points)")
    handles = [Patch(facecolor=row_of(m).colour, label=method_name(m)) for m in methods]
    _add_legend(figure, handles, settings, results)
    save_with_note(figure, settings.report.note, out, "gain")


def _accuracy_panel(panel: Axes, results: SetResults, backbone: str) -> None:
    levels = sorted(results.predictions.levels)
    for method in results.predictions.methods:
        cells = [Cell(method, backbone, level, "top1") for level in levels]
        low, high = np.transpose([results.interval(cell) for cell in cells])
        panel.fill_between(levels, 100 * low, 100 * high, color=row_of(method).colour, alpha=0.12, linewidth=0)
        panel.plot(levels, [100 * results.accuracy(cell) for cell in cells], **line_style(method))
    panel.set_xticks(levels)
    panel.set_xlabel("Information loss (%)")


def _gain_panel(panel: Axes, groups: list[tuple[SetResults, int]], backbone: str, methods: Sequence[str]) -> None:
    width = 0.8 / len(methods)
    for index, method in enumerate(methods):
        places = np.arange(len(groups)) + (index - (len(methods) - 1) / 2) * width
        cells = [(results, Cell(method, backbone, level, "top1")) for results, level in groups]
        effects = [results.difference(cell, cell.none) for results, cell in cells]
        value, low, high = 100 * np.transpose([effect[:3] for effect in effects])
        panel.bar(places, value, width * 0.9, color=row_of(method).colour)
        bars = np.stack([value - low, high - value])
        panel.errorbar(places, value, bars, fmt="none", ecolor="#333333", elinewidth=0.7, capsize=1.5, capthick=0.7)
    panel.axhline(0, color="#000000", linewidth=0.6)
    panel.set_xticks(range(len(groups)), [_group_name(*group) for group in groups])
    panel.tick_params(axis="x", length=0)
    panel.grid(visible=False, axis="x")


def _group_name(results: SetResults, level: int) -> str:
    name = results.predictions.name
    return name if level == 0 and len(results.predictions.levels) == 1 else f"{name}\n{level} % loss"


def _add_legend(figure: Figure, handles: list[Any], settings: Settings, results: dict[str, SetResults]) -> None:
    """The legend below the panels, titled with a line on the intervals."""
    counts = ", ".join(f"{name} n = {one.outcomes.images:,}" for name, one in results.items())
    seeds = len(settings.training.seeds)
    title = f"{100 * settings.report.confidence:g} % intervals; {counts}; {seeds} seed{'s' * (seeds > 1)}"
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=3 if len(handles) > 4 else len(handles))
    legend.set_title(title, prop=FontProperties(size=6.5))
    legend.get_title().set_color("#444444")
