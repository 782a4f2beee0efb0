"""The paper's claims in words, tested on its own numbers and on a run's [Abstract, Sec. 4.3, Sec. 5].

What enters: a run's evaluation folder and settings, and `paper_claims.json`, the sentences copied word by word. What
leaves: `claims.md`, every sentence of the paper that accuracies can decide, with two verdicts: first all of them in a
table, the paper's printed values and this run side by side, then each with its test and its contrasts. A run with a note
or drawn images is a demo, from which no verdict on the paper follows. `verdicts` defines the verdicts, `contrasts` what each sentence
compares.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from dfeat.config import Settings
from dfeat.methods import PAPER_NAMES, REFERENCE, controlled
from dfeat.report.claims.contrasts import CONTRASTS, Contrasts
from dfeat.report.claims.cost_claim import cost_claim
from dfeat.report.claims.printed import arithmetic
from dfeat.report.claims.verdicts import (
    MARGIN,
    PAIRED,
    Accuracies,
    Kind,
    Tested,
    Verdict,
    judge,
    printed_accuracies,
    set_accuracies,
)
from dfeat.report.numbers.paper import Cell, TableName, paper_source, paper_table
from dfeat.report.numbers.results import load_results
from dfeat.report.numbers.sets import sets_of
from dfeat.report.numbers.text import document, escaped, pipe_table, with_interval
from dfeat.storage.atomic import write_text

TABLES: Final[tuple[TableName, ...]] = ("table1", "table2")
DEMO: Final = "*not applicable: demo*"
"""In place of a verdict on the paper, where the run is no test of it."""
_SHOWN: Final = 3
"""The number of contrary contrasts named beside a verdict; the table under it has all."""


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, a short name, its place there, and what decides it: a kind of contrast, and the methods."""

    name: str
    sentence: str
    where: str
    table: TableName
    test: str
    kind: Kind
    contrasts: str
    methods: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    significantly: bool = False
    """Whether the sentence says that its differences are significant."""

    def compared(self, accuracies: Accuracies) -> Contrasts:
        """The contrasts of these accuracies."""
        return CONTRASTS[self.contrasts](accuracies, self.methods, self.others)


_SENTENCES: Final = resources.files("dfeat.report.claims").joinpath("paper_claims.json")
CLAIMS: Final = tuple(Claim(**entry) for entry in json.loads(_SENTENCES.read_text(encoding="utf-8")))
"""The sentences, in the order of the tables. Accuracies do not decide that SD Features is "significantly more efficient":
`cost_claim` does, from the costs."""


@dataclass(frozen=True)
class _Source:
    """Accuracies and the verdict of each claim that can be put to them, by the claim's number; a demo's are not stated."""

    accuracies: Accuracies
    verdicts: dict[int, Verdict]
    demo: bool = False

    @property
    def heads(self) -> list[str]:
        """The heads of its columns beside the claims."""
        of = self.accuracies
        if self.demo:
            return [f"This run: {escaped(of.name)}"]
        who = "Paper" if of.source == "printed" else f"This run: {escaped(of.label)}"
        return [f"{who}, as {of.source}", f"Supported by n = {of.images:,}"]

    def cells(self, number: int) -> list[str]:
        """Both verdicts on a claim, each with how many of its contrasts agree or pass."""
        if self.demo:
            return [DEMO]
        if number not in self.verdicts:
            return ["not tested", ""]
        verdict = self.verdicts[number]
        agree, passing = (f"{verdict.count(result)} of {len(verdict.contrasts)}" for result in ("agrees", "passes"))
        return [f"**{_word(verdict.true)}**, {agree}", f"**{verdict.outcome}**, {passing}"]


def write_claims(evaluation: Path, settings: Settings, out: Path) -> None:
    """Write `claims.md` into the folder `out`; the same inputs give the same bytes.

    The claim on efficiency is decided by `efficiency.json` if `out` has one.
    """
    confidence = settings.report.confidence
    demo = bool(settings.report.note or settings.data.drawn)
    printed = {
        table: _judged(table, printed_accuracies(table, confidence, settings.labels), confidence) for table in TABLES
    }
    measured = {
        table: [
            _judged(table, set_accuracies(results, settings.labels), confidence, demo)
            for results in load_results(evaluation, settings, sets_of(table, settings)).values()
        ]
        for table in TABLES
    }
    blocks = ["## At a glance"]
    for table in TABLES:
        blocks += _glance(table, [printed[table], *measured[table]])
    blocks += _preface(confidence)
    blocks += ["## The paper's printed numbers", f"{escaped(paper_source())}."]
    for table in TABLES:
        blocks += _section(table, printed[table], confidence)
    blocks.append("### What arithmetic says of them")
    for table in TABLES:
        blocks += arithmetic(paper_table(table), settings.labels)
    blocks.append("## This run")
    for table in TABLES:
        for source in measured[table]:
            blocks += _section(table, source, confidence)
    blocks += cost_claim(out / "efficiency.json", len(CLAIMS) + 1, settings.labels, DEMO if demo else "")
    title = "What the paper says, and what numbers say of it"
    write_text(out / "claims.md", document(title, settings.report.note, blocks))


