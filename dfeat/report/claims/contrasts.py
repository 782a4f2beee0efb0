"""The contrasts of accuracies that decide the paper's claims.

What enters: `Accuracies`. What leaves: named contrasts, each the weights of a sum of accuracies; none where a method or
backbone of the claim is missing. Where a contrast takes "the best" of several cells, they are the best by these very
numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, product
from typing import Final

from dfeat.methods import REFERENCE
from dfeat.report.claims.verdicts import Accuracies
from dfeat.report.numbers.paper import Cell, Metric, backbone_name, method_name
from dfeat.report.numbers.results import Weights

Contrasts = Iterator[tuple[str, Weights]]
OURS: Final = ("sd_inpaint", "sd_features")
"""The two augmentations that the paper proposes."""
OTHERS: Final = ("blackout", "replace", "cutmix")


def over_none(methods: Sequence[str]) -> Callable[[Accuracies], Contrasts]:
    """Each of these methods less None, for each backbone and level."""
    return pairs(methods, [REFERENCE])


def pairs(first: Sequence[str], second: Sequence[str]) -> Callable[[Accuracies], Contrasts]:
    """Each method of `first` less each of `second`, for each backbone and level."""

    def contrasts(of: Accuracies) -> Contrasts:
        for a, b in product(_present(of, first), _present(of, second)):
            for backbone, level in product(of.backbones, of.levels):
                cell, loss = Cell(a, backbone, level, "top1"), f" {level} %" if len(of.levels) > 1 else ""
                name = f"{method_name(a)} over {method_name(b)}, {backbone_name(backbone)}{loss}"
                yield name, {cell: 1.0, cell._replace(method=b): -1.0}

    return contrasts


def best_of_column(of: Accuracies) -> Contrasts:
    """The best cell of ours less the best other cell, over both architectures, as the table's caption reads."""
    for metric, level in product(of.metrics, of.levels):
        ours, rest = (_column(of, methods, of.backbones, level, metric) for methods in (OURS, _others(of, OURS)))
        yield from _lead(of, ours, rest, f"{_metric_name(metric)}, {level} %", with_backbone=True)


def best_of_architecture(of: Accuracies) -> Contrasts:
    """The same within each architecture: the best of ours less the best of the others, as the rows are read."""
    for backbone, metric, level in product(of.backbones, of.metrics, of.levels):
        ours, rest = (_column(of, methods, [backbone], level, metric) for methods in (OURS, _others(of, OURS)))
        yield from _lead(of, ours, rest, f"{backbone_name(backbone)} {_metric_name(metric)}, {level} %")


def leads(first: Sequence[str], second: Sequence[str] = ()) -> Callable[[Accuracies], Contrasts]:
    """The best of `first` less the best of `second`, by default of all other methods, for each backbone and level."""

    def contrasts(of: Accuracies) -> Contrasts:
        for backbone, level in product(of.backbones, of.levels):
            ours = _column(of, first, [backbone], level, "top1")
            rest = _column(of, second or _others(of, first), [backbone], level, "top1")
            yield from _lead(of, ours, rest, f"{backbone_name(backbone)} {level} %")

    return contrasts


def gain_slope(of: Accuracies) -> Contrasts:
    """The least-squares slope of the gain over None against information loss, per 10 points of loss."""
    mean = sum(of.levels) / len(of.levels)
    spread = sum((level - mean) ** 2 for level in of.levels)
    for method, backbone in product(_present(of, OURS), of.backbones) if REFERENCE in of.methods and spread else ():
        # slope = sum_l (l - mean) gain_l / sum_l (l - mean)^2
        terms = ((backbone, level, 10 * (level - mean) / spread) for level in of.levels)
        yield f"{method_name(method)}, {backbone_name(backbone)}", _gains(method, terms)


def gains_alike(of: Accuracies) -> Contrasts:
    """Gain over None of one architecture less that of another, the mean over levels."""
    share = 1 / len(of.levels)
    for method in _present(of, OTHERS + OURS) if REFERENCE in of.methods else ():
        for a, b in combinations(of.backbones, 2):
            terms = ((backbone, level, sign) for level in of.levels for backbone, sign in ((a, share), (b, -share)))
            yield f"{method_name(method)}, {backbone_name(a)} less {backbone_name(b)}", _gains(method, terms)


def swin_over_convnext(of: Accuracies) -> Contrasts:
    """Swin less ConvNeXt for each method, at each level above 0 or the only one."""
    occluded = [level for level in of.levels if level > 0 or len(of.levels) == 1]
    for method, level in product(of.methods, occluded) if {"swin", "convnext"} <= set(of.backbones) else ():
        swin = Cell(method, "swin", level, "top1")
        loss = f", {level} %" if len(of.levels) > 1 else ""
        yield f"{method_name(method)}{loss}", {swin: 1.0, swin._replace(backbone="convnext"): -1.0}


def _gains(method: str, terms: Iterable[tuple[str, int, float]]) -> Weights:
    """The sum over (backbone, level, weight) of weight times gain over None."""
    weights: Weights = {}
    for backbone, level, weight in terms:
        cell = Cell(method, backbone, level, "top1")
        weights |= {cell: weight, cell.none: -weight}
    return weights


def _present(of: Accuracies, methods: Iterable[str]) -> list[str]:
    return [method for method in methods if method in of.methods]


def _others(of: Accuracies, methods: Sequence[str]) -> list[str]:
    return [method for method in of.methods if method not in methods]


def _metric_name(metric: Metric) -> str:
    return metric.replace("top", "top-")


def _column(of: Accuracies, methods: Sequence[str], backbones: Sequence[str], level: int, metric: Metric) -> list[Cell]:
    """The cells of those methods that there are, at one level and metric."""
    return [Cell(method, backbone, level, metric) for method in _present(of, methods) for backbone in backbones]


def _lead(of: Accuracies, ours: list[Cell], rest: list[Cell], place: str, *, with_backbone: bool = False) -> Contrasts:
    """The best cell of `ours` less the best of `rest`."""
    if ours and rest:
        best, rival = max(ours, key=of.value), max(rest, key=of.value)
        first, second = (
            f"{method_name(cell.method)}{f' {backbone_name(cell.backbone)}' * with_backbone}" for cell in (best, rival)
        )
        yield f"{place}: {first} over {second}", {best: 1.0, rival: -1.0}
