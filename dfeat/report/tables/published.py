"""Tables 1 and 2 with their uncertainty [Sec. 4.3].

What enters: a run's evaluation folder and settings. What leaves: `<name>.csv`, a row for every cell and metric,
and the paper's layout as `<name>.md` and `<name>.tex`. Table 1 has the sets with several levels of occlusion,
Table 2 those with a single level.

Every method is compared with None, and each of ours with the best of the other methods in its column, None among
them; choosing that method by the same numbers is conservative for ours. Each pair has two results. The paired bootstrap
interval: how large is the difference, given the spread of images and training runs? McNemar's exact test: do these
trained models err differently on these images? It compares seed k with seed k, combines the seeds by Rueger's majority
bound, and is adjusted by Holm over all comparisons of the table. The smallest difference that is
detectable on these images is given too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from dfeat.config import Settings
from dfeat.methods import REFERENCE, row_of
from dfeat.report.numbers.paper import METRICS, Cell, PaperTable, TableName, paper_table
from dfeat.report.numbers.results import SetResults, load_pretrained, load_results
from dfeat.report.numbers.sets import sets_of
from dfeat.report.numbers.statistics import holm, majority_p, mcnemar, smallest_detectable_difference
from dfeat.report.numbers.text import percent, probability
from dfeat.report.tables.layout import CellRow, markdown, table_csv, tex
from dfeat.storage.atomic import write_files

_TO_NONE: Final = (
    "difference_to_none", "difference_low", "difference_high", "p_by_seed", "p_mcnemar", "smallest_difference"
)  # fmt: skip
_TO_BASELINE: Final = (
    "baseline_difference", "baseline_low", "baseline_high", "baseline_p_by_seed", "baseline_p_mcnemar"
)  # fmt: skip


def write_table(name: TableName, evaluation: Path, settings: Settings, out: Path) -> None:
    """Write `<name>.csv`, `.md` and `.tex` into the folder `out`; the same inputs give the same bytes."""
    rows = table_rows(name, evaluation, settings)
    md, latex = markdown(name, rows, settings.report), tex(name, rows, settings.report)
    texts = {"csv": table_csv(rows), "md": md, "tex": latex}
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
            # calibration errors have no interval: their bootstrap would be biased upward
            for cell in shown.predictions.cells("top1"):
                error = percent(shown.predictions.calibration_error(cell))
                rows.append(replace(_unmeasured(name, shown, cell), metric="ece", value=error))
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
    if paper and printed is not None:
        inside = _expects(results, cell, paper, printed / 100)
        row = replace(row, paper=f"{printed:.2f}", paper_inside="true" if inside else "false")
    methods = results.predictions.methods
    if cell.method != REFERENCE and REFERENCE in methods:
        row = replace(row, **_compared(results, cell, cell.none, _TO_NONE))
    others = [cell._replace(method=method) for method in methods if not row_of(method).ours]
    if row_of(cell.method).ours and others:
        best = max(others, key=results.accuracy)
        row = replace(row, baseline=best.method, **_compared(results, cell, best, _TO_BASELINE))
    return row


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


def _compared(results: SetResults, a: Cell, b: Cell, columns: Sequence[str]) -> dict[str, str]:
    """Compare two cells on the same images: the paired difference, McNemar's p, the smallest detectable difference.

    The columns are named by `columns`, in this order; the last is left out if it has no name.
    """
    ours, theirs = results.predictions.correct(a), results.predictions.correct(b)
    p_values = [mcnemar(x, y) for x, y in zip(ours, theirs, strict=True)]
    discordant = float(np.mean(ours != theirs))
    smallest = smallest_detectable_difference(ours.shape[1], discordant, 1 - results.confidence)
    compared = [
        *map(percent, results.difference(a, b)[:3]), " ".join(map(probability, p_values)),
        probability(majority_p(p_values)), percent(smallest) if math.isfinite(smallest) else "",
    ]  # fmt: skip
    return dict(zip(columns, compared, strict=False))


def _is_best(results: SetResults, cell: Cell) -> bool:
    """Whether the method is the best of its column and backbone, and its lead over the runner-up excludes 0."""
    columns = [cell._replace(method=method) for method in results.predictions.methods]
    ranked = sorted(columns, key=results.accuracy, reverse=True)
    return len(ranked) > 1 and ranked[0] == cell and results.difference(cell, ranked[1]).low > 0
