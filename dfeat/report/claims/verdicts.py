"""How a claim is decided: contrasts of accuracies, their tests, and a verdict.

What enters: a `Source` of accuracies (a table as the paper prints it, or one set of a run) and contrasts that a
claim says are above 0 or about 0. What leaves: a `Verdict`.

*Holds*: each contrast is significantly above 0 on its own (an intersection-union test, Berger 1982,
Technometrics 24:295: where all must pass, no correction is needed). *Fails*: at least one is significantly below 0
after Holm's correction over the claim's contrasts. Else *undecided at this n*. "About 0" holds when each interval
lies within one point of 0 (two one-sided tests, Schuirmann 1987; the margin is ours, the paper names none), and
fails when a contrast is significantly beyond that margin, Holm-corrected. "Most" asks for more than half.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from dfeat.report.numbers.paper import METRICS, Cell, Metric, PaperTable, TableName, paper_table
from dfeat.report.numbers.results import SetResults
from dfeat.report.numbers.statistics import Effect, holm, smallest_detectable_difference

Kind = Literal["all above 0", "most above 0", "all about 0"]
Outcome = Literal["holds", "fails", "undecided at this n"]
Weights = dict[Cell, float]
MARGIN: Final = 0.01
"""Differences within one percentage point count as similar."""


@dataclass(frozen=True)
class Source:
    """Where accuracies come from. `reach` says in words how small a difference its images can show."""

    name: str
    methods: tuple[str, ...]
    backbones: tuple[str, ...]
    levels: tuple[int, ...]
    metrics: tuple[Metric, ...]
    contrast: Callable[[Weights], Effect]
    value: Callable[[Cell], float]
    reach: str


@dataclass(frozen=True)
class Verdict:
    """What became of a claim: how many contrasts point as claimed, and the extremes by name."""

    outcome: Outcome
    as_claimed: int
    effects: tuple[tuple[str, Effect], ...]


def paper_as_source(name: TableName, confidence: float) -> Source:
    """The paper's printed table: tests take its cells as independent proportions of the printed n.

    It prints no predictions, so nothing can be paired. Models tested on the same images agree more than
    independent ones, so this errs on the side of undecided.
    """
    table = paper_table(name)
    cells = list(table.values)
    average = sum(table.values.values()) / len(cells) / 100
    unseen = _normal_quantile(confidence) * math.sqrt(2 * average * (1 - average) / table.images)
    return Source(
        name=f"{name.replace('table', 'Table ')} as printed, n = {table.images:,}",
        methods=tuple(dict.fromkeys(cell.method for cell in cells)),
        backbones=tuple(dict.fromkeys(cell.backbone for cell in cells)),
        levels=tuple(dict.fromkeys(cell.level for cell in cells)),
        metrics=tuple(metric for metric in METRICS if any(cell.metric == metric for cell in cells)),
        contrast=lambda weights: _independent_contrast(table, weights, confidence),
        value=lambda cell: table.values[cell] / 100,
        reach=f"two cells near its mean of {100 * average:.1f} % differ significantly from {100 * unseen:.1f} points on",
    )


def set_as_source(of_set: SetResults) -> Source:
    """One set of a run, its contrasts paired on the same resampled images."""
    predictions = of_set.predictions
    seeds = len(predictions.seeds)
    return Source(
        name=f"{predictions.name}, n = {of_set.resampled.images:,}, {seeds} seed{'s' * (seeds > 1)}",
        methods=predictions.methods,
        backbones=predictions.backbones,
        levels=predictions.levels,
        metrics=METRICS,
        contrast=of_set.contrast,
        value=of_set.accuracy,
        reach=_reach(of_set),
    )


def judge(kind: Kind, contrasts: list[tuple[str, Weights]], source: Source, confidence: float) -> Verdict:
    """Test the contrasts and decide; see the module's docstring."""
    effects = tuple((name, source.contrast(weights)) for name, weights in contrasts)
    alpha = 1 - confidence
    nulls = [math.copysign(MARGIN if kind == "all about 0" else 0.0, effect.estimate) for _, effect in effects]
    p_values = [effect.p(null) for (_, effect), null in zip(effects, nulls, strict=True)]
    if kind == "all about 0":
        agree = [abs(effect.estimate) <= MARGIN for _, effect in effects]
        passed = [effect.low > -MARGIN and effect.high < MARGIN for _, effect in effects]
    else:
        agree = [effect.estimate > 0 for _, effect in effects]
        passed = [ok and p < alpha for ok, p in zip(agree, p_values, strict=True)]
    against = [p < alpha and not ok for p, ok in zip(holm(p_values), agree, strict=True)]
    if kind == "most above 0":
        half = len(effects) / 2
        outcome: Outcome = "holds" if sum(passed) > half else "fails" if sum(against) >= half else "undecided at this n"
    else:
        outcome = "holds" if all(passed) else "fails" if any(against) else "undecided at this n"
    return Verdict(outcome, sum(agree), effects)


def _independent_contrast(table: PaperTable, weights: Weights, confidence: float) -> Effect:
    shares = {cell: table.values[cell] / 100 for cell in weights}
    estimate = sum(weight * shares[cell] for cell, weight in weights.items())
    variance = sum(weight**2 * shares[cell] * (1 - shares[cell]) for cell, weight in weights.items()) / table.images
    half = _normal_quantile(confidence) * math.sqrt(variance)
    return Effect(estimate, estimate - half, estimate + half, math.sqrt(variance), math.inf)


def _normal_quantile(confidence: float) -> float:
    from scipy.stats import norm

    return float(norm.isf((1 - confidence) / 2))


def _reach(of_set: SetResults) -> str:
    """The smallest difference from None that a paired test would find, at the median share of discordant images."""
    predictions = of_set.predictions
    shares = [
        float(np.mean(predictions.correct(cell) != predictions.correct(cell._replace(method="none"))))
        for method in predictions.methods
        if method != "none" and "none" in predictions.methods
        for backbone in predictions.backbones
        for level in predictions.levels
        for cell in [Cell(method, backbone, level, "top1")]
    ]
    if not shares:
        return "no method is compared with None"
    discordant = float(np.median(shares))
    smallest = smallest_detectable_difference(of_set.resampled.images, discordant, 1 - of_set.confidence)
    found = f"{100 * smallest:.1f} points" if math.isfinite(smallest) else "no difference"
    return (
        f"with {100 * discordant:.1f} % of images discordant between a method and None (the median), one model "
        f"against one is told apart with 80 % power from {found} on (Connor 1987)"
    )
