"""How Tables 1 and 2 are laid out: rows of numbers as CSV, and in the paper's layout as Markdown and LaTeX.

What enters: `CellRow`s, one for each cell and metric. What leaves: text. `grids` is the paper's layout (methods and
backbones down, levels or sets across), which the HTML report shares.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from dfeat.config import ReportSettings, Settings
from dfeat.config.labels import Labels
from dfeat.methods import controlled
from dfeat.report.numbers.paper import TableName, paper_table
from dfeat.report.numbers.text import csv_text, document, escaped, pipe_table, read_csv, unique
from dfeat.storage.records import refusal


@dataclass(frozen=True)
class CellRow:
    """A line of `<table>.csv`, as text. Accuracies, differences and calibration errors are in percent.

    `metric` is top1, top5 or ece; what does not apply is empty. The columns from `difference_to_none` to
    `smallest_difference` compare with None, those that begin with `baseline` one of ours with the best of the other
    methods, None among them. `p_by_seed` has McNemar's exact p of each seed's two models; `p` is that of the methods,
    `p_holm` adjusted over all comparisons of the table, `mark` "better" or "worse" where it is significant. `best` is
    "true" for a cell in bold type, a method that is better than every other one (`best_p_holm`).
    """

    table: str
    set: str
    level: str
    method: str
    backbone: str
    metric: str
    value: str
    low: str = ""
    high: str = ""
    n: str = ""
    seeds: str = ""
    difference_to_none: str = ""
    difference_low: str = ""
    difference_high: str = ""
    p_by_seed: str = ""
    p: str = ""
    p_holm: str = ""
    mark: str = ""
    smallest_difference: str = ""
    baseline: str = ""
    baseline_difference: str = ""
    baseline_low: str = ""
    baseline_high: str = ""
    baseline_p_by_seed: str = ""
    baseline_p: str = ""
    baseline_p_holm: str = ""
    baseline_mark: str = ""
    paper: str = ""
    paper_inside: str = ""
    best: str = ""
    best_p_holm: str = ""
    note: str = ""


COLUMNS = tuple(field.name for field in dataclasses.fields(CellRow))


class Grid(NamedTuple):
    """A table as it is printed. `groups` are spanning heads (text, columns) above `heads`; a cell is its metrics' rows."""

    title: str
    groups: tuple[tuple[str, int], ...]
    heads: tuple[str, ...]
    lines: tuple[tuple[tuple[str, ...], tuple[tuple[CellRow, ...], ...]], ...]


def table_csv(rows: list[CellRow]) -> str:
    """The rows as CSV, with a header even where there are none."""
    return csv_text([vars(row) for row in rows], COLUMNS)


def read_rows(path: Path) -> list[CellRow]:
    """Read a table's CSV back."""
    try:
        return [CellRow(**line) for line in read_csv(path)]
    except TypeError as error:
        raise refusal(path, f"it cannot be read as a table ({error})", "table") from None


def grids(name: TableName, rows: list[CellRow], labels: Labels) -> list[Grid]:
    """The paper's layout: Table 1 has a grid for each set, levels across; Table 2 one grid, sets and backbones across."""
    shown = [row for row in rows if row.metric != "ece"]
    if name == "table2":
        return [_grid_of_real(shown, labels)] if shown else []
    sets = unique(row.set for row in shown)
    return [_grid_of_levels([row for row in shown if row.set == name], labels) for name in sets]


def _grid_of_levels(rows: list[CellRow], labels: Labels) -> Grid:
    levels = unique(row.level for row in rows)
    lines = tuple(
        (
            (labels.row(method) if index == 0 else "", labels.backbone(backbone)),
            tuple(_pick(rows, method=method, backbone=backbone, level=level) for level in levels),
        )
        for method in unique(row.method for row in rows)
        for index, backbone in enumerate(unique(row.backbone for row in rows if row.method == method))
    )
    heads = ("Augmentation Method", "Architecture", *(f"{level} %" for level in levels))
    return Grid(
        f"Accuracy (top-1 / top-5) on {labels.set(rows[0].set)} by information loss, n = {int(rows[0].n):,} images, {_seeds(rows)}",
        (("", 2), ("Information loss", len(levels))), heads, lines,
    )  # fmt: skip