def _preface(confidence: float) -> list[str]:
    return [
        "- **As printed** (for this run: **as measured**) is arithmetic on the values, whatever their uncertainty: true "
        "when every contrast agrees with the sentence, otherwise false. “About 0” means within "
        f"{100 * MARGIN:g} point of 0, a margin of ours; “most” means more than half.\n"
        "- **Supported** is what n images can bear. A contrast passes by its own test, uncorrected. A claim **holds** "
        "when each of its contrasts passes (“most”: when more than half do, corrected for which), **fails** when one is significantly "
        "contrary, Holm-corrected over the claim (“most”: at least half of them), and is **undecided at this n** "
        "otherwise. A sentence that says “significantly” also fails when not one of its contrasts passes.",
        f"Differences are in percentage points, with {100 * confidence:g} % intervals. The paper's printed numbers are tested "
        "as independent proportions of the printed n; this run's paired on the same images, over images and seeds.",
    ]


def _judged(table: TableName, accuracies: Accuracies, confidence: float, demo: bool = False) -> _Source:
    """The verdict on each claim of a table that these accuracies can decide."""
    # the sentences are about the paper's methods; others, such as further controls, decide none of them
    of_paper = accuracies._replace(methods=tuple(name for name in accuracies.methods if name in PAPER_NAMES))
    verdicts = {}
    for number, claim in _claims_of(table).items():
        contrasts = list(claim.compared(of_paper))
        if contrasts:
            verdicts[number] = judge(claim.kind, contrasts, accuracies, confidence, claim.significantly)
    return _Source(accuracies, verdicts, demo)


def _claims_of(table: TableName) -> dict[int, Claim]:
    return {number: claim for number, claim in enumerate(CLAIMS, 1) if claim.table == table}


def _glance(table: TableName, sources: list[_Source]) -> list[str]:
    """The verdicts on a table's claims, a column or two for each source, and what could not be tested."""
    heads = ["Claim", *(head for source in sources for head in source.heads)]
    claims = _claims_of(table)
    lines = [
        [f"{number} {claim.name}", *(cell for source in sources for cell in source.cells(number))]
        for number, claim in claims.items()
    ]
    blocks = [f"{table.replace('table', 'Table ')}:", pipe_table("l" * len(heads), heads, lines)]
    if any(not source.demo and set(claims) - set(source.verdicts) for source in sources):
        blocks.append("Not tested: a method, backbone or level that the sentence names is missing.")
    return blocks


def _section(table: TableName, source: _Source, confidence: float) -> list[str]:
    """What a set's n can show, then a block for each claim."""
    accuracies, blocks = source.accuracies, []
    for number, verdict in source.verdicts.items():
        blocks += _block(number, CLAIMS[number - 1], verdict, source, 1 - confidence)
    return [
        f"### {escaped(accuracies.name)}",
        f"At this n, {accuracies.reach}. {accuracies.caveat}."
        if accuracies.caveat
        else f"At this n, {accuracies.reach}.",
        *([f"Verdicts on the paper's sentences: {DEMO}."] if source.demo else []),
        *(_less_control(accuracies, confidence) if accuracies.source == "measured" else []),
        *blocks,
    ]


def _block(number: int, claim: Claim, verdict: Verdict, source: _Source, alpha: float) -> list[str]:
    """A claim: both verdicts, but of a demo, then its contrasts."""
    accuracies = source.accuracies
    agree, passing, contrary = (verdict.count(result) for result in ("agrees", "passes", "refutes"))
    every, stands = len(verdict.contrasts), f"As {accuracies.source}"
    true, outcome = ("", "") if source.demo else (f" **{_word(verdict.true)}**.", f" **{verdict.outcome}**.")
    supported = [f"Contrasts that pass: {passing} of {every}; significantly contrary: {contrary}."]
    if claim.significantly and not passing:
        supported.append("The sentence says “significantly”, and by this test no difference is, even uncorrected.")
        if accuracies.source == "printed":
            supported.append(
                f"With errors of {PAIRED} of these, as those of paired tests may be, {_paired_passes(verdict, alpha)} of {every} would be."
            )
    if accuracies.source == "measured" and accuracies.caveat:
        supported.append(f"{accuracies.caveat}.")
    return [
        f"#### Claim {number}: {claim.name}",
        f"“{escaped(claim.sentence)}” ({claim.where})",
        f"- {stands}:{true} Contrasts that agree: {agree} of {every}. "
        f"{_deciding(claim.kind, verdict, accuracies)}\n"
        f"- Supported by n = {accuracies.images:,}:{outcome} {' '.join(supported)}",
        f"Contrasts: {claim.test}; {claim.kind}.",
        pipe_table(
            "lllll",
            ["Contrast", "Values", "Estimate", stands, "Supported"],
            [_row(contrast, accuracies) for contrast in verdict.contrasts],
        ),
    ]


