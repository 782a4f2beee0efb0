"""The paper's claims in words, tested on its own numbers and on a run's [Abstract, Sec. 4.3, Sec. 5].

What enters: a run's evaluation folder and settings, and `paper_claims.json`, the sentences copied word by word. What
leaves: `claims.md`, every sentence of the paper that accuracies can decide, with its contrasts, test and verdict; once
for the paper's printed tables, once for this run. `verdicts` defines holds, fails and undecided, `contrasts` what each
sentence compares.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from dfeat.config import Settings
from dfeat.report.claims.contrasts import CONTRASTS, Contrasts
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
    """A sentence of the paper, its place there, and what decides it: a kind of contrast, and the methods compared."""

    sentence: str
    where: str
    table: TableName
    test: str
    kind: Kind
    contrasts: str
    methods: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def compared(self, accuracies: Accuracies) -> Contrasts:
        """The contrasts of these accuracies."""
        return CONTRASTS[self.contrasts](accuracies, self.methods, self.others)


_SENTENCES: Final = resources.files("dfeat.report.claims").joinpath("paper_claims.json")
CLAIMS: Final = tuple(Claim(**entry) for entry in json.loads(_SENTENCES.read_text(encoding="utf-8")))
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
    title = "What the paper says, and what numbers say of it"
    write_text(out / "claims.md", document(title, settings.report.note, blocks))


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
        contrasts = list(claim.compared(accuracies))
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