def _grid_of_real(rows: list[CellRow], labels: Labels) -> Grid:
    sets, backbones = unique(row.set for row in rows), unique(row.backbone for row in rows)
    columns = [{"set": name, "backbone": backbone} for name in sets for backbone in backbones]
    lines = tuple(
        ((labels.row(method),), tuple(_pick(rows, method=method, metric="top1", **column) for column in columns))
        for method in unique(row.method for row in rows)
    )
    losses = {row.set: "" if row.level == "0" else f" at {row.level} % loss" for row in rows}
    counts = {row.set: f"{labels.set(row.set)}{losses[row.set]}, n = {int(row.n):,}" for row in rows}
    groups = (("", 1), *((counts[name], len(backbones)) for name in sets))
    heads = ("Augmentation Method", *(labels.backbone(column["backbone"]) for column in columns))
    real = " on really occluded images" if all(row.level == "0" for row in rows) else ""
    return Grid(f"Top-1 accuracy{real}, {_seeds(rows)}", groups, heads, lines)


def _seeds(rows: list[CellRow]) -> str:
    return f"{_seed_count(rows)} training seed{'s' * (_seed_count(rows) != 1)}"


def _seed_count(rows: list[CellRow]) -> int:
    """Seeds of the trained models; a row before fine-tuning has one whatever the run has."""
    return max(int(row.seeds) for row in rows)


def _pick(rows: list[CellRow], **wanted: str) -> tuple[CellRow, ...]:
    return tuple(row for row in rows if all(getattr(row, key) == value for key, value in wanted.items()))


def heading(name: TableName, rows: list[CellRow]) -> str:
    """The table's number, with the paper's title where it holds the paper's own sets."""
    number = name.replace("table", "Table ")
    return f"{number}. {paper_table(name).title}" if any(row.paper for row in rows) else number


class Marks(NamedTuple):
    """The signs behind a value: better and worse than None, better than the best of the other methods."""

    better: str = "↑"
    worse: str = "↓"
    baseline_better: str = "★"

    def of(self, row: CellRow) -> str:
        """The signs of a row."""
        none = {"better": self.better, "worse": self.worse}.get(row.mark, "")
        return none + (self.baseline_better if row.baseline_mark == "better" else "")


def explanation(rows: list[CellRow], confidence: float, labels: Labels) -> str:
    """What the numbers and marks of a table mean, in words, and how much its n can show."""
    sentences = [
        f"Accuracies in percent, means over seeds and images; below each its {100 * confidence:g} % interval over "
        "images (drawn within classes) and training seeds.",
        *_marks_in_words(rows, confidence, labels),
        *_reach(rows, labels),
    ]
    if controlled(unique(row.method for row in rows)):
        sentences.append("The table “controls” has what a method gains over its matched control, in place of None.")
    if any(row.paper for row in rows):
        sentences.append(_about_the_paper(rows, confidence))
    return " ".join(sentences)


def _marks_in_words(rows: list[CellRow], confidence: float, labels: Labels) -> list[str]:
    if rows and _seed_count(rows) == 1:
        return ["With one seed, intervals exclude run-to-run variation, and nothing is marked."]
    return [
        _legend_of_marks(rows, labels),
        "These are tests of methods over images and seeds (Student's t), Holm-adjusted over the table, "
        f"p < {1 - confidence:.2g}.",
    ]


def _legend_of_marks(rows: list[CellRow], labels: Labels) -> str:
    """The signs and what they stand for."""
    ours = unique(row.method for row in rows if row.baseline)
    starred = f"★: {' or '.join(map(labels.row, ours))} better than the best of the other methods; " if ours else ""
    return f"↑/↓: significantly better/worse than None; {starred}bold: better than every other method."


def _reach(rows: list[CellRow], labels: Labels) -> list[str]:
    """A sentence for each set: which differences are too small to be marked, or that n is too small for any."""
    sentences = []
    for name in unique(row.set for row in rows):
        own = [row for row in rows if row.set == name and row.metric == "top1"]
        start = f"On {labels.set(name)}, n = {int(own[0].n):,}"
        widths = [float(row.high) - float(row.low) for row in own]
        seen = [float(row.smallest_difference) for row in own if row.smallest_difference]
        if min(widths) > UNTOLD:
            sentences.append(
                f"{start} is too small to tell methods apart: the intervals are {min(widths):.0f} to {max(widths):.0f} "
                "points wide."
            )
        elif seen:
            sentences.append(
                f"{start}, differences from None below {min(seen):.1f} to {max(seen):.1f} points (depending on the cell) "
                "are too small to detect (80 % power, by the errors seen)."
            )
    return sentences


