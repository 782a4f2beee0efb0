"""How a claim is decided: contrasts of accuracies, their tests, and a verdict.

What enters: `Accuracies` (a table as the paper prints it, or one set of a run) and contrasts that a claim places above 0
or about 0. What leaves: a `Verdict`.

*Holds*: each contrast is significantly above 0 on its own (an intersection-union test, Berger 1982,
Technometrics 24:295: where all must pass, no correction is needed). *Fails*: at least one is significantly below 0
after Holm's correction over the claim's contrasts. Else *undecided at this n*. "About 0" holds when each interval
lies within one point of 0 (two one-sided tests, Schuirmann 1987; the margin is ours, the paper names none), and
fails when a contrast is significantly beyond that margin, Holm-corrected. "Most" means more than half.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

import numpy as np

from dfeat.methods import REFERENCE
from dfeat.report.numbers.paper import METRICS, Cell, Metric, PaperTable, TableName, paper_table
from dfeat.report.numbers.results import SetResults, Weights
from dfeat.report.numbers.statistics import Effect, holm, smallest_detectable_difference
from dfeat.report.numbers.text import unique

Kind = Literal["all above 0", "most above 0", "all about 0"]
Outcome = Literal["holds", "fails", "undecided at this n"]
MARGIN: Final = 0.01
"""Differences within one percentage point count as similar."""


class Accuracies(NamedTuple):
    """Accuracies that claims are tested on. `reach` states how small a difference their images can show."""

    name: str
    methods: tuple[str, ...]
    backbones: tuple[str, ...]
    levels: tuple[int, ...]
    metrics: tuple[Metric, ...]
    contrast: Callable[[Weights], Effect]
    value: Callable[[Cell], float]
    reach: str


class Verdict(NamedTuple):
    """The result for a claim: how many contrasts have the claimed sign, and every effect by name."""

    outcome: Outcome
    as_claimed: int
    effects: tuple[tuple[str, Effect], ...]


def printed_accuracies(name: TableName, confidence: float) -> Accuracies:
    """The paper's printed table: tests take its cells as independent proportions of the printed n.

    It prints no predictions, so nothing can be paired. Models tested on the same images agree more than
    independent ones, so this leaves claims undecided rather than too early decided.
    """
    table = paper_table(name)
    average = sum(table.values.values()) / len(table.values) / 100
    unseen = _normal_quantile(confidence) * math.sqrt(2 * average * (1 - average) / table.images)
    return Accuracies(
        name=f"{name.replace('table', 'Table ')} as printed, n = {table.images:,}",
        methods=tuple(unique(cell.method for cell in table.values)),
        backbones=tuple(unique(cell.backbone for cell in table.values)),
        levels=tuple(unique(cell.level for cell in table.values)),
        metrics=tuple(metric for metric in METRICS if any(cell.metric == metric for cell in table.values)),
        contrast=lambda weights: _independent_contrast(table, weights, confidence),
        value=lambda cell: table.values[cell] / 100,
        reach=f"two cells near its mean of {100 * average:.1f} % differ significantly from {100 * unseen:.1f} points on",
    )


def set_accuracies(results: SetResults) -> Accuracies:
    """One set of a run, its contrasts paired on the same resampled images."""
    made = results.predictions
    seeds = len(made.seeds)
    name = f"{made.name}, n = {results.resampled.images:,}, {seeds} seed{'s' * (seeds > 1)}"
    return Accuracies(
        name, made.methods, made.backbones, made.levels, METRICS, results.contrast, results.accuracy, _reach(results)
    )


def judge(kind: Kind, contrasts: list[tuple[str, Weights]], accuracies: Accuracies, confidence: float) -> Verdict:
    """Test the contrasts and decide; see the module's docstring."""
    effects = tuple((name, accuracies.contrast(weights)) for name, weights in contrasts)
    alpha = 1 - confidence
    nulls = [math.copysign(MARGIN if kind == "all about 0" else 0.0, effect.estimate) for _, effect in effects]
    p_values = [effect.p(null) for (_, effect), null in zip(effects, nulls, strict=True)]
    if kind == "all about 0":
        # equivalence by two one-sided tests: -margin < low and high < margin
        agree = [abs(effect.estimate) <= MARGIN for _, effect in effects]
        passed = [effect.low > -MARGIN and effect.high < MARGIN for _, effect in effects]
    else:
        # intersection-union: each contrast passes at alpha on its own
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
    # sum_i w_i p_i with variance sum_i w_i^2 p_i (1 - p_i) / n
    estimate = sum(weight * shares[cell] for cell, weight in weights.items())
    variance = sum(weight**2 * shares[cell] * (1 - shares[cell]) for cell, weight in weights.items()) / table.images
    half = _normal_quantile(confidence) * math.sqrt(variance)
    return Effect(estimate, estimate - half, estimate + half, math.sqrt(variance), math.inf)


def _normal_quantile(confidence: float) -> float:
    from scipy.stats import norm

    return float(norm.isf((1 - confidence) / 2))


def _reach(results: SetResults) -> str:
    """The smallest difference from None that a paired test would find, at the median share of discordant images."""
    made = results.predictions
    shares = [
        float(np.mean(made.correct(cell) != made.correct(cell.none)))
        for cell in made.cells("top1")
        if cell.method != REFERENCE and REFERENCE in made.methods
    ]
    if not shares:
        return "no method is compared with None"
    discordant = float(np.median(shares))
    smallest = smallest_detectable_difference(results.resampled.images, discordant, 1 - results.confidence)
    found = f"{100 * smallest:.1f} points" if math.isfinite(smallest) else "no difference"
    return (
        f"with {100 * discordant:.1f} % of images discordant between a method and None (the median), one model "
        f"against one is told apart with 80 % power from {found} on (Connor 1987)"
    )
