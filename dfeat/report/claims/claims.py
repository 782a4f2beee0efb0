"""What the paper says in words, put to its own numbers and to a run's [Abstract, Sec. 4.3, Sec. 5].

What enters: a run's evaluation folder and settings. What leaves: `claims.md`, every sentence of the paper that
accuracies can decide, with its contrasts, test and verdict; once for the paper's printed tables, once for this
run. `verdicts` says what holds, fails and undecided mean. Where a contrast takes "the best" of several cells, they
are the best by these very numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Final

from dfeat.config import Settings
from dfeat.report.claims.cost_claim import cost_claim
from dfeat.report.claims.printed import arithmetic
from dfeat.report.claims.verdicts import MARGIN, Kind, Source, Verdict, Weights, judge, paper_as_source, set_as_source
from dfeat.report.numbers.paper import Cell, TableName, backbone_name, method_name, paper_source, paper_table
from dfeat.report.numbers.results import load_results
from dfeat.report.numbers.sets import sets_of
from dfeat.report.numbers.statistics import Effect
from dfeat.report.tables.layout import markdown_escaped
from dfeat.storage.atomic import write_text

Contrasts = Iterator[tuple[str, Weights]]
TABLES: Final[tuple[TableName, ...]] = ("table1", "table2")
OURS: Final = ("sd_inpaint", "sd_features")
"""The two augmentations that the paper proposes."""
OTHERS: Final = ("blackout", "replace", "cutmix")


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, where it stands, and the contrasts that say whether it is so."""

    sentence: str
    where: str
    table: TableName
    test: str
    kind: Kind
    contrasts: Callable[[Source], Contrasts]


def _against_none(methods: Iterable[str]) -> Callable[[Source], Contrasts]:
    def contrasts(source: Source) -> Contrasts:
        for method in _present(source, methods):
            for place, cell in _places(source, method):
                if "none" in source.methods:
                    yield f"{method_name(method)} over None, {place}", {cell: 1.0, cell._replace(method="none"): -1.0}

    return contrasts


def _best_of_column(source: Source) -> Contrasts:
    """The best cell of ours less the best other cell, over both architectures, as the table's caption reads."""
    for metric in source.metrics:
        for level in source.levels:
            ours = [Cell(m, b, level, metric) for m in _present(source, OURS) for b in source.backbones]
            rest = [Cell(m, b, level, metric) for m in source.methods if m not in OURS for b in source.backbones]
            yield from _lead(source, ours, rest, f"{metric.replace('top', 'top-')}, {level} %", _model)


def _best_of_architecture(source: Source) -> Contrasts:
    """The same within each architecture: the best of ours less the best of the others, as the rows are read."""
    for backbone in source.backbones:
        for metric in source.metrics:
            for level in source.levels:
                ours = [Cell(m, backbone, level, metric) for m in _present(source, OURS)]
                rest = [Cell(m, backbone, level, metric) for m in source.methods if m not in OURS]
                place = f"{backbone_name(backbone)} {metric.replace('top', 'top-')}, {level} %"
                yield from _lead(source, ours, rest, place, _method)


def _gain_grows(source: Source) -> Contrasts:
    """The least-squares slope of the gain over None against information loss, per 10 points of loss."""
    mean = sum(source.levels) / len(source.levels)
    spread = sum((level - mean) ** 2 for level in source.levels)
    for method in _present(source, OURS) if "none" in source.methods and spread else ():
        for backbone in source.backbones:
            weights: Weights = {}
            for level in source.levels:
                weights[Cell(method, backbone, level, "top1")] = 10 * (level - mean) / spread
                weights[Cell("none", backbone, level, "top1")] = -10 * (level - mean) / spread
            yield f"{method_name(method)}, {backbone_name(backbone)}", weights


def _best_of_ours(source: Source) -> Contrasts:
    for backbone in source.backbones:
        for level in source.levels:
            ours = [Cell(m, backbone, level, "top1") for m in _present(source, OURS)]
            rest = [Cell(m, backbone, level, "top1") for m in _present(source, OTHERS)]
            yield from _lead(source, ours, rest, f"{backbone_name(backbone)} {level} %", _method)


def _features_lead(source: Source) -> Contrasts:
    for backbone in source.backbones:
        for level in source.levels:
            features = [Cell(m, backbone, level, "top1") for m in _present(source, ["sd_features"])]
            rest = [Cell(m, backbone, level, "top1") for m in source.methods if m != "sd_features"]
            yield from _lead(source, features, rest, f"{backbone_name(backbone)} {level} %", _method)


def _pairs(first: Iterable[str], second: tuple[str, ...]) -> Callable[[Source], Contrasts]:
    def contrasts(source: Source) -> Contrasts:
        for a in _present(source, first):
            for b in _present(source, second):
                for place, cell in _places(source, a):
                    name = f"{method_name(a)} over {method_name(b)}, {place}"
                    yield name, {cell: 1.0, cell._replace(method=b): -1.0}

    return contrasts