UNTOLD: Final = 25.0
"""Where every interval of a set is wider, in points, its n tells nothing of a difference between methods."""


def _about_the_paper(rows: list[CellRow], confidence: float) -> str:
    chance = f"{100 * (1 - confidence):.2g} of 100 would be where nothing differs"
    text = f"Last line: the paper's value, in brackets where it lies outside our interval ({chance})"
    if any(row.paper and row.table == "table2" for row in rows):
        text += (
            ", here a prediction interval: the paper's images are others, so the binomial variance of its "
            f"{paper_table('table2').images} images is added; that of its training runs is not"
        )
    return f"{text}."


def values(cell: tuple[CellRow, ...], bold: Callable[[str], str], marks: Marks = Marks()) -> str:
    """The first line of a cell: "71.50↑ / 93.20", the best method in bold, with the marks of its comparisons."""
    shown = ((bold(f"{float(row.value):.2f}") if row.best == "true" else f"{float(row.value):.2f}") for row in cell)
    return " / ".join(value + marks.of(row) for value, row in zip(shown, cell, strict=True))


def intervals(cell: tuple[CellRow, ...], dash: str = "\N{EN DASH}") -> str:
    """The second line of a cell: "70.1-72.9 / 92.0-94.1"."""
    return " / ".join(f"{float(row.low):.1f}{dash}{float(row.high):.1f}" for row in cell)


def printed(cell: tuple[CellRow, ...]) -> str:
    """The third line of a cell: the paper's values, those outside the interval they are compared with in brackets; empty without."""
    if not any(row.paper for row in cell):
        return ""
    shown = (f"({row.paper})" if row.paper_inside == "false" else row.paper or "?" for row in cell)
    return "paper " + " / ".join(shown)


def markdown(name: TableName, rows: list[CellRow], settings: Settings) -> str:
    """The table as Markdown."""
    blocks = []
    for grid in grids(name, rows, settings.labels):
        heads, labels = grid.heads, len(grid.lines[0][0])
        if name == "table2":
            spans = [text for text, width in grid.groups for _ in range(width)]
            heads = tuple(f"{span}: {head}" if span else head for span, head in zip(spans, heads, strict=True))
        lines = [[*map(escaped, names), *map(_markdown_cell, cells)] for names, cells in grid.lines]
        aligned = "l" * labels + "r" * (len(heads) - labels)
        blocks += [escaped(grid.title), pipe_table(aligned, map(escaped, heads), lines)]
    return document(heading(name, rows), settings.report.note, [*blocks, escaped(_below(name, rows, settings))])


def _below(name: TableName, rows: list[CellRow], settings: Settings) -> str:
    """The text below a table: what its marks mean, or why it is empty."""
    return explanation(rows, settings.report.confidence, settings.labels) if rows else _EMPTY[name]


_EMPTY = {
    "table1": "No set of data.evaluation has several levels of occlusion; this table is empty.",
    "table2": "No set of data.evaluation has a single level; this table is empty.",
}


def _markdown_cell(cell: tuple[CellRow, ...]) -> str:
    small = [intervals(cell), *filter(None, [printed(cell)])]
    return values(cell, "**{}**".format) + "".join(f"<br><sub>{line}</sub>" for line in small)


def tex(name: TableName, rows: list[CellRow], settings: Settings) -> str:
    """The table as a LaTeX `table*`; needs the packages booktabs and graphicx."""
    report, shown = settings.report, grids(name, rows, settings.labels)
    title = heading(name, rows).partition(". ")[2]
    above = [f"{text}." for text in [title, *(grid.title for grid in shown)] if text]
    tabulars = [line for grid in shown for line in _tabular(grid, report.tex_intervals)]
    legend = _legend(rows, report, settings.labels) if rows else _EMPTY[name]
    return _tex_table(name, tabulars, " ".join([*above, legend]), _below(name, rows, settings), report)


def _legend(rows: list[CellRow], report: ReportSettings, labels: Labels) -> str:
    """The explanation in a line or two, for a caption; the whole one stands in comments of the file."""
    interval = f"Small: {100 * report.confidence:g} % interval over images and seeds. "
    text = {"none": "", "top1": interval.replace("interval", "interval of top-1")}.get(report.tex_intervals, interval)
    if _seed_count(rows) == 1:
        text = text.replace(" and seeds", "") + "With one seed no difference is marked."
    else:
        text += f"{_legend_of_marks(rows, labels)[:-1]} (Holm-adjusted, p < {1 - report.confidence:.2g})."
    if any(row.paper for row in rows):
        text += " Last line: the paper's value, in brackets outside the interval."
    return text


