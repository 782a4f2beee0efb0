"""The figures: sample images (Figures 2 and 3 of the paper) and what Table 1 and 2 look like drawn.

What enters: images as arrays (the caller reads them), or a run's evaluation folder and settings. What leaves:
`<name>.png` and `<name>.svg`, the same bytes for the same inputs, in the look that `style` gives.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from dfeat.config import Settings
from dfeat.errors import UserError
from dfeat.methods import REFERENCE, row_of
from dfeat.report.figures.style import WIDTH, add_note, line_style, new_figure, panel_grid, save, styled
from dfeat.report.numbers.paper import Cell, backbone_name, method_name
from dfeat.report.numbers.results import SetResults, load_results
from dfeat.report.numbers.sets import sets_of

RECIPE: Final = 2

Image = NDArray[np.uint8]


@styled()
def figure2(images: Sequence[tuple[str, Image, Image, Image]], settings: Settings, out: Path) -> None:
    """Figure 2: rows original, occluded, inpainted; one column for each (title, original, occluded, inpainted)."""
    _need_images("figure2", images)
    titles = [title for title, *_ in images]
    rows = [list(row) for row in list(zip(*images, strict=True))[1:]]
    picture_grid("figure2", ["Original", "Occluded", "Inpainted"], rows, [titles, [], []], settings, out)


@styled()
def figure3(
    simulated: Sequence[tuple[str, Image]], real: Sequence[tuple[str, Image]], settings: Settings, out: Path
) -> None:
    """Figure 3: row 1 simulated occlusion at 60 % information loss, row 2 real occlusion; (title, image) each."""
    _need_images("figure3", simulated)
    _need_images("figure3", real)
    rows = [[image for _, image in simulated], [image for _, image in real]]
    titles = [[title for title, _ in simulated], [title for title, _ in real]]
    picture_grid("figure3", ["Simulated, 60 %", "Real"], rows, titles, settings, out)


@styled()
def accuracy(evaluation: Path, settings: Settings, out: Path) -> None:
    """Top-1 accuracy against information loss: a panel for each set and backbone, a line with band for each method."""
    results = load_results(evaluation, settings, sets_of("table1", settings))
    panels = [(of_set, b) for of_set in results.values() for b in of_set.predictions.backbones]
    if not panels:
        raise UserError(_NO_LEVELS)
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = panel_grid(lines, columns, 2.7 * lines, sharey=True)
    flat = [panel for line in axes for panel in line]
    for panel, (of_set, backbone) in zip(flat, panels, strict=False):
        _accuracy_panel(panel, of_set, backbone)
        set_name = f", {of_set.predictions.name}" if len(results) > 1 else ""
        panel.set_title(f"{backbone_name(backbone)}{set_name}", loc="left", fontweight="bold")
    for panel in flat[len(panels) :]:
        panel.set_visible(False)
    for line in axes:
        line[0].set_ylabel("Top-1 accuracy (%)")
    handles = [Line2D([], [], label=method_name(m), **line_style(m)) for m in settings.training.methods]
    _finish(figure, handles, settings, _n_text(results, settings))
    save(figure, out, "accuracy")


@styled()
def gain(evaluation: Path, settings: Settings, out: Path) -> None:
    """Gain in top-1 accuracy over None with its interval: a panel for each backbone, bars for each level and set."""
    methods = [method for method in settings.training.methods if method != REFERENCE]
    if REFERENCE not in settings.training.methods or not methods:
        raise UserError(
            f"figure gain needs {REFERENCE!r} and another method in training.methods, which are "
            f"{', '.join(settings.training.methods)}; add what is missing or leave this figure out"
        )
    results = load_results(evaluation, settings)
    backbones = list(settings.training.backbones)
    figure, axes = panel_grid(len(backbones), 1, 2.1 * len(backbones), sharey=True)
    simulated_first = sorted(results.values(), key=lambda of_set: len(of_set.predictions.levels) == 1)
    groups = [(of_set, level) for of_set in simulated_first for level in of_set.predictions.levels]
    for panel, backbone in zip([line[0] for line in axes], backbones, strict=True):
        _gain_panel(panel, groups, backbone, methods)
        panel.set_title(backbone_name(backbone), loc="left", fontweight="bold")
        panel.set_ylabel("Gain over None (points)")
    handles = [Patch(facecolor=row_of(m).colour, label=method_name(m)) for m in methods]
    _finish(figure, handles, settings, _n_text(results, settings))
    save(figure, out, "gain")


def _accuracy_panel(panel: Axes, of_set: SetResults, backbone: str) -> None:
    levels = sorted(of_set.predictions.levels)
    for method in of_set.predictions.methods:
        cells = [Cell(method, backbone, level, "top1") for level in levels]
        low, high = np.transpose([of_set.interval(cell) for cell in cells])
        panel.fill_between(levels, 100 * low, 100 * high, color=row_of(method).colour, alpha=0.12, linewidth=0)
        panel.plot(levels, [100 * of_set.accuracy(cell) for cell in cells], **line_style(method))
    panel.set_xticks(levels)
    panel.set_xlabel("Information loss (%)")


def _gain_panel(panel: Axes, groups: list[tuple[SetResults, int]], backbone: str, methods: Sequence[str]) -> None:
    width = 0.8 / len(methods)
    for index, method in enumerate(methods):
        places = np.arange(len(groups)) + (index - (len(methods) - 1) / 2) * width
        effects = [
            of_set.difference(Cell(method, backbone, level, "top1"), Cell(REFERENCE, backbone, level, "top1"))
            for of_set, level in groups
        ]
        value, low, high = 100 * np.transpose([effect[:3] for effect in effects])
        panel.bar(places, value, width * 0.9, color=row_of(method).colour)
        bars = np.stack([value - low, high - value])
        panel.errorbar(places, value, bars, fmt="none", ecolor="#333333", elinewidth=0.7, capsize=1.5, capthick=0.7)
    panel.axhline(0, color="#000000", linewidth=0.6)
    panel.set_xticks(range(len(groups)), [_group_name(*group) for group in groups])
    panel.tick_params(axis="x", length=0)
    panel.grid(visible=False, axis="x")


def _group_name(of_set: SetResults, level: int) -> str:
    name = of_set.predictions.name
    return name if level == 0 and len(of_set.predictions.levels) == 1 else f"{name}\n{level} % loss"


def _n_text(results: dict[str, SetResults], settings: Settings) -> str:
    counts = ", ".join(f"{name} n = {of_set.resampled.images:,}" for name, of_set in results.items())
    seeds = len(settings.training.seeds)
    return f"{100 * settings.report.confidence:g} % bootstrap intervals; {counts}; {seeds} seed{'s' * (seeds > 1)}"


def _finish(figure: Figure, handles: list[Any], settings: Settings, small: str) -> None:
    """The legend below with a line on the intervals, and the run's note above."""
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=3 if len(handles) > 4 else len(handles))
    legend.set_title(small, prop=FontProperties(size=6.5))
    legend.get_title().set_color("#444444")
    add_note(figure, settings.report.note)


