"""What a run found and how sure it is, in the few lines at the top of its page.

What enters: the rows of Tables 1 and 2, and the trained models with their training accuracy by epoch. What leaves: lines of
text. Where None leads, the last line lists what this run holds on it: size, significance, seeds, epochs and whether training
had levelled off. It names no cause that the run has not measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final, NamedTuple

from dfeat.config.labels import Labels
from dfeat.methods import PAPER_NAMES, PRETRAINED, REFERENCE
from dfeat.report.numbers.text import unique
from dfeat.report.page.artifacts import Trained
from dfeat.report.tables.layout import CellRow

SETS: Final = 3
"""Sets whose best method is named; the tables have all."""
LEVEL: Final = 0.01
"""Training has levelled off where its accuracy rose by no more in the last epoch."""


class Finding(NamedTuple):
    """A line of the summary: what it is about, and what was found."""

    title: str
    text: str


def findings(rows: Sequence[CellRow], models: Sequence[Trained], confidence: float, labels: Labels) -> list[Finding]:
    """The lines of a run; none without accuracies of trained models."""
    top1 = [row for row in rows if row.metric == "top1" and row.method != PRETRAINED.name]
    if not top1:
        return []
    level = f"{100 * confidence:g} %"
    lines = [
        Finding("Best", _best(top1, level, labels)),
        Finding("Against None", _against_none(top1, confidence, labels)),
        Finding("How sure", _how_sure(top1, labels)),
        Finding("Where None leads", _where_none_leads(top1, models, level, labels)),
    ]
    return [line for line in lines if line.text]


def _best(rows: Sequence[CellRow], level: str, labels: Labels) -> str:
    sets = unique((row.table, row.set) for row in rows)
    text = " ".join(
        _best_of([row for row in rows if (row.table, row.set) == one], level, labels) for one in sets[:SETS]
    )
    return text + (f" {len(sets) - SETS} more sets are in the tables." if len(sets) > SETS else "")


def _best_of(rows: Sequence[CellRow], level: str, labels: Labels) -> str:
    """The best method at the middle level of a set, with its gain over None, or None's lead over the next method."""
    losses = sorted({int(row.level) for row in rows})
    middle = losses[len(losses) // 2]
    column = [row for row in rows if int(row.level) == middle]
    equal = [row for row in column if _value(row) == max(map(_value, column))]
    best = next((row for row in equal if row.method != REFERENCE), equal[0])
    names = [f"{labels.method(row.method)} with {labels.backbone(row.backbone)}" for row in equal]
    text = f"{_place(best, labels)}: {_listed(names)}, {_value(best):.1f} %"
    others = _others(best, column)
    if not others:
        return f"{text}, the only method."
    second = max(others, key=_value)
    if best.method == REFERENCE:
        least, most = -float(second.difference_high), -float(second.difference_low)
        text += f", {-float(second.difference_to_none):+.1f} points over {labels.method(second.method)} ({level} interval {least:+.1f} to {most:+.1f})"
    elif best.difference_to_none:
        gain, low, high = (
            float(value) for value in (best.difference_to_none, best.difference_low, best.difference_high)
        )
        text += f", {gain:+.1f} points over None ({level} interval {low:+.1f} to {high:+.1f})"
    if best.best_p_holm:
        text += f"; {'' if best.best == 'true' else 'not '}significantly better than every other method"
    return f"{text}."


def _against_none(rows: Sequence[CellRow], confidence: float, labels: Labels) -> str:
    compared = [row for row in rows if row.difference_to_none and row.method in PAPER_NAMES]
    if not compared:
        return "No method of the paper is compared with None in this run."
    tested = any(row.p_holm for row in compared)
    if tested:
        how = f"Holm-adjusted over each table, p < {1 - confidence:.2g}"
    else:
        how = f"{100 * confidence:g} % over images; with one seed no difference is tested"
    text = (
        f"Of {len(compared)} top-1 differences of the paper's methods from None, {_counted(compared, tested)} ({how})."
    )
    proposed = [row for row in rows if row.difference_to_none and row.baseline]
    if proposed and proposed != compared:
        own = _listed([labels.row(name) for name in unique(row.method for row in proposed)])
        text += f" Of the {len(proposed)} of {own}, {_counted(proposed, tested)}."
    return text


def _counted(rows: Sequence[CellRow], tested: bool) -> str:
    if tested:
        better, worse = (sum(row.mark == mark for row in rows) for mark in ("better", "worse"))
        return (
            f"{better} are significantly better, {worse} significantly worse and {len(rows) - better - worse} undecided"
        )
    above, below = (
        sum(float(row.difference_low) > 0 for row in rows),
        sum(float(row.difference_high) < 0 for row in rows),
    )
    return f"{above} have an interval above 0, {below} below 0 and {len(rows) - above - below} across 0"


def _how_sure(rows: Sequence[CellRow], labels: Labels) -> str:
    counts = {labels.set(row.set): int(row.n) for row in rows}
    seeds = max(int(row.seeds) for row in rows)
    text = f"n = {_listed([f'{n:,} images of {name}' for name, n in counts.items()])}; "
    if seeds == 1:
        return (
            f"{text}1 seed: intervals exclude run-to-run variation, so another training may rank the methods otherwise, and "
            "no difference is marked as significant."
        )
    text += f"{seeds} seeds: intervals and tests include run-to-run variation, which {seeds} seeds estimate roughly."
    seen = [float(row.smallest_difference) for row in rows if row.smallest_difference]
    if seen:
        text += f" Differences from None below {_range(seen)} points (depending on the cell) are too small to detect (80 % power)."
    return text


def _where_none_leads(rows: Sequence[CellRow], models: Sequence[Trained], level: str, labels: Labels) -> str:
    columns = [row for row in rows if row.method == REFERENCE and _others(row, rows)]
    ahead = [(row, max(_others(row, rows), key=_value)) for row in columns]
    leads = [(row, second) for row, second in ahead if _value(row) > _value(second)]
    if not leads:
        return ""
    cells = f"{len(leads)} of {len(columns)} cells" if len(leads) < len(columns) else f"all {len(leads)} cells"
    by = _range([-float(second.difference_to_none) for _, second in leads])
    tested = any(row.best_p_holm for row, _ in leads)
    if tested:
        sure = sum(row.best == "true" for row, _ in leads)
        shown = f"the lead is significant in {sure} of them"
    else:
        sure = sum(float(second.difference_high) < 0 for _, second in leads)
        shown = (
            f"with one seed no lead is tested, and {sure} of {len(leads)} have a {level} interval above 0, over images"
        )
    facts, unfinished = _training(rows, models, labels)
    reasons = [
        reason
        for reason, applies in (("chance", not tested or sure < len(leads)), ("short training", unfinished))
        if applies
    ]
    verdict = (
        f"So {' and '.join(reasons)} cannot be excluded; more {' and '.join(_REMEDIES[reason] for reason in reasons)} would tell."
        if reasons
        else "So neither chance nor short training explains it, and the run holds no other reason."
    )
    return f"None is best in {cells}, by {by} points: {_places([row for row, _ in leads], labels)}; {shown}. {facts} {verdict}"


_REMEDIES: Final = {"chance": "seeds or images", "short training": "epochs"}


def _training(rows: Sequence[CellRow], models: Sequence[Trained], labels: Labels) -> tuple[str, bool]:
    """What the run holds on its trainings, and whether they may have been too short."""
    names = {labels.method(row.method) for row in rows}
    curves = [(model.method, model.curve) for model in models if model.method in names and model.curve]
    seeds = max(int(row.seeds) for row in rows)
    text = f"The run has {'1 seed' if seeds == 1 else f'{seeds} seeds'}"
    images = {model.run.get("images") for model in models if model.method in names} - {None}
    if len(images) == 1:
        text += f", {images.pop():,} training images"
    if not curves:
        return f"{text}; the run holds no training curve.", True
    epochs = max(len(curve) for _, curve in curves)
    text += f", {epochs} epoch{'s' * (epochs > 1)}"
    none, others = (
        [100 * curve[-1] for name, curve in curves if (name == labels.method(REFERENCE)) == same]
        for same in (True, False)
    )
    if none and others:
        text += f"; accuracy on its own training images in the last epoch: None {_range(none)} %, other methods {_range(others)} %"
    rises = [curve[-1] - curve[-2] for _, curve in curves if len(curve) > 1]
    if not rises:
        return f"{text}. One epoch does not show whether training had levelled off.", True
    rising = sum(rise > LEVEL for rise in rises)
    text += (
        f"; it rose by more than {100 * LEVEL:g} point in that epoch in {rising} of {len(rises)} models "
        f"(median {100 * median(rises):+.1f} points). A curve on held-out images is not recorded."
    )
    return text, 2 * rising >= len(rises)


def _others(row: CellRow, rows: Iterable[CellRow]) -> list[CellRow]:
    """The other methods in the row's column, with its backbone."""
    place = (row.table, row.set, row.level, row.backbone)
    return [one for one in rows if (one.table, one.set, one.level, one.backbone) == place and one.method != row.method]


def _value(row: CellRow) -> float:
    return float(row.value)


def _place(row: CellRow, labels: Labels) -> str:
    loss = f" at {row.level} % loss" if row.table == "table1" or row.level != "0" else ""
    return f"{labels.set(row.set)}{loss}"


def _places(rows: Sequence[CellRow], labels: Labels) -> str:
    """The cells of some rows by set and backbone: "imagenet_val, Swin at 60 and 80 % loss; dfeat_real, Swin"."""
    texts = []
    for table, name, backbone in unique((row.table, row.set, row.backbone) for row in rows):
        levels = [row.level for row in rows if (row.table, row.set, row.backbone) == (table, name, backbone)]
        loss = f" at {_listed(levels)} % loss" if table == "table1" or levels != ["0"] else ""
        texts.append(f"{labels.set(name)}, {labels.backbone(backbone)}{loss}")
    return "; ".join(texts)


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
