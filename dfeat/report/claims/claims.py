"""The paper's claims in words, tested on its own numbers and on a run's [Abstract, Sec. 4.3, Sec. 5].

What enters: a run's evaluation folder and settings. What leaves: `claims.md`, every sentence of the paper that
accuracies can decide, with its contrasts, test and verdict; once for the paper's printed tables, once for this
run. `verdicts` defines holds, fails and undecided, `contrasts` what each sentence compares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dfeat.config import Settings
from dfeat.report.claims import contrasts
from dfeat.report.claims.contrasts import OTHERS, OURS, Contrasts
from dfeat.report.claims.cost_claim import cost_claim
from dfeat.report.claims.printed import arithmetic
from dfeat.report.claims.verdicts import MARGIN, Accuracies, Kind, Verdict, judge, printed_accuracies, set_accuracies
from dfeat.report.numbers.paper import TableName, paper_source, paper_table
from dfeat.report.numbers.results import load_results
from dfeat.report.numbers.sets import sets_of
from dfeat.report.numbers.statistics import Effect
from dfeat.report.numbers.text import document, escaped, pipe_table, with_interval
from dfeat.storage.atomic import write_text

TABLES: Final[tuple[TableName, ...]] = ("table1", "table2")


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, where it stands, and the contrasts that decide it."""

    sentence: str
    where: str
    table: TableName
    test: str
    kind: Kind
    contrasts: Callable[[Accuracies], Contrasts]


_COLUMNS: Final = (
    "The highest top-1/top-5 accuracy for each information loss column lies in one of the two proposed input/embedding "
    "space augmentations"
)
_SIMILAR: Final = "the augmentation of diffusion based features performs similarly to diffusion based inpainting"
_FEATURES, _INPAINT, _CUTMIX = ["sd_features"], ["sd_inpaint"], ["cutmix"]
CLAIMS: Final[tuple[Claim, ...]] = (
    Claim(
        "input space and embedding space augmentations help improve the accuracy of a baseline model with no augmentations "
        "for both ConvNeXt and Swin architectures", "Sec. 4.3",
        "table1", "each of ours less None, for each architecture and loss", "all above 0", contrasts.over_none(OURS),
    ),
    Claim(
        _COLUMNS, "Table 1, Sec. 4.3",
        "table1", "best cell of ours less best other cell, in each column", "all above 0", contrasts.best_of_column,
    ),
    Claim(
        _COLUMNS, "Table 1, Sec. 4.3, read for each architecture", "table1",
        "better of ours less best other method, for each architecture, column and metric", "all above 0",
        contrasts.best_of_architecture,
    ),
    Claim(
        "larger performance gains associated with higher information loss", "Table 1, Sec. 4.3",
        "table1", "slope of the gain over None, in points per 10 % of loss", "all above 0", contrasts.gain_slope,
    ),
    Claim(
        "diffusion based augmentation methods outperform other augmentation methods for most degrees of occlusion", "Sec. 4.3",
        "table1", "better of ours less best other augmentation, for each architecture and loss", "most above 0",
        contrasts.leads(OURS, OTHERS),
    ),
    Claim(
        "CutMix can be seen performing similar to our proposed methods", "Table 1",
        "table1", "each of ours less CutMix, for each architecture and loss", "all about 0", contrasts.pairs(OURS, _CUTMIX),
    ),
    Claim(
        "diffusion feature augmentations showing the best performance", "Sec. 5", "table1",
        "SD Features less the best other method, for each architecture and loss", "all above 0", contrasts.leads(_FEATURES),
    ),
    Claim(
        _SIMILAR, "Sec. 5", "table1", "SD Features less SD Inpaint, for each architecture and loss", "all about 0",
        contrasts.pairs(_FEATURES, _INPAINT),
    ),
    Claim(
        "both ConvNeXt and Swin architectures [...] seem to both benefit similarly from all the proposed augmentation "
        "techniques", "Sec. 4.3", "table1", "gain over None of one architecture less the other's, the mean over losses",
        "all about 0", contrasts.gains_alike,
    ),
    Claim(
        "apparent higher robustness (higher accuracy) to occlusions for Swin vs. ConvNeXt", "Sec. 4.3",
        "table1", "Swin less ConvNeXt, for each method and loss above 0", "all above 0", contrasts.swin_over_convnext,
    ),
    Claim(
        "Both ConvNeXt and Swin architectures benefit from all the proposed types of augmentations compared to the No "
        "Augmentation baseline", "Table 2",
        "table2", "each augmentation less None, for each architecture", "all above 0", contrasts.over_none(OTHERS + OURS),
    ),
    Claim(
        "Our proposed augmentations give significantly higher classification accuracies compared to other augmentation "
        "techniques on real-world occluded data", "Table 2, Sec. 4.3, Sec. 5", "table2",
        "each of ours less each other augmentation, for each architecture", "all above 0", contrasts.pairs(OURS, OTHERS),
    ),
    Claim(
        _SIMILAR, "Sec. 5", "table2", "SD Features less SD Inpaint, for each architecture", "all about 0",
        contrasts.pairs(_FEATURES, _INPAINT),
    ),
    Claim(
        "Table 2 shows similar robustness to occlusions for both ConvNeXt and Swin architectures", "Sec. 4.3",
        "table2", "Swin less ConvNeXt, for each method", "all about 0", contrasts.swin_over_convnext,
    ),
)  # fmt: skip
"""The sentences, in the order of the tables. Accuracies do not decide that SD Features is "significantly more efficient":
`cost_claim` does, from the costs."""


