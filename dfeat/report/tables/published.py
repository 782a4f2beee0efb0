"""Tables 1 and 2 with their uncertainty [Sec. 4.3].

What enters: a run's evaluation folder and settings. What leaves: `<name>.csv`, a row for every cell and metric,
and the paper's layout as `<name>.md` and `<name>.tex`. Table 1 has the sets with several levels of occlusion,
Table 2 those with a single level.

Every method is compared with None, and each of ours (`report.ours`) with the best of the other methods in its column,
None among them. A pair has the difference with its interval, and a p-value of Student's t that reflects images and seeds
(`statistics`), adjusted by Holm over all comparisons of the table. "Better than the best of the others" must hold
against each of them (an intersection-union test, Berger 1982, Technometrics 24:295); "worse" against one of them is
enough, so its p is multiplied by their number: no choice by the same numbers is left to correct for. The method in bold
is better than every other one, by the same test. McNemar's exact test of seed k against seed k is given as what it is, a
test of those two models, and decides no mark. With one seed there are no tests of methods, and no marks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from dfeat.config import Settings
from dfeat.methods import REFERENCE
from dfeat.report.numbers.paper import METRICS, Cell, PaperTable, TableName, paper_table
from dfeat.report.numbers.results import SetResults, load_pretrained, load_results
from dfeat.report.numbers.sets import sets_of
from dfeat.report.numbers.statistics import Effect, judged
from dfeat.report.numbers.text import percent, probability
from dfeat.report.tables.layout import CellRow, markdown, table_csv, tex
from dfeat.storage.atomic import write_files

_TO_NONE: Final = ("difference_to_none", "difference_low", "difference_high", "p_by_seed", "p")
_TO_BASELINE: Final = (
    "baseline_difference", "baseline_low", "baseline_high", "baseline_p_by_seed", "baseline_p"
)  # fmt: skip


class _Test(NamedTuple):
    """A comparison of the table's family: the columns of its adjusted p and mark, its p and the difference."""

    p_holm: str
    mark: str
    p: float
    effect: Effect


class _Tested(NamedTuple):
    """A row and the comparisons that it has in the table's family."""

    row: CellRow
    tests: tuple[_Test, ...] = ()


def write_table(name: TableName, evaluation: Path, settings: Settings, out: Path) -> None:
    """Write `<name>.csv`, `.md` and `.tex` into the folder `out`; the same inputs give the same bytes."""
    rows = table_rows(name, evaluation, settings)
    md, latex = markdown(name, rows, settings), tex(name, rows, settings)
    texts = {"csv": table_csv(rows), "md": md, "tex": latex}
    write_files({out / f"{name}.{kind}": text.encode() for kind, text in texts.items()})


def table_rows(name: TableName, evaluation: Path, settings: Settings) -> list[CellRow]:
    """The rows of a table: for each set and level, backbone, metric and method, in the settings' order.

    Where predictions of the pretrained backbones exist, their rows come first; they are not compared with any method.
    """
    loaded = load_results(evaluation, settings, sets_of(name, settings)).values()
    shown = ((one, tuple(load_pretrained(evaluation, settings, one))) for one in loaded)
    rows = rows_of(name, shown, settings.ours, settings.report.note == "")
    return [replace(row, note=settings.report.note) for row in rows]


def rows_of(
    name: TableName,
    sets: Iterable[tuple[SetResults, Sequence[SetResults]]],
    ours: Sequence[str],
    beside_paper: bool = False,
) -> list[CellRow]:
    """The rows of results already read: of each set, those of the methods and those before fine-tuning.

    Each of `ours` is compared with the best of the other methods. `beside_paper` has the paper's values on the paper's
    own set.
    """
    rows: list[_Tested] = []
    paper, confidence = paper_table(name), 0.0
    for results, pretrained in sets:
        confidence = results.confidence
        printed = paper if beside_paper and results.predictions.name == paper.evaluation_set else None
        for shown in (*pretrained, results):
            cells = shown.predictions.cells(*METRICS)
            rows += [_row(name, shown, cell, ours, printed if shown is results else None) for cell in cells]
            # calibration errors have no interval: those of resampled images are biased upward
            for cell in shown.predictions.cells("top1"):
                error = percent(shown.predictions.calibration_error(cell))
                rows.append(_Tested(replace(_unmeasured(name, shown, cell), metric="ece", value=error)))
    return _adjusted(rows, 1 - confidence)