def _gains_alike(source: Source) -> Contrasts:
    """Gain over None of one architecture less that of another, the mean over levels."""
    share = 1 / len(source.levels)
    for method in _present(source, OTHERS + OURS) if "none" in source.methods else ():
        for a, b in combinations(source.backbones, 2):
            weights: Weights = {}
            for level in source.levels:
                for backbone, sign in ((a, share), (b, -share)):
                    weights[Cell(method, backbone, level, "top1")] = sign
                    weights[Cell("none", backbone, level, "top1")] = -sign
            yield f"{method_name(method)}, {backbone_name(a)} less {backbone_name(b)}", weights


def _swin_over_convnext(source: Source) -> Contrasts:
    occluded = [level for level in source.levels if level > 0 or len(source.levels) == 1]
    for method in source.methods if {"swin", "convnext"} <= set(source.backbones) else ():
        for level in occluded:
            swin = Cell(method, "swin", level, "top1")
            loss = f", {level} %" if len(source.levels) > 1 else ""
            yield f"{method_name(method)}{loss}", {swin: 1.0, swin._replace(backbone="convnext"): -1.0}


def _present(source: Source, methods: Iterable[str]) -> list[str]:
    return [method for method in methods if method in source.methods]


def _places(source: Source, method: str) -> Iterator[tuple[str, Cell]]:
    for backbone in source.backbones:
        for level in source.levels:
            loss = f" {level} %" if len(source.levels) > 1 else ""
            yield f"{backbone_name(backbone)}{loss}", Cell(method, backbone, level, "top1")


def _lead(source: Source, ours: list[Cell], rest: list[Cell], place: str, name: Callable[[Cell], str]) -> Contrasts:
    """The best cell of `ours` less the best of `rest`."""
    if ours and rest:
        best, rival = max(ours, key=source.value), max(rest, key=source.value)
        yield f"{place}: {name(best)} over {name(rival)}", {best: 1.0, rival: -1.0}


def _model(cell: Cell) -> str:
    return f"{method_name(cell.method)} {backbone_name(cell.backbone)}"


def _method(cell: Cell) -> str:
    return method_name(cell.method)


CLAIMS: Final[tuple[Claim, ...]] = (
    Claim(
        "input space and embedding space augmentations help improve the accuracy of a baseline model with no "
        "augmentations for both ConvNeXt and Swin architectures",
        "Sec. 4.3", "table1", "each of ours less None, for each architecture and loss", "all above 0",
        _against_none(OURS),
    ),
    Claim(
        "The highest top-1/top-5 accuracy for each information loss column lies in one of the two proposed "
        "input/embedding space augmentations",
        "Table 1, Sec. 4.3", "table1", "best cell of ours less best other cell, in each column", "all above 0",
        _best_of_column,
    ),
    Claim(
        "The highest top-1/top-5 accuracy for each information loss column lies in one of the two proposed "
        "input/embedding space augmentations",
        "Table 1, Sec. 4.3, read for each architecture", "table1",
        "better of ours less best other method, for each architecture, column and metric", "all above 0",
        _best_of_architecture,
    ),
    Claim(
        "larger performance gains associated with higher information loss",
        "Table 1, Sec. 4.3", "table1", "slope of the gain over None, in points per 10 % of loss", "all above 0",
        _gain_grows,
    ),
    Claim(
        "diffusion based augmentation methods outperform other augmentation methods for most degrees of occlusion",
        "Sec. 4.3", "table1", "better of ours less best other augmentation, for each architecture and loss",
        "most above 0", _best_of_ours,
    ),
    Claim(
        "CutMix can be seen performing similar to our proposed methods",
        "Table 1", "table1", "each of ours less CutMix, for each architecture and loss", "all about 0",
        _pairs(OURS, ("cutmix",)),
    ),
    Claim(
        "diffusion feature augmentations showing the best performance",
        "Sec. 5", "table1", "SD Features less the best other method, for each architecture and loss", "all above 0",
        _features_lead,
    ),
    Claim(
        "the augmentation of diffusion based features performs similarly to diffusion based inpainting",
        "Sec. 5", "table1", "SD Features less SD Inpaint, for each architecture and loss", "all about 0",
        _pairs(["sd_features"], ("sd_inpaint",)),
    ),
    Claim(
        "both ConvNeXt and Swin architectures [...] seem to both benefit similarly from all the proposed "
        "augmentation techniques",
        "Sec. 4.3", "table1", "gain over None of one architecture less the other's, the mean over losses",
        "all about 0", _gains_alike,
    ),
    Claim(
        "apparent higher robustness (higher accuracy) to occlusions for Swin vs. ConvNeXt",
        "Sec. 4.3", "table1", "Swin less ConvNeXt, for each method and loss above 0", "all above 0",
        _swin_over_convnext,
    ),
    Claim(
        "Both ConvNeXt and Swin architectures benefit from all the proposed types of augmentations compared to the "
        "No Augmentation baseline",
        "Table 2", "table2", "each augmentation less None, for each architecture", "all above 0",
        _against_none(OTHERS + OURS),
    ),
    Claim(
        "Our proposed augmentations give significantly higher classification accuracies compared to other "
        "augmentation techniques on real-world occluded data",
        "Table 2, Sec. 4.3, Sec. 5", "table2", "each of ours less each other augmentation, for each architecture",
        "all above 0", _pairs(OURS, OTHERS),
    ),
    Claim(
        "the augmentation of diffusion based features performs similarly to diffusion based inpainting",
        "Sec. 5", "table2", "SD Features less SD Inpaint, for each architecture", "all about 0",
        _pairs(["sd_features"], ("sd_inpaint",)),
    ),
    Claim(
        "Table 2 shows similar robustness to occlusions for both ConvNeXt and Swin architectures",
        "Sec. 4.3", "table2", "Swin less ConvNeXt, for each method", "all about 0", _swin_over_convnext,
    ),
)  # fmt: skip
"""The sentences, in the order of the tables. That SD Features is "significantly more efficient" is not decided by
accuracies: `cost.cost_claim` reads it off the costs."""