def plain_tex(
    name: str, heads: Sequence[str], lines: Iterable[Sequence[str]], caption: str, report: ReportSettings
) -> str:
    """A table of text as a LaTeX `table*` like Tables 1 and 2; the first two columns are names.

    The caption is the first two sentences of `caption`; the rest stands in comments.
    """
    body = [" & ".join(map(_joined_marks, map(tex_escaped, line))) + r" \\" for line in lines]
    aligned = "ll" + "c" * (len(heads) - 2)
    head = " & ".join(map(tex_escaped, heads)) + r" \\"
    rules = [r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    short = " ".join(re.split(r"(?<=[.;]) ", caption)[:2])
    return _tex_table(name, _fitted(aligned, rules), short, caption, report)


def _fitted(aligned: str, lines: Sequence[str]) -> list[str]:
    """A tabular that is scaled down where it is wider than the text."""
    fit = r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"
    return [fit, rf"\begin{{tabular}}{{{aligned}}}", *lines, r"\end{tabular}}"]


def _tex_table(name: str, tabulars: Iterable[str], caption: str, whole: str, report: ReportSettings) -> str:
    """The float: a caption above, as tables have it, and the `whole` explanation in comments."""
    note = f"{report.note}. ".replace(".. ", ". ") if report.note else ""
    about = [f"% {tex_escaped(line)}" for line in textwrap.wrap(whole, 110)]
    caption = (rf"\textbf{{{tex_escaped(note)}}} " if note else "") + _joined_marks(tex_escaped(caption))
    return "\n".join([
        *about, r"\begin{table*}[t]", rf"\caption{{{caption}}}", rf"\label{{tab:{name}}}", r"\centering", r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}", r"\vspace{3pt}", *tabulars, r"\end{table*}",
    ]) + "\n"  # fmt: skip


def _joined_marks(text: str) -> str:
    """Superscripts that follow one another as one: LaTeX sets two apart."""
    return text.replace("}$$^{", "")


def _tabular(grid: Grid, small: str) -> list[str]:
    """A grid's lines of LaTeX; `small` is report.tex_intervals."""
    names, first = len(grid.lines[0][0]), 1
    lines, spans = [r"\toprule"], []
    for text, width in grid.groups:
        spans += [rf"\cmidrule(lr){{{first}-{first + width - 1}}}"] if text else []
        first += width
    lines += [
        " & ".join(rf"\multicolumn{{{w}}}{{c}}{{{_stacked(t, 18 * w)}}}" for t, w in grid.groups) + r" \\",
        "".join(spans),
    ]
    lines += [" & ".join(map(tex_escaped, grid.heads)) + r" \\", r"\midrule"]
    for index, (labels, cells) in enumerate(grid.lines):
        if index and labels[0]:
            lines.append(r"\addlinespace")
        shown = [_joined_marks(values(cell, r"\textbf{{{}}}".format, _TEX_MARKS)) for cell in cells]
        lines.append(" & ".join([*(_stacked(label, 28, "[l]") for label in labels), *shown]) + r" \\")
        with_interval = [() if small == "none" else cell[:1] if small == "top1" else cell for cell in cells]
        for below in (
            [intervals(cell, "--") for cell in with_interval],
            [tex_escaped(printed(cell)) for cell in cells],
        ):
            if any(below):
                lines.append(" & " * names + " & ".join(rf"{{\tiny {text}}}" for text in below) + r" \\")
    return [*_fitted("l" * names + "c" * (len(grid.heads) - names), [*lines, r"\bottomrule"]), r"\par\medskip"]


def _stacked(text: str, letters: int, position: str = "") -> str:
    """Text as LaTeX, in several lines where it is longer, so that a long label does not widen its column."""
    lines = r" \\ ".join(tex_escaped(line) for line in textwrap.wrap(text, letters))
    return rf"\shortstack{position}{{{lines}}}" if len(text) > letters else lines


_TEX_MARKS = Marks(*(rf"$^{{\{name}}}$" for name in ("uparrow", "downarrow", "star")))
_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "\N{EN DASH}": "--",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``", "\N{RIGHT DOUBLE QUOTATION MARK}": "''", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "★": r"$\star$",
}  # fmt: skip


def tex_escaped(text: str) -> str:
    """Text as LaTeX shows it literally."""
    return "".join(_TEX.get(character, character) for character in " ".join(text.split()))