def _adjusted(rows: list[_Tested], alpha: float) -> list[CellRow]:
    """The rows with Holm's adjustment over all their comparisons, of all kinds and both metrics, and their marks.

    The smallest difference is that of Holm's first step, so it is found whatever the other comparisons show.
    """
    family = [(index, test) for index, row in enumerate(rows) for test in row.tests]
    adjusted = [row.row for row in rows]
    found = judged([(test.p, test.effect) for _, test in family], alpha)
    for (index, test), (p, mark) in zip(family, found, strict=True):
        columns = {test.p_holm: probability(p), test.mark: mark}
        if test.mark == "mark":
            columns["smallest_difference"] = percent(test.effect.detectable(alpha / len(family)))
        if test.mark == "best":
            columns["best"] = "true" if mark else "false"
        adjusted[index] = replace(adjusted[index], **columns)
    return adjusted


def _unmeasured(table: TableName, results: SetResults, cell: Cell) -> CellRow:
    """The row of a cell without its numbers."""
    return CellRow(
        table, results.predictions.name, str(cell.level), cell.method, cell.backbone, cell.metric, value="",
        n=str(results.outcomes.images), seeds=str(len(results.predictions.seeds)),
    )  # fmt: skip


def _row(table: TableName, results: SetResults, cell: Cell, ours: Sequence[str], paper: PaperTable | None) -> _Tested:
    low, high = results.interval(cell)
    row = replace(
        _unmeasured(table, results, cell), value=percent(results.accuracy(cell)), low=percent(low), high=percent(high),
        best="false",
    )  # fmt: skip
    printed = paper.values.get(cell) if paper else None
    if paper and printed is not None:
        inside = _expects(results, cell, paper, printed / 100)
        row = replace(row, paper=f"{printed:.2f}", paper_inside="true" if inside else "false")
    methods = results.predictions.methods
    tests: list[_Test] = []
    if cell.method != REFERENCE and REFERENCE in methods:
        effect = results.difference(cell, cell.none)
        tests.append(_Test("p_holm", "mark", effect.p(), effect))
        row = replace(row, **_compared(results, cell, cell.none, _TO_NONE, tests[-1]))
    others = [cell._replace(method=method) for method in methods if method not in ours]
    if cell.method in ours and others:
        best = max(others, key=results.accuracy)
        effects = [results.difference(cell, other) for other in others]
        above = max(effect.p_above() for effect in effects)
        below = len(others) * min(effect.p_below() for effect in effects)
        p = min(1.0, 2 * min(above, below))
        tests.append(_Test("baseline_p_holm", "baseline_mark", p, results.difference(cell, best)))
        row = replace(row, baseline=best.method, **_compared(results, cell, best, _TO_BASELINE, tests[-1]))
    tests += _lead(results, cell)
    return _Tested(row, tuple(tests) if len(results.predictions.seeds) > 1 else ())


def _lead(results: SetResults, cell: Cell) -> list[_Test]:
    """Whether the best method of a column and backbone is better than every other one; nothing of the others."""
    columns = [cell._replace(method=method) for method in results.predictions.methods]
    ranked = sorted(columns, key=results.accuracy, reverse=True)
    if ranked[0] != cell or len(ranked) == 1:
        return []
    effects = [results.difference(cell, other) for other in ranked[1:]]
    return [_Test("best_p_holm", "best", min(1.0, 2 * max(effect.p_above() for effect in effects)), effects[0])]


def _expects(results: SetResults, cell: Cell, paper: PaperTable, printed: float) -> bool:
    """Whether the printed fraction lies in our interval, or in our prediction interval where the paper's images differ.

    Table 1 is of the same images as ours. Table 2 is of others, so its value would miss an interval of ours too often
    although nothing differs: the binomial variance of the paper's n is added.
    """
    low, high = results.interval(cell)
    value, noise = results.accuracy(cell), 0.0
    if paper.name == "table2":
        from scipy.stats import norm

        # half-width^2 = (half-width of our interval)^2 + z^2 p (1 - p) / n of the paper
        noise = float(norm.isf((1 - results.confidence) / 2)) * math.sqrt(value * (1 - value) / paper.images)
    return value - math.hypot(value - low, noise) <= printed <= value + math.hypot(high - value, noise)


def _compared(results: SetResults, a: Cell, b: Cell, columns: Sequence[str], test: _Test) -> dict[str, str]:
    """Two cells on the same images: the difference, McNemar's p of each seed, and p; the columns are named in this order."""
    by_seed = results.by_seed(a, b)
    difference = map(percent, test.effect[:3])
    p = probability(test.p) if len(by_seed) > 1 else ""
    return dict(zip(columns, [*difference, " ".join(map(probability, by_seed)), p], strict=True))