def _need_images(name: str, images: Sequence[Any]) -> None:
    if not images:
        raise UserError(f"{name} got no images; give at least one column, e.g. one image each of six classes")


def picture_grid(
    name: str, labels: list[str], rows: list[list[Image]], titles: list[list[str]], settings: Settings, out: Path
) -> None:
    """Rows of pictures with a label at the left of each row and titles above pictures; sizes in inches."""
    columns = max(len(row) for row in rows)
    label, gap = 0.22, 0.05
    side = min(1.6, (WIDTH - label) / columns - gap)
    wrapped = [
        [textwrap.fill(title, max(8, int(side * 16)), max_lines=3, placeholder=" …") for title in row] for row in titles
    ]
    above = [0.13 * max((title.count("\n") + 1 for title in row), default=0) + 0.04 for row in wrapped]
    note = textwrap.fill(settings.report.note, max(40, int(18 * (label + columns * (side + gap)))))
    top = 0.12 * (note.count("\n") + 1) + 0.06 if note else 0.0
    heights = [side * min(1.5, max(image.shape[0] / image.shape[1] for image in row)) for row in rows]
    width, height = label + columns * (side + gap), top + sum(above) + sum(heights) + gap * len(rows)
    figure = new_figure(width, height)
    y = height - top
    if note:
        figure.text(0.5, 1 - 0.04 / height, note, ha="center", va="top", fontsize=7, color="#444444")
    for row, images in enumerate(rows):
        y -= above[row] + heights[row]
        figure.text(
            0.11 / width,
            (y + heights[row] / 2) / height,
            labels[row],
            rotation=90,
            ha="center",
            va="center",
            fontsize=7.5,
        )
        for column, image in enumerate(images):
            x = label + column * (side + gap)
            panel = figure.add_axes((x / width, y / height, side / width, heights[row] / height))
            panel.imshow(image)
            panel.set_axis_off()
            if wrapped[row]:
                panel.set_title(wrapped[row][column], fontsize=7.5, pad=2.5, linespacing=1.05)
        y -= gap
    save(figure, out, name)


_NO_LEVELS = (
    "figure accuracy needs a set with several levels of occlusion; data.evaluation has none: "
    "give one `levels: [0, 20, 40, 60, 80]` or leave this figure out"
)