def _paired_passes(verdict: Verdict, alpha: float) -> int:
    """How many contrasts would pass if errors were those of paired tests."""
    effects = [contrast.effect._replace(error=PAIRED * contrast.effect.error) for contrast in verdict.contrasts]
    return sum(effect.estimate > 0 and effect.p() < alpha for effect in effects)


def _less_control(accuracies: Accuracies, confidence: float) -> list[str]:
    """What is left of each gain when a matched control has the rest; nothing without controls."""
    pairs = controlled(accuracies.methods)
    lines, left, tested = [], [], []
    for method, control in pairs:
        contrasts = list(CONTRASTS["pairs"](accuracies, [method], [control.name]))
        verdict = judge("all above 0", contrasts, accuracies, confidence)
        counts = (f"{verdict.count(result)} of {len(contrasts)}" for result in ("agrees", "passes", "refutes"))
        lines.append([_less(accuracies, method, control.name), *counts, f"**{verdict.outcome}**"])
        left += [_left(accuracies, method, control.name, backbone) for backbone in accuracies.backbones]
        tested += [_row(contrast, accuracies) for contrast in verdict.contrasts]
    if not pairs:
        return []
    caveat = f" {accuracies.caveat}." if accuracies.caveat else ""
    return [
        "#### Less its control",
        "A method and its matched control differ in one thing (table `controls`), so what it gains over its control is what "
        "that one thing gives; the rest of its gain over None the control has too. Supported: that the method is better than "
        f"its control for each architecture and loss, by the tests of the claims.{caveat}",
        pipe_table(
            "lllll", ["Less its control", "Contrasts above 0", "That pass", "Significantly below 0", "Supported"], lines
        ),
        f"{'Means over the losses, in' if len(accuracies.levels) > 1 else 'In'} points, each interval on its own:",
        "\n".join(left),
        pipe_table("lllll", ["Contrast", "Values", "Estimate", f"As {accuracies.source}", "Supported"], tested),
    ]


def _left(accuracies: Accuracies, method: str, control: str, backbone: str) -> str:
    """In words, of one architecture: what the method gains over None, what its control does, and what is left."""
    share = 1 / len(accuracies.levels)

    def less(one: str, other: str) -> str:
        cells = [Cell(one, backbone, level, "top1") for level in accuracies.levels]
        weights = dict.fromkeys(cells, share) | {cell._replace(method=other): -share for cell in cells}
        value, low, high = (100 * number for number in accuracies.contrast(weights)[:3])
        return with_interval(value, low, high, "+.1f")

    place, left = escaped(accuracies.labels.backbone(backbone)), less(method, control)
    if REFERENCE not in accuracies.methods:
        return f"- {place}: {_less(accuracies, method, control)} is {left}."
    named = accuracies.labels.method
    own, other = (f"{escaped(named(one))} gains {less(one, REFERENCE)}" for one in (method, control))
    return f"- {place}: {own} over None, the control {other}; {left} is left."


def _less(accuracies: Accuracies, method: str, control: str) -> str:
    return " less ".join(escaped(accuracies.labels.method(one)) for one in (method, control))


def _deciding(kind: Kind, verdict: Verdict, accuracies: Accuracies) -> str:
    """The contrasts that decide the first verdict: those that are contrary, else the least favourable one."""

    def favour(contrast: Tested) -> float:
        return -abs(contrast.effect.estimate) if kind == "all about 0" else contrast.effect.estimate

    ranked = sorted(verdict.contrasts, key=favour)
    contrary = [contrast for contrast in ranked if not contrast.agrees]
    shown = [
        f"{escaped(contrast.name)} ({_values(contrast, accuracies) or f'{100 * contrast.effect.estimate:+.2f}'})"
        for contrast in contrary[:_SHOWN] or ranked[:1]
    ]
    more = f"; and {len(contrary) - _SHOWN} more" if len(contrary) > _SHOWN else ""
    return f"{'Contrary' if contrary else 'Closest'}: {'; '.join(shown)}{more}."


def _row(contrast: Tested, accuracies: Accuracies) -> list[str]:
    effect = contrast.effect
    interval = with_interval(100 * effect.estimate, 100 * effect.low, 100 * effect.high, "+.2f")
    supported = "passes" if contrast.passes else "**contrary**" if contrast.refutes else "undecided"
    stated = "agrees" if contrast.agrees else "**contrary**"
    return [escaped(contrast.name), _values(contrast, accuracies), interval, stated, supported]


def _values(contrast: Tested, accuracies: Accuracies) -> str:
    """The two accuracies of a difference as an inequality, in percent; empty for a sum of more."""
    if sorted(contrast.weights.values()) != [-1.0, 1.0]:
        return ""
    cells = sorted(contrast.weights, key=contrast.weights.__getitem__, reverse=True)
    ours, theirs = (f"{100 * accuracies.value(cell):.2f}" for cell in cells)
    sign = "=" if ours == theirs else ">" if contrast.effect.estimate > 0 else "<"
    return f"{ours} {sign} {theirs}"


def _word(true: bool) -> str:
    return "true" if true else "false"
