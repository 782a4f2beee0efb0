"""Tables 1 and 2 with their uncertainty [Sec. 4.3].

What enters: a run's evaluation folder and settings. What leaves: `<name>.csv`, a row for every cell and metric,
and the paper's layout as `<name>.md` and `<name>.tex`. Table 1 has the sets with several levels of occlusion,
Table 2 those with a single level.

Every method is compared with None, and each of ours with the best of the other methods in its column, None among
them; choosing that method by the same numbers is conservative for ours. Each pair has two results. The paired bootstrap
interval: how large is the difference, given the spread of images and training runs? McNemar's exact test: do these
trained models err differently on these images? It compares seed k with seed k, combines the seeds by Rueger's majority
bound, and is adjusted by Holm over all comparisons of the table. The smallest difference that so many images can show
is given with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dfeat.config import Settings
from dfeat.methods import REFERENCE, row_of
from dfeat.report.numbers.paper import METRICS, Cell, PaperTable, TableName, paper_table
from dfeat.report.numbers.results import SetResults, load_pretrained, load_results
from dfeat.report.numbers.sets import sets_of
from dfeat.report.numbers.statistics import Effect, holm, majority_p, mcnemar, smallest_detectable_difference
from dfeat.report.numbers.text import percent, probability
from dfeat.report.tables.layout import CellRow, markdown, table_csv, tex
from dfeat.storage.atomic import write_files


def write_table(name: TableName, evaluation: Path, settings: Settings, out: Path) -> None:
    """Write `<name>.csv`, `.md` and `.tex` into the folder `out`; the same inputs give the same bytes."""
    rows = table_rows(name, evaluation, settings)
    texts = {
        "csv": table_csv(rows),
        "md": markdown(name, rows, settings.report),
        "tex": tex(name, rows, settings.report),
    }
    write_files({out / f"{name}.{kind}": text.encode() for kind, text in texts.items()})


def table_rows(name: TableName, evaluation: Path, settings: Settings) -> list[CellRow]:
    """The rows of a table: for each set and level, backbone, metric and method, in the settings' order.

    Where predictions of the pretrained backbones exist, their rows come first; they are not compared with any method.
    """
    paper = paper_table(name)
    rows: list[CellRow] = []
    for set_name, results in load_results(evaluation, settings, sets_of(name, settings)).items():
        printed = paper if not settings.report.note and set_name == paper.evaluation_set else None
        for shown in (*load_pretrained(evaluation, settings, results), results):
            cells = shown.predictions.cells(*METRICS)
            rows += [_row(name, shown, cell, printed if shown is results else None) for cell in cells]
            rows += [_calibration_row(name, shown, cell) for cell in shown.predictions.cells("top1")]
    return [replace(row, note=settings.report.note) for row in _adjusted(rows)]


def _adjusted(rows: list[CellRow]) -> list[CellRow]:
    """The rows with Holm's adjustment over all their comparisons, of both kinds and metrics."""
    tested = [
        (index, column, float(p))
        for index, row in enumerate(rows)
        for column, p in (("p_holm", row.p_mcnemar), ("baseline_p_holm", row.baseline_p_mcnemar))
        if p
    ]
    adjusted = list(rows)
    for (index, column, _), p in zip(tested, holm([p for *_, p in tested]), strict=True):
        adjusted[index] = replace(adjusted[index], **{column: probability(p)})
    return adjusted


def _unmeasured(table: TableName, results: SetResults, cell: Cell) -> CellRow:
    """The row of a cell without its numbers."""
    return CellRow(
        table, results.predictions.name, str(cell.level), cell.method, cell.backbone, cell.metric, value="",
        n=str(results.resampled.images), seeds=str(len(results.predictions.seeds)),
    )  # fmt: skip


def _row(table: TableName, results: SetResults, cell: Cell, paper: PaperTable | None) -> CellRow:
    low, high = results.interval(cell)
    row = replace(
        _unmeasured(table, results, cell), value=percent(results.accuracy(cell)), low=percent(low), high=percent(high),
        best="true" if _is_best(results, cell) else "false",
    )  # fmt: skip
    printed = paper.values.get(cell) if paper else None
    if printed is not None:
        inside = 100 * low <= printed <= 100 * high
        row = replace(row, paper=f"{printed:.2f}", paper_inside="true" if inside else "false")
    methods = results.predictions.methods
    if cell.method != REFERENCE and REFERENCE in methods:
        pair = compare(results, cell, cell.none)
        row = replace(
            row, difference_to_none=percent(pair.effect.estimate), difference_low=percent(pair.effect.low),
            difference_high=percent(pair.effect.high), p_by_seed=pair.p_by_seed, p_mcnemar=probability(pair.p),
            smallest_difference=percent(pair.smallest) if math.isfinite(pair.smallest) else "",
        )  # fmt: skip
    others = [cell._replace(method=method) for method in methods if not row_of(method).ours]
    if row_of(cell.method).ours and others:
        best = max(others, key=results.accuracy)
        pair = compare(results, cell, best)
        row = replace(
            row, baseline=best.method, baseline_difference=percent(pair.effect.estimate),
            baseline_low=percent(pair.effect.low), baseline_high=percent(pair.effect.high),
            baseline_p_by_seed=pair.p_by_seed, baseline_p_mcnemar=probability(pair.p),
        )  # fmt: skip
    return row


@dataclass(frozen=True)
class Pair:
    """One model compared with another: the paired difference, McNemar's p, and the smallest detectable difference."""

    effect: Effect
    p_values: tuple[float, ...]
    smallest: float

    @property
    def p(self) -> float:
        """One p for all seeds."""
        return majority_p(self.p_values)

    @property
    def p_by_seed(self) -> str:
        """The p of each seed, as the tables print them."""
        return " ".join(map(probability, self.p_values))


def compare(results: SetResults, a: Cell, b: Cell) -> Pair:
    """Compare two cells on the same images; `smallest` is a fraction, infinite where no difference is detectable."""
    ours, theirs = results.predictions.correct(a), results.predictions.correct(b)
    p_values = tuple(mcnemar(x, y) for x, y in zip(ours, theirs, strict=True))
    discordant = float(np.mean(ours != theirs))
    smallest = smallest_detectable_difference(ours.shape[1], discordant, 1 - results.confidence)
    return Pair(results.difference(a, b), p_values, smallest)


def _is_best(results: SetResults, cell: Cell) -> bool:
    """Whether the method is the best of its column and backbone, and its lead over the runner-up excludes 0."""
    columns = [cell._replace(method=method) for method in results.predictions.methods]
    ranked = sorted(columns, key=results.accuracy, reverse=True)
    return len(ranked) > 1 and ranked[0] == cell and results.difference(cell, ranked[1]).low > 0


def _calibration_row(table: TableName, results: SetResults, cell: Cell) -> CellRow:
    """Expected calibration error; without an interval, since its bootstrap would be biased upward."""
    error = percent(results.predictions.calibration_error(cell))
    return replace(_unmeasured(table, results, cell), metric="ece", value=error)
