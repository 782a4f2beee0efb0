"""The curves: accuracy against information loss, and the gain over None, as Tables 1 and 2 have them.

What enters: a run's evaluation folder and settings. What leaves: `<name>.png`, `.pdf` and `.svg`, the same bytes for the
same inputs, in the look that `style` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dfeat.config import Settings
from dfeat.config.labels import Labels
from dfeat.methods import REFERENCE, row_of
from dfeat.report.figures.style import COLUMN, TEXT, add_legend, line_style, panel_grid, save_with_note, styled, wrapped
from dfeat.report.numbers.paper import Cell
from dfeat.report.numbers.results import SetResults, load_results
from dfeat.report.numbers.sets import sets_of

RECIPE: Final = 4


@styled()
def accuracy(evaluation: Path, settings: Settings, out: Path) -> None:
    """Top-1 accuracy against information loss: a panel for each set and backbone, a line with band for each method."""
    results, labels = load_results(evaluation, settings, sets_of("table1", settings)), settings.labels
    panels = [(one, b) for one in results.values() for b in one.predictions.backbones]
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    width = TEXT if columns > 1 else COLUMN
    figure, axes = panel_grid(lines, columns, (2.7 if columns > 1 else 2.3) * lines, width, sharey=True)
    flat = [panel for line in axes for panel in line]
    for panel, (one, backbone) in zip(flat, panels, strict=False):
        _accuracy_panel(panel, one, backbone, settings.ours)
        set_name = f", {labels.set(one.predictions.name)}" if len(results) > 1 else ""
        title = wrapped(f"{labels.backbone(backbone)}{set_name}", 0.9 * width / columns, 9)
        panel.set_title(title, loc="left", fontweight="bold")
    for panel in flat[len(panels) :]:
        panel.set_visible(False)
    for line in axes:
        line[0].set_ylabel("Top-1 accuracy (%)")
    handles = [
        Line2D([], [], label=labels.method(m), **line_style(m, settings.ours)) for m in settings.training.methods
    ]
    add_legend(figure, handles, _reach(settings, results))
    save_with_note(figure, settings.report.note, out, "accuracy")


@styled()
def gain(evaluation: Path, settings: Settings, out: Path) -> None:
    """Gain in top-1 accuracy over None with its interval: a panel for each backbone, bars for each level and set."""
    methods = [method for method in settings.training.methods if method != REFERENCE]
    results, labels = load_results(evaluation, settings), settings.labels
    backbones = list(settings.training.backbones)
    figure, axes = panel_grid(len(backbones), 1, 2.1 * len(backbones), sharey=True)
    simulated_first = sorted(results.values(), key=lambda one: len(one.predictions.levels) == 1)
    groups = [(one, level) for one in simulated_first for level in one.predictions.levels]
    for panel, backbone in zip([line[0] for line in axes], backbones, strict=True):
        _gain_panel(panel, groups, backbone, methods, labels)
        panel.set_title(labels.backbone(backbone), loc="left", fontweight="bold")
        panel.set_ylabel("Gain over None (points)")
    handles = [Patch(facecolor=row_of(m).colour, label=labels.method(m)) for m in methods]
    add_legend(figure, handles, _reach(settings, results))
    save_with_note(figure, settings.report.note, out, "gain")


def _accuracy_panel(panel: Axes, results: SetResults, backbone: str, ours: Sequence[str]) -> None:
    levels = sorted(results.predictions.levels)
    for method in results.predictions.methods:
        cells = [Cell(method, backbone, level, "top1") for level in levels]
        low, high = np.transpose([results.interval(cell) for cell in cells])
        panel.fill_between(levels, 100 * low, 100 * high, color=row_of(method).colour, alpha=0.12, linewidth=0)
        panel.plot(levels, [100 * results.accuracy(cell) for cell in cells], **line_style(method, ours))
    panel.set_xticks(levels)
    panel.set_xlabel("Information loss (%)")


def _gain_panel(
    panel: Axes, groups: list[tuple[SetResults, int]], backbone: str, methods: Sequence[str], labels: Labels
) -> None:
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
    names = [labels.place(results.predictions.name, level) for results, level in groups]
    panel.set_xticks(range(len(groups)), [wrapped(name, 0.85 * TEXT / len(groups), 7.5) for name in names])
    panel.tick_params(axis="x", length=0)
    panel.grid(visible=False, axis="x")


def _reach(settings: Settings, results: dict[str, SetResults]) -> str:
    """What the intervals are of: their level, the sets with their n, the seeds."""
    counts = ", ".join(f"{settings.labels.set(name)} n = {one.outcomes.images:,}" for name, one in results.items())
    seeds = len(settings.training.seeds)
    return f"{100 * settings.report.confidence:g} % intervals; {counts}; {seeds} seed{'s' * (seeds > 1)}"