def write_claims(evaluation: Path, settings: Settings, out: Path) -> None:
    """Write `claims.md` into the folder `out`; the same inputs give the same bytes.

    The claim on efficiency is read off `efficiency.json` where that stands in `out`.
    """
    confidence = settings.report.confidence
    lines = ["# What the paper says, and what numbers say of it", ""]
    if settings.report.note:
        lines += [f"**{markdown_escaped(settings.report.note)}**", ""]
    lines += [_preface(confidence), "", "## The claims", ""]
    for number, claim in enumerate(CLAIMS, 1):
        lines.append(
            f"{number}. “{markdown_escaped(claim.sentence)}” ({claim.where}). Test: {claim.test}; {claim.kind}."
        )
    lines += ["", "## The paper's printed numbers", "", markdown_escaped(paper_source()) + ".", ""]
    for table in TABLES:
        lines += _section(table, paper_as_source(table, confidence), confidence)
    lines += ["### What arithmetic says of them", ""]
    for table in TABLES:
        lines += arithmetic(paper_table(table))
    lines += ["## This run", ""]
    for table in TABLES:
        for of_set in load_results(evaluation, settings, sets_of(table, settings)).values():
            lines += _section(table, set_as_source(of_set), confidence)
    write_text(out / "claims.md", "\n".join(lines + cost_claim(out / "efficiency.json", len(CLAIMS) + 1)))


def _preface(confidence: float) -> str:
    level = f"{100 * confidence:g} %"
    return (
        f"Differences in percentage points, with {level} intervals. A claim **holds** when each of its contrasts passes "
        "its test, **fails** when one is significantly contrary (Holm-corrected over the claim), and is **undecided "
        f"at this n** else. “About 0” means within {100 * MARGIN:g} point, a margin of ours. “Most” means more than "
        "half. “As claimed” counts contrasts whose bare value agrees, whatever its uncertainty. The paper's "
        "printed numbers are tested as independent proportions of the printed n; this run's on paired resampled "
        "images and seeds. This page is generated."
    )


def _section(table: TableName, source: Source, confidence: float) -> list[str]:
    lines = [f"### {markdown_escaped(source.name)}", "", f"What this n can show: {source.reach}.", ""]
    lines += [
        "| Claim | As claimed | Least favourable | Most favourable | Verdict |",
        "| --- | --- | --- | --- | --- |",
    ]
    contrary: list[str] = []
    for number, claim in enumerate(CLAIMS, 1):
        if claim.table != table:
            continue
        contrasts = list(claim.contrasts(source))
        if not contrasts:
            lines.append(f"| {number} | | | | not asked: a method or backbone it speaks of is not in this run |")
            continue
        verdict = judge(claim.kind, contrasts, source, confidence)
        worst, best = _extremes(claim.kind, verdict)
        counts = f"{verdict.as_claimed} of {len(contrasts)}"
        lines.append(f"| {number} | {counts} | {_shown(*worst)} | {_shown(*best)} | **{verdict.outcome}** |")
        if claim.kind != "all about 0":
            against = [_shown(*named) for named in verdict.effects if named[1].estimate <= 0]
            contrary += [f"- Claim {number}: {shown}" for shown in against]
    return [*lines, "", *(["Contrary to what is claimed, by the bare values:", "", *contrary, ""] if contrary else [])]


def _extremes(kind: Kind, verdict: Verdict) -> tuple[tuple[str, Effect], tuple[str, Effect]]:
    """The contrasts that speak least and most for the claim."""

    def favour(named: tuple[str, Effect]) -> float:
        estimate = named[1].estimate
        return -abs(estimate) if kind == "all about 0" else estimate

    return min(verdict.effects, key=favour), max(verdict.effects, key=favour)


def _shown(name: str, effect: Effect) -> str:
    low, high = 100 * effect.low, 100 * effect.high
    return f"{markdown_escaped(name)}: {100 * effect.estimate:+.2f} ({low:+.2f} to {high:+.2f})"
