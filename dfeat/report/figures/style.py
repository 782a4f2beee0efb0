"""One look for every figure: width, lines, fonts, and how a figure becomes a file.

Each method has a colour and a marker of its own (`dfeat.methods`), so figures remain readable without colour. Figures
are seven inches wide: two columns of a paper.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dfeat.config import Settings
from dfeat.methods import REFERENCE, row_of
from dfeat.methods.method import Pixels
from dfeat.storage.atomic import write_files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH: Final = 7.0
_STYLE: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 9, "axes.labelsize": 8, "legend.fontsize": 8,
    "xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "axes.spines.top": False, "axes.spines.right": False,
    "axes.linewidth": 0.6, "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.6,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "legend.frameon": False, "text.usetex": False,
    "text.parse_math": False, "svg.hashsalt": "dfeat", "svg.fonttype": "path", "savefig.dpi": 300,
}  # fmt: skip


def styled() -> Any:
    """Draw in this style, regardless of the user's matplotlibrc and styles; a decorator, or a context."""
    from matplotlib import rc_context, rcParamsDefault

    return rc_context({name: value for name, value in rcParamsDefault.items() if name != "backend"} | _STYLE)


def new_figure(width: float, height: float, layout: Any = None) -> Figure:
    """An empty figure, inches, that draws without a display; `styled`, or its bytes would differ from run to run."""
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    assert rcParams["svg.hashsalt"] == _STYLE["svg.hashsalt"], "draw figures under @styled()"
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def panel_grid(lines: int, columns: int, height: float, **options: Any) -> tuple[Figure, list[list[Axes]]]:
    """A figure of WIDTH with a grid of panels, `height` inches for them all."""
    figure = new_figure(WIDTH, height + 0.5, "constrained")
    return figure, figure.subplots(lines, columns, squeeze=False, **options).tolist()


def line_style(method: str) -> dict[str, Any]:
    """Ours solid and strong; None dashed; the others thin."""
    shown = row_of(method)
    return {
        "color": shown.colour, "marker": shown.marker, "markersize": 4.2, "markeredgewidth": 0,
        "linewidth": 1.8 if shown.ours else 1.1, "linestyle": "--" if method == REFERENCE else "-",
    }  # fmt: skip


@styled()
def picture_grid(
    name: str, labels: list[str], rows: Sequence[Sequence[Pixels]], titles: list[list[str]], settings: Settings, out: Path
) -> None:  # fmt: skip
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
        middle = (y + heights[row] / 2) / height
        figure.text(0.11 / width, middle, labels[row], rotation=90, ha="center", va="center", fontsize=7.5)
        for column, image in enumerate(images):
            x = label + column * (side + gap)
            panel = figure.add_axes((x / width, y / height, side / width, heights[row] / height))
            panel.imshow(image)
            panel.set_axis_off()
            if wrapped[row]:
                panel.set_title(wrapped[row][column], fontsize=7.5, pad=2.5, linespacing=1.05)
        y -= gap
    save(figure, out, name)


def save_with_note(figure: Figure, note: str, out: Path, name: str) -> None:
    """Save the figure with the run's note above, so that a copied figure carries it."""
    if note:
        figure.suptitle(textwrap.fill(note, 130), fontsize=7, color="#444444")
    save(figure, out, name)


def save(figure: Figure, out: Path, name: str) -> None:
    """Write `<name>.png` and `.svg` without dates or versions, so that the same drawing has the same bytes."""
    contents: dict[Path, bytes] = {}
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        contents[out / f"{name}.{kind}"] = buffer.getvalue()
    write_files(contents)
