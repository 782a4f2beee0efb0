"""One look for every figure: width, lines, fonts, and how a figure becomes a file.

Each method has a colour and a marker of its own (`dfeat.methods`), so that a print without colour can be read. Seven
inches wide: two columns of a paper.
"""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dfeat.methods import REFERENCE, row_of
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
    """Draws in this style whatever the user's matplotlibrc says; a decorator, or a context."""
    import matplotlib.style

    return matplotlib.style.context(["default", _STYLE])


def new_figure(width: float, height: float, layout: Any = None) -> Figure:
    """An empty figure, inches, that draws without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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


def add_note(figure: Figure, note: str, characters: int = 130) -> None:
    """The run's note above the figure, so that a copied figure still says what it is."""
    if note:
        figure.suptitle(textwrap.fill(note, characters), fontsize=7, color="#444444")


def save(figure: Figure, out: Path, name: str) -> None:
    """Write `<name>.png` and `.svg` without dates or versions: the same drawing is the same bytes."""
    contents: dict[Path, bytes] = {}
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        contents[out / f"{name}.{kind}"] = buffer.getvalue()
    write_files(contents)
