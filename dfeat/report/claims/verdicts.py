"""How a claim is decided: contrasts of accuracies, their tests, and two verdicts.

What enters: `Accuracies` (a table as the paper prints it, or one set of a run) and contrasts that a claim places above 0
or about 0. What leaves: a `Verdict`: whether the values as they stand agree with the claim, and what n supports.

*As they stand*: true when each contrast has the claimed sign, or lies within one point of 0 where the claim is "about 0";
"most" means more than half. This is arithmetic, whatever the uncertainty.

*Supported*: the claim *holds* when each contrast is significantly above 0 on its own (an intersection-union test, Berger
1982, Technometrics 24:295: where all must pass, no correction is needed). It *fails* when at least one is significantly
below 0 after Holm's correction over the claim's contrasts, or when the sentence says "significantly" and no contrast is
significant, even uncorrected. Else it is *undecided at this n*. "Most" holds when more than half are significantly
above 0 together: with r the least number that is more than half of m, (m - r + 1) times the r-th smallest p must be
significant (a partial conjunction, Benjamini and Heller 2008, Biometrics 64:1215; r = m is the rule for all). "About 0" holds when each interval lies within one point of
0 (two one-sided tests, Schuirmann 1987; the margin is ours, the paper names none), and fails when a contrast is
significantly beyond that margin, Holm-corrected.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

import numpy as np

from dfeat.config.labels import Labels
from dfeat.methods import REFERENCE
from dfeat.report.numbers.paper import METRICS, Cell, Metric, PaperTable, TableName, paper_table
from dfeat.report.numbers.results import SetResults, Weights
from dfeat.report.numbers.statistics import ROUNDING, Effect, holm
from dfeat.report.numbers.text import unique

Kind = Literal["all above 0", "most above 0", "all about 0"]
Outcome = Literal["holds", "fails", "undecided at this n"]
MARGIN: Final = 0.01
"""Differences within one percentage point count as similar."""
PAIRED: Final = 0.65
"""The error of a paired difference on the demo, as a share of that of an independent one (docs/evidence.md)."""
_OF_PRINTED: Final = (
    "The cells are taken as independent, since the paper prints no predictions. As to images this is conservative: its "
    f"models were tested on the same ones, and on the demo the error of a paired difference is about {PAIRED} of that of an "
    "independent one (docs/evidence.md), so a paired test could decide more. The spread of training runs, whose number "
    "the paper does not give, is left out"
)
_OF_ONE_SEED: Final = "With one seed, tests exclude run-to-run variation: another training may decide otherwise"


class Accuracies(NamedTuple):
    """Accuracies that claims are tested on.

    `reach` states how small a difference their images can show, `source` the verb of the first verdict ("printed" or
    "measured"), `caveat` what the second verdict does not account for.
    """

    name: str
    methods: tuple[str, ...]
    backbones: tuple[str, ...]
    levels: tuple[int, ...]
    metrics: tuple[Metric, ...]
    contrast: Callable[[Weights], Effect]
    value: Callable[[Cell], float]
    reach: str
    source: Literal["printed", "measured"]
    images: int
    caveat: str
    labels: Labels
    label: str = ""
    """The name without its counts."""


class Tested(NamedTuple):
    """A contrast and its test: whether its estimate agrees with the claim, and whether its test passes or refutes it."""

    name: str
    weights: Weights
    effect: Effect
    agrees: bool
    passes: bool
    refutes: bool


class Verdict(NamedTuple):
    """The two results for a claim, whether it is true of the values and what n supports, and every contrast."""

    true: bool
    outcome: Outcome
    contrasts: tuple[Tested, ...]

    def count(self, result: Literal["agrees", "passes", "refutes"]) -> int:
        """The number of contrasts with that result."""
        return sum(getattr(contrast, result) for contrast in self.contrasts)


def printed_accuracies(name: TableName, confidence: float, labels: Labels) -> Accuracies:
    """The paper's printed table: tests take its cells as independent proportions of the printed n.

    It prints no predictions, so nothing can be paired. Models tested on the same images agree more than independent
    ones, so as to images this is conservative. The spread of training runs, which the paper does not give, is left out.
    """
    table = paper_table(name)
    average = math.fsum(table.values.values()) / len(table.values) / 100
    unseen = 100 * _normal_quantile(confidence) * math.sqrt(2 * average * (1 - average) / table.images)
    wide = f", so no interval lies within {100 * MARGIN:g} point of 0, and no claim of “about 0” can hold"
    return Accuracies(
        name=f"{name.replace('table', 'Table ')} as printed, n = {table.images:,}",
        methods=tuple(unique(cell.method for cell in table.values)),
        backbones=tuple(unique(cell.backbone for cell in table.values)),
        levels=tuple(unique(cell.level for cell in table.values)),
        metrics=tuple(metric for metric in METRICS if any(cell.metric == metric for cell in table.values)),
        contrast=lambda weights: _independent_contrast(table, weights, confidence),
        value=lambda cell: table.values[cell] / 100,
        reach=f"two accuracies near {100 * average:.1f} %, the table's mean, must differ by at least {unseen:.1f} point{'s' * (f'{unseen:.1f}' != '1.0')} to be significant"
        + wide * (unseen > 100 * MARGIN),
        source="printed",
        images=table.images,
        caveat=_OF_PRINTED,
        labels=labels,
    )


def set_accuracies(results: SetResults, labels: Labels) -> Accuracies:
    """One set of a run, its contrasts paired on the same images."""
    made = results.predictions
    seeds = len(made.seeds)
    label = labels.set(made.name)
    name = f"{label}, n = {results.outcomes.images:,}, {seeds} seed{'s' * (seeds > 1)}"
    return Accuracies(
        name, made.methods, made.backbones, made.levels, METRICS, results.contrast, results.accuracy, _reach(results),
        "measured", results.outcomes.images, _OF_ONE_SEED if seeds == 1 else "", labels, label,
    )  # fmt: skip


def judge(
    kind: Kind,
    contrasts: list[tuple[str, Weights]],
    accuracies: Accuracies,
    confidence: float,
    significantly: bool = False,
) -> Verdict:
    """Test the contrasts and decide; see the module's docstring.

    Args:
        kind: Where the claim places its contrasts.
        contrasts: At least one contrast, by name.
        accuracies: What they are contrasts of.
        confidence: The level of intervals; tests are at 1 - confidence.
        significantly: Whether the sentence itself says that the differences are significant.
    """
    names, weights = zip(*contrasts, strict=True)
    effects = [accuracies.contrast(weight) for weight in weights]
    alpha, estimates = 1 - confidence, [effect.estimate for effect in effects]
    margin = MARGIN if kind == "all about 0" else 0.0
    p_values = [effect.p(math.copysign(margin, effect.estimate)) for effect in effects]
    if kind == "all about 0":
        # equivalence by two one-sided tests: -margin < low and high < margin
        agrees = [abs(estimate) <= margin + ROUNDING for estimate in estimates]
        passes = [effect.low > -margin and effect.high < margin for effect in effects]
    else:
        # intersection-union: each contrast passes at alpha on its own
        agrees = [estimate > ROUNDING for estimate in estimates]
        passes = [ok and p < alpha for ok, p in zip(agrees, p_values, strict=True)]
    refutes = [p < alpha and not ok for p, ok in zip(holm(p_values), agrees, strict=True)]
    half = len(effects) / 2
    true, holds, fails = all(agrees), all(passes), any(refutes)
    if kind == "most above 0":
        true, holds, fails = sum(agrees) > half, _most_above(p_values, agrees, alpha), sum(refutes) >= half
    fails = fails or (significantly and not any(passes))
    outcome: Outcome = "holds" if holds else "fails" if fails else "undecided at this n"
    return Verdict(true, outcome, tuple(map(Tested, names, weights, effects, agrees, passes, refutes)))


def _most_above(p_values: list[float], agrees: list[bool], alpha: float) -> bool:
    """Whether more than half are above 0: the test of a partial conjunction."""
    above = sorted(p if ok else 1.0 for p, ok in zip(p_values, agrees, strict=True))
    needed = len(above) // 2 + 1
    return (len(above) - needed + 1) * above[needed - 1] < alpha


def _independent_contrast(table: PaperTable, weights: Weights, confidence: float) -> Effect:
    shares = {cell: table.values[cell] / 100 for cell in weights}
    # sum_i w_i p_i with variance sum_i w_i^2 p_i (1 - p_i) / n
    estimate = math.fsum(weight * shares[cell] for cell, weight in weights.items())
    variance = (
        math.fsum(weight**2 * shares[cell] * (1 - shares[cell]) for cell, weight in weights.items()) / table.images
    )
    half = _normal_quantile(confidence) * math.sqrt(variance)
    return Effect(estimate, estimate - half, estimate + half, math.sqrt(variance), math.inf, estimate)


def _normal_quantile(confidence: float) -> float:
    from scipy.stats import norm

    return float(norm.isf((1 - confidence) / 2))


def _reach(results: SetResults) -> str:
    """The smallest true difference from None that a test on its own would find, the median over methods and cells."""
    made, alpha = results.predictions, 1 - results.confidence
    smallest = [
        results.difference(cell, cell.none).detectable(alpha)
        for cell in made.cells("top1")
        if cell.method != REFERENCE and REFERENCE in made.methods
    ]
    if not smallest:
        return "nothing is known of differences from None, since no method is compared with it"
    return (
        f"a true difference from None of {100 * float(np.median(smallest)):.1f} points (the median over methods and cells) "
        f"is significant in a test of its own with 80 % power"
    )
