"""The contrasts of accuracies that decide the paper's claims.

What enters: `Accuracies`, and the methods that a claim names. What leaves: named contrasts, each the weights of a sum of
accuracies; none where a method or backbone of the claim is missing. Where a contrast takes "the best" of several cells,
they are the best by these very numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, product
from typing import Final

from dfeat.methods import REFERENCE
from dfeat.report.claims.verdicts import Accuracies
from dfeat.report.numbers.paper import Cell, Metric
from dfeat.report.numbers.results import Weights

Contrasts = Iterator[tuple[str, Weights]]
Names = Sequence[str]


def pairs(of: Accuracies, methods: Names, others: Names) -> Contrasts:
    """Each of `methods` less each of `others`, for each backbone and level."""
    for a, b, backbone, level in product(_present(of, methods), _present(of, others), of.backbones, of.levels):
        cell, loss = Cell(a, backbone, level, "top1"), f" {level} %" if len(of.levels) > 1 else ""
        name = f"{of.labels.method(a)} over {of.labels.method(b)}, {of.labels.backbone(backbone)}{loss}"
        yield name, {cell: 1.0, cell._replace(method=b): -1.0}


def best_of_column(of: Accuracies, methods: Names, others: Names) -> Contrasts:
    """The best cell of `methods` less the best other cell, over both architectures, as the table's caption reads."""
    for metric, level in product(of.metrics, of.levels):
        place = f"{_metric_name(metric)}, {level} %"
        yield from _lead(of, methods, others, of.backbones, level, metric, place, with_backbone=True)


def best_of_architecture(of: Accuracies, methods: Names, others: Names) -> Contrasts:
    """The same within each architecture, as the table's rows read."""
    for backbone, metric, level in product(of.backbones, of.metrics, of.levels):
        place = f"{of.labels.backbone(backbone)} {_metric_name(metric)}, {level} %"
        yield from _lead(of, methods, others, [backbone], level, metric, place)


def leads(of: Accuracies, methods: Names, others: Names) -> Contrasts:
    """The best of `methods` less the best of `others`, for each backbone and level."""
    for backbone, level in product(of.backbones, of.levels):
        yield from _lead(of, methods, others, [backbone], level, "top1", f"{of.labels.backbone(backbone)} {level} %")


def leads_where_occluded(of: Accuracies, methods: Names, others: Names) -> Contrasts:
    """The same at the levels that are degrees of occlusion: those above 0 %."""
    return leads(of._replace(levels=_occluded(of)), methods, others)


def gain_slope(of: Accuracies, methods: Names, _: Names) -> Contrasts:
    """The least-squares slope of the gain over None against information loss, per 10 points of loss."""
    mean = sum(of.levels) / len(of.levels)
    spread = math.fsum((level - mean) ** 2 for level in of.levels)
    for method, backbone in product(_present(of, methods), of.backbones) if REFERENCE in of.methods and spread else ():
        # slope = sum_l (l - mean) gain_l / sum_l (l - mean)^2
        terms = ((backbone, level, 10 * (level - mean) / spread) for level in of.levels)
        yield f"{of.labels.method(method)}, {of.labels.backbone(backbone)}", _gains(method, terms)


def gains_alike(of: Accuracies, methods: Names, _: Names) -> Contrasts:
    """Gain over None of one architecture less that of another, the mean over levels."""
    share = 1 / len(of.levels)
    for method in _present(of, methods) if REFERENCE in of.methods else ():
        for a, b in combinations(of.backbones, 2):
            terms = ((backbone, level, sign) for level in of.levels for backbone, sign in ((a, share), (b, -share)))
            yield (
                f"{of.labels.method(method)}, {of.labels.backbone(a)} less {of.labels.backbone(b)}",
                _gains(method, terms),
            )


def swin_over_convnext(of: Accuracies, _: Names, __: Names) -> Contrasts:
    """Swin less ConvNeXt for each method of the table, at each level above 0 or the only one."""
    for method, level in product(of.methods, _occluded(of)) if {"swin", "convnext"} <= set(of.backbones) else ():
        swin = Cell(method, "swin", level, "top1")
        loss = f", {level} %" if len(of.levels) > 1 else ""
        yield f"{of.labels.method(method)}{loss}", {swin: 1.0, swin._replace(backbone="convnext"): -1.0}


CONTRASTS: Final[dict[str, Callable[[Accuracies, Names, Names], Contrasts]]] = {
    contrasts.__name__: contrasts
    for contrasts in (
        pairs, best_of_column, best_of_architecture, leads, leads_where_occluded, gain_slope, gains_alike,
        swin_over_convnext,
    )
}  # fmt: skip
"""The contrasts by the name that `paper_claims.json` has for them."""


def _gains(method: str, terms: Iterable[tuple[str, int, float]]) -> Weights:
    """The sum over (backbone, level, weight) of weight times gain over None."""
    weights: Weights = {}
    for backbone, level, weight in terms:
        cell = Cell(method, backbone, level, "top1")
        weights |= {cell: weight, cell.none: -weight}
    return weights


def _occluded(of: Accuracies) -> tuple[int, ...]:
    """The levels above 0, or the only one: a set of a single level shows images that are occluded as they are."""
    return tuple(level for level in of.levels if level > 0 or len(of.levels) == 1)


def _present(of: Accuracies, methods: Iterable[str]) -> list[str]:
    return [method for method in methods if method in of.methods]


def _metric_name(metric: Metric) -> str:
    return metric.replace("top", "top-")


def _lead(
    of: Accuracies, methods: Names, others: Names, backbones: Names, level: int, metric: Metric, place: str, *,
    with_backbone: bool = False,
) -> Contrasts:  # fmt: skip
    """The best cell of `methods` less the best of `others`, by default of all other methods, over these backbones."""
    others = others or [method for method in of.methods if method not in methods]
    ours, rest = (
        [Cell(method, backbone, level, metric) for method in _present(of, names) for backbone in backbones]
        for names in (methods, others)
    )
    if ours and rest:
        best, rival = max(ours, key=of.value), max(rest, key=of.value)
        first, second = (
            f"{of.labels.method(cell.method)}{f' {of.labels.backbone(cell.backbone)}' * with_backbone}"
            for cell in (best, rival)
        )
        yield f"{place}: {first} over {second}", {best: 1.0, rival: -1.0}
