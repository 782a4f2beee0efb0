"""Tables 1 and 2 with their uncertainty [Sec. 4.3].

What enters: a run's evaluation folder and settings. What leaves: `<name>.csv`, a row for every cell and metric,
and the paper's layout as `<name>.md` and `<name>.tex`. Table 1 has the sets with several levels of occlusion,
Table 2 those with a single level.

Every method is compared with None, and each of ours with the best of the other methods in its column, None among
them; which that is, is read off the same numbers, which errs against ours. Two questions are asked of each pair.
How large is the difference, images and training runs being what they are? The paired bootstrap interval. And do
these trained models err differently on these images? McNemar's exact test for each seed (seed k against seed k),
joined over the seeds by Rueger's majority bound, and adjusted by Holm over all comparisons of the table. Beside it
the smallest difference that so many images can show at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dfeat.config import Settings
from dfeat.methods import REFERENCE, row_of
from dfeat.report.numbers.paper import METRICS, Cell, PaperTable, TableName, paper_table
from dfeat.report.numbers.results import SetResults, load_pretrained, load_results
from dfeat.report.numbers.sets import sets_of
from dfeat.report.numbers.statistics import (
    Effect,
    expected_calibration_error,
    holm,
    majority_p,
    mcnemar,
    smallest_detectable_difference,
)
from dfeat.report.tables.layout import Row, csv_text, markdown, tex
from dfeat.storage.atomic import write_files


def write_table(name: TableName, evaluation: Path, settings: Settings, out: Path) -> None:
    """Write `<name>.csv`, `.md` and `.tex` into the folder `out`; the same inputs give the same bytes."""
    rows = table_rows(name, evaluation, settings)
    texts = {
        "csv": csv_text(rows),
        "md": markdown(name, rows, settings.report),
        "tex": tex(name, rows, settings.report),
    }
    write_files({out / f"{name}.{kind}": text.encode() for kind, text in texts.items()})


def table_rows(name: TableName, evaluation: Path, settings: Settings) -> list[Row]:
    """The rows of a table: for each set and level, backbone, metric and method, in the settings' order.

    Before them, where they were made, the rows of the pretrained backbones before fine-tuning; these are shown, and
    compared with nothing.
    """
    paper = paper_table(name)
    rows: list[Row] = []
    for set_name, of_set in load_results(evaluation, settings, sets_of(name, settings)).items():
        shown = paper if not settings.report.note and set_name == paper.evaluation_set else None
        for before in load_pretrained(evaluation, settings, of_set):
            rows += [_row(name, before, cell, None, settings.report.note) for cell in _cells(before)]
            rows += _calibration_rows(name, before, settings.report.note)
        rows += [_row(name, of_set, cell, shown, settings.report.note) for cell in _cells(of_set)]
        rows += _calibration_rows(name, of_set, settings.report.note)
    return _adjusted(rows)


def _adjusted(rows: list[Row]) -> list[Row]:
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


def _cells(of_set: SetResults) -> Iterator[Cell]:
    predictions = of_set.predictions
    for level in predictions.levels:
        for backbone in predictions.backbones:
            for metric in METRICS:
                for method in predictions.methods:
                    yield Cell(method, backbone, level, metric)


def _row(table: TableName, of_set: SetResults, cell: Cell, paper: PaperTable | None, note: str) -> Row:
    low, high = of_set.interval(cell)
    row = Row(
        table=table, set=of_set.predictions.name, level=str(cell.level), method=cell.method, backbone=cell.backbone,
        metric=cell.metric, value=percent(of_set.accuracy(cell)), low=percent(low), high=percent(high),
        n=str(of_set.resampled.images), seeds=str(len(of_set.predictions.seeds)),
        best="true" if _is_best(of_set, cell) else "false", note=note,
    )  # fmt: skip
    printed = paper.values.get(cell) if paper else None
    if printed is not None:
        inside = 100 * low <= printed <= 100 * high
        row = replace(row, paper=f"{printed:.2f}", paper_inside="true" if inside else "false")
    if cell.method != REFERENCE and REFERENCE in of_set.predictions.methods:
        pair = compare(of_set, cell, cell._replace(method=REFERENCE))
        row = replace(
            row, difference_to_none=percent(pair.effect.estimate), difference_low=percent(pair.effect.low),
            difference_high=percent(pair.effect.high), p_by_seed=pair.p_by_seed, p_mcnemar=probability(pair.p),
            smallest_difference=percent(pair.smallest) if math.isfinite(pair.smallest) else "",
        )  # fmt: skip
    others = [cell._replace(method=method) for method in of_set.predictions.methods if not row_of(method).ours]
    if row_of(cell.method).ours and others:
        best = max(others, key=of_set.accuracy)
        pair = compare(of_set, cell, best)
        row = replace(
            row, baseline=best.method, baseline_difference=percent(pair.effect.estimate),
            baseline_low=percent(pair.effect.low), baseline_high=percent(pair.effect.high),
            baseline_p_by_seed=pair.p_by_seed, baseline_p_mcnemar=probability(pair.p),
        )  # fmt: skip
    return row


@dataclass(frozen=True)
class Pair:
    """One model compared with another: the paired difference, McNemar's p, and the smallest difference to be seen."""

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


def compare(of_set: SetResults, a: Cell, b: Cell) -> Pair:
    """Compare the accuracies of two cells on the same images; `smallest` is a fraction, infinite where nothing shows."""
    ours, theirs = of_set.predictions.correct(a), of_set.predictions.correct(b)
    p_values = tuple(mcnemar(x, y) for x, y in zip(ours, theirs, strict=True))
    discordant = float(np.mean(ours != theirs))
    smallest = smallest_detectable_difference(ours.shape[1], discordant, 1 - of_set.confidence)
    return Pair(of_set.difference(a, b), p_values, smallest)


def _is_best(of_set: SetResults, cell: Cell) -> bool:
    """Whether the method is the best of its column and backbone, and its lead over the runner-up excludes 0."""
    methods = of_set.predictions.methods
    ranked = sorted((cell._replace(method=m) for m in methods), key=of_set.accuracy, reverse=True)
    return len(ranked) > 1 and ranked[0] == cell and of_set.difference(cell, ranked[1]).low > 0


def _calibration_rows(table: TableName, of_set: SetResults, note: str) -> Iterator[Row]:
    """Expected calibration error, the mean over seeds; without interval, for its bootstrap would be biased upward."""
    for cell in _cells(of_set):
        if cell.metric == "top1":
            pairs = zip(of_set.predictions.confidence(cell), of_set.predictions.correct(cell), strict=True)
            error = float(np.mean([expected_calibration_error(confidence, correct) for confidence, correct in pairs]))
            yield Row(
                table=table, set=of_set.predictions.name, level=str(cell.level), method=cell.method,
                backbone=cell.backbone, metric="ece", value=percent(error), n=str(of_set.resampled.images),
                seeds=str(len(of_set.predictions.seeds)), note=note,
            )  # fmt: skip


def percent(fraction: float) -> str:
    """A fraction as percent with four decimals, never "-0.0000"."""
    return f"{round(100 * fraction, 4) + 0.0:.4f}"


def probability(p: float) -> str:
    """A p-value as the tables print it, four digits."""
    return f"{p:.4g}"