def write_claims(evaluation: Path, settings: Settings, out: Path) -> None:
    """Write `claims.md` into the folder `out`; the same inputs give the same bytes.

    The claim on efficiency is decided by `efficiency.json` if `out` has one.
    """
    confidence = settings.report.confidence
    claims = [
        f"{number}. “{escaped(claim.sentence)}” ({claim.where}). Test: {claim.test}; {claim.kind}."
        for number, claim in enumerate(CLAIMS, 1)
    ]
    blocks = [_preface(confidence), "## The claims", "\n".join(claims)]
    blocks += ["## The paper's printed numbers", f"{escaped(paper_source())}."]
    for table in TABLES:
        blocks += _section(table, printed_accuracies(table, confidence), confidence)
    blocks.append("### What arithmetic says of them")
    for table in TABLES:
        blocks += arithmetic(paper_table(table))
    blocks.append("## This run")
    for table in TABLES:
        for results in load_results(evaluation, settings, sets_of(table, settings)).values():
            blocks += _section(table, set_accuracies(results), confidence)
    blocks += cost_claim(out / "efficiency.json", len(CLAIMS) + 1)
    write_text(
        out / "claims.md", document("What the paper says, and what numbers say of it", settings.report.note, blocks)
    )


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


def _section(table: TableName, accuracies: Accuracies, confidence: float) -> list[str]:
    lines, contrary = [], []
    for number, claim in enumerate(CLAIMS, 1):
        if claim.table != table:
            continue
        contrasts = list(claim.contrasts(accuracies))
        if not contrasts:
            lines.append([f"{number} | | |", "not asked: a method or backbone it speaks of is not in this run"])
            continue
        verdict = judge(claim.kind, contrasts, accuracies, confidence)
        extremes = [_shown(*named) for named in _extremes(claim.kind, verdict)]
        counts = f"{verdict.as_claimed} of {len(contrasts)}"
        lines.append([str(number), counts, *extremes, f"**{verdict.outcome}**"])
        if claim.kind != "all about 0":
            against = [named for named in verdict.effects if named[1].estimate <= 0]
            contrary += [f"- Claim {number}: {_shown(*named)}" for named in against]
    heads = ["Claim", "As claimed", "Least favourable", "Most favourable", "Verdict"]
    return [
        f"### {escaped(accuracies.name)}",
        f"What this n can show: {accuracies.reach}.",
        pipe_table("lllll", heads, lines),
        *(["Contrary to what is claimed, by the bare values:", "\n".join(contrary)] if contrary else []),
    ]


def _extremes(kind: Kind, verdict: Verdict) -> tuple[tuple[str, Effect], tuple[str, Effect]]:
    """The contrasts least and most in favour of the claim."""

    def favour(named: tuple[str, Effect]) -> float:
        estimate = named[1].estimate
        return -abs(estimate) if kind == "all about 0" else estimate

    return min(verdict.effects, key=favour), max(verdict.effects, key=favour)


def _shown(name: str, effect: Effect) -> str:
    interval = with_interval(100 * effect.estimate, 100 * effect.low, 100 * effect.high, "+.2f")
    return f"{escaped(name)}: {interval}"
