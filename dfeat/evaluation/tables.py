"""Tables 1 and 2 with their uncertainty [Sec. 4.3].

What enters: a run's evaluation folder and settings. What leaves: `<name>.csv`, a row for every cell and metric,
and the paper's layout as `<name>.md` and `<name>.tex`. Table 1 has the sets with several levels of occlusion,
Table 2 those with a single level.

Two questions are asked of every method against None. How large is the difference, images and training runs being
what they are? The paired bootstrap interval. And do these trained models err differently on these images? McNemar's
exact test for each seed (seed k against None's seed k), joined over the seeds by Rueger's majority bound, and
adjusted by Holm over all comparisons of the table with the same metric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from dfeat.evaluation.layout import Row, csv_text, markdown, tex
from dfeat.evaluation.paper import METRICS, Cell, Metric, PaperTable, TableName, paper_table
from dfeat.evaluation.results import SetResults, load_predictions, load_results, sets_of
from dfeat.evaluation.statistics import expected_calibration_error, holm, majority_p, mcnemar
from dfeat.settings import Settings
from dfeat.storage.atomic import write_text

__all__ = ["load_predictions", "table_rows", "write_table"]


def write_table(name: TableName, evaluation: Path, settings: Settings, out: Path) -> None:
    """Write `<name>.csv`, `.md` and `.tex` into the folder `out`; the same inputs give the same bytes."""
    rows = table_rows(name, evaluation, settings)
    write_text(out / f"{name}.csv", csv_text(rows))
    write_text(out / f"{name}.md", markdown(name, rows, settings.report))
    write_text(out / f"{name}.tex", tex(name, rows, settings.report))


def table_rows(name: TableName, evaluation: Path, settings: Settings) -> list[Row]:
    """The rows of a table: for each set and level, backbone, metric and method, in the settings' order."""
    results = load_results(evaluation, settings, sets_of(name, settings))
    paper = paper_table(name)
    rows: list[Row] = []
    p_values: dict[Metric, list[tuple[int, float]]] = {metric: [] for metric in METRICS}
    for set_name, of_set in results.items():
        shown = paper if not settings.report.note and set_name == paper.evaluation_set else None
        for cell in _cells(of_set):
            row, p = _row(name, set_name, of_set, cell, shown, settings.report.note)
            if p is not None:
                p_values[cell.metric].append((len(rows), p))
            rows.append(row)
        rows += _calibration_rows(name, set_name, of_set, settings.report.note)
    for tested in p_values.values():
        for (index, _), adjusted in zip(tested, holm([p for _, p in tested]), strict=True):
            rows[index] = replace(rows[index], p_holm=f"{adjusted:.4g}")
    return rows


def _cells(of_set: SetResults) -> Iterator[Cell]:
    predictions = of_set.predictions
    for level in predictions.levels:
        for backbone in predictions.backbones:
            for metric in METRICS:
                for method in predictions.methods:
                    yield Cell(method, backbone, level, metric)


def _row(
    table: TableName, set_name: str, of_set: SetResults, cell: Cell, paper: PaperTable | None, note: str
) -> tuple[Row, float | None]:
    """The row of a cell, and its p-value before Holm where it is compared with None."""
    low, high = of_set.interval(cell)
    row = Row(
        table=table, set=set_name, level=str(cell.level), method=cell.method, backbone=cell.backbone,
        metric=cell.metric, value=percent(of_set.accuracy(cell)), low=percent(low), high=percent(high),
        n=str(of_set.resampled.images), seeds=str(len(of_set.predictions.seeds)),
        best="true" if _is_best(of_set, cell) else "false", note=note,
    )  # fmt: skip
    printed = paper.values.get(cell) if paper else None
    if printed is not None:
        inside = 100 * low <= printed <= 100 * high
        row = replace(row, paper=f"{printed:.2f}", paper_inside="true" if inside else "false")
    none = cell._replace(method="none")
    if cell.method == "none" or "none" not in of_set.predictions.methods:
        return row, None
    effect = of_set.difference(cell, none)
    ours, theirs = of_set.predictions.correct(cell), of_set.predictions.correct(none)
    p = majority_p([mcnemar(a, b) for a, b in zip(ours, theirs, strict=True)])
    row = replace(
        row, difference_to_none=percent(effect.estimate), difference_low=percent(effect.low),
        difference_high=percent(effect.high), p_mcnemar=f"{p:.4g}",
    )  # fmt: skip
    return row, p


def _is_best(of_set: SetResults, cell: Cell) -> bool:
    """Whether the method is the best of its column and backbone, and its lead over the runner-up excludes 0."""
    methods = of_set.predictions.methods
    ranked = sorted((cell._replace(method=m) for m in methods), key=of_set.accuracy, reverse=True)
    return len(ranked) > 1 and ranked[0] == cell and of_set.difference(cell, ranked[1]).low > 0


def _calibration_rows(table: TableName, set_name: str, of_set: SetResults, note: str) -> Iterator[Row]:
    """Expected calibration error, the mean over seeds; without interval, for its bootstrap would be biased upward."""
    for cell in _cells(of_set):
        if cell.metric == "top1":
            pairs = zip(of_set.predictions.confidence(cell), of_set.predictions.correct(cell), strict=True)
            error = float(np.mean([expected_calibration_error(confidence, correct) for confidence, correct in pairs]))
            yield Row(
                table=table, set=set_name, level=str(cell.level), method=cell.method, backbone=cell.backbone,
                metric="ece", value=percent(error), n=str(of_set.resampled.images),
                seeds=str(len(of_set.predictions.seeds)), note=note,
            )  # fmt: skip


def percent(fraction: float) -> str:
    """A fraction as percent with four decimals, never "-0.0000"."""
    return f"{round(100 * fraction, 4) + 0.0:.4f}"
