"""One look for every figure: width, lines, fonts, and how a figure becomes a file.

Each method has a colour and a marker of its own (`dfeat.methods`), so figures remain readable without colour. Figures
are as wide as the text or a column of a CVPR paper, and print there without scaling: no text is smaller than 6 pt. The
PDF, for LaTeX, has its fonts embedded; the SVG, for the web, has its text as outlines, so it needs none.
"""

from __future__ import annotations

import io
import math
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

TEXT: Final = 6.875
COLUMN: Final = 3.25
"""Widths in inches."""
_STYLE: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 9, "axes.labelsize": 8, "legend.fontsize": 8,
    "xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "axes.spines.top": False, "axes.spines.right": False,
    "axes.linewidth": 0.6, "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.6,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "legend.frameon": False, "text.usetex": False,
    "text.parse_math": False, "svg.hashsalt": "dfeat", "svg.fonttype": "path", "pdf.fonttype": 42, "savefig.dpi": 300,
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


def panel_grid(
    lines: int, columns: int, height: float, width: float = TEXT, **options: Any
) -> tuple[Figure, list[list[Axes]]]:
    """A figure with a grid of panels, `height` inches for them all."""
    figure = new_figure(width, height + 0.5, "constrained")
    return figure, figure.subplots(lines, columns, squeeze=False, **options).tolist()


def wrapped(text: str, width: float, size: float = 7) -> str:
    """Text in lines of at most `width` inches at `size` points, by the mean width of a letter; "40 %" stays together."""
    together = text.replace(" %", "\N{NO-BREAK SPACE}%")
    return textwrap.fill(together, max(6, int(width / (LETTER * size))), break_on_hyphens=False)


LINE: Final = 0.16
"""Inches of a line of a legend, or of a note."""
LETTER: Final = 0.53 / 72
"""Inches of a letter and a point of size, in the mean: DejaVu Sans."""


def add_legend(figure: Figure, handles: Sequence[Any], title: str = "") -> None:
    """The legend below the panels, in as many columns as fit, rows evenly filled; the figure grows by further rows."""
    from matplotlib.font_manager import FontProperties

    size, width = 8, figure.get_figwidth() - 0.2
    widest = 0.55 + LETTER * size * max(len(str(handle.get_label())) for handle in handles)
    rows = math.ceil(len(handles) / max(1, int(width / widest)))
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=math.ceil(len(handles) / rows))
    above = wrapped(title, width, 6.5)
    if title:
        legend.set_title(above, prop=FontProperties(size=6.5))
        legend.get_title().set(color="#444444", multialignment="center")
    figure.set_figheight(figure.get_figheight() + LINE * (max(0, rows - 2) + above.count("\n")))


def line_style(method: str, ours: Sequence[str]) -> dict[str, Any]:
    """Ours solid and strong; None dashed; the others thin."""
    shown = row_of(method)
    return {
        "color": shown.colour, "marker": shown.marker, "markersize": 4.2, "markeredgewidth": 0,
        "linewidth": 1.8 if method in ours else 1.1, "linestyle": "--" if method == REFERENCE else "-",
    }  # fmt: skip


@styled()
def picture_grid(
    name: str, labels: list[str], rows: Sequence[Sequence[Pixels]], titles: list[list[str]], settings: Settings, out: Path
) -> None:  # fmt: skip
    """Rows of pictures with a label at the left of each row and titles above pictures; sizes in inches."""
    columns = max(len(row) for row in rows)
    label, gap, width = 0.22, 0.05, TEXT if columns > 3 else COLUMN
    side = (width - label) / columns - gap
    short = [
        [textwrap.fill(title, max(8, int(side * 16)), max_lines=3, placeholder=" …") for title in row] for row in titles
    ]
    above = [0.13 * max((title.count("\n") + 1 for title in row), default=0) + 0.04 for row in short]
    note = wrapped(settings.report.note, width)
    top = 0.12 * (note.count("\n") + 1) + 0.06 if note else 0.0
    heights = [side * min(1.5, max(image.shape[0] / image.shape[1] for image in row)) for row in rows]
    height = top + sum(above) + sum(heights) + gap * len(rows)
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
            if short[row]:
                panel.set_title(short[row][column], fontsize=7.5, pad=2.5, linespacing=1.05)
        y -= gap
    save(figure, out, name)


def save_with_note(figure: Figure, note: str, out: Path, name: str) -> None:
    """Save the figure with the run's note above, so that a copied figure carries it."""
    if note:
        lines = wrapped(note, figure.get_figwidth())
        figure.suptitle(lines, fontsize=7, color="#444444")
        figure.set_figheight(figure.get_figheight() + LINE * lines.count("\n"))
    save(figure, out, name)


def save(figure: Figure, out: Path, name: str) -> None:
    """Write `<name>.png`, `.pdf` and `.svg` without dates or versions, so that the same drawing has the same bytes."""
    contents: dict[Path, bytes] = {}
    undated = dict.fromkeys(("Creator", "Producer", "CreationDate"))
    kinds = {"png": {"Software": None}, "pdf": undated, "svg": {"Date": None, "Creator": None}}
    for kind, metadata in kinds.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        contents[out / f"{name}.{kind}"] = buffer.getvalue()
    write_files(contents)
