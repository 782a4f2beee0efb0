"""Each method less its matched controls: what is left of a gain when the control has the rest.

What enters: a run's evaluation folder and settings. What leaves: `controls.csv`, a row for each set of Tables 1 and 2,
level, backbone, metric, method and control of it in the run (`Method.controls`), and top-1 with controls down and levels
across as `controls.md` and `controls.tex`. Against None a method is credited with all that it changes, against its control with the one thing in
which they differ. Intervals and tests are those of Tables 1 and 2 (`statistics`), adjusted by Holm over this table.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Final

from dfeat.config import Settings
from dfeat.config.labels import Labels
from dfeat.methods import controlled
from dfeat.methods.method import Control
from dfeat.report.numbers import text
from dfeat.report.numbers.paper import METRICS, Cell, TableName
from dfeat.report.numbers.results import SetResults, load_results
from dfeat.report.numbers.sets import sets_of
from dfeat.report.numbers.statistics import Effect, judged
from dfeat.report.numbers.text import TextRow, escaped, grouped, percent, probability
from dfeat.report.tables.layout import Marks, plain_tex

TABLES: Final[tuple[TableName, ...]] = ("table1", "table2")


def write_controls(evaluation: Path, settings: Settings, out: Path) -> None:
    """Write `controls.csv` and `controls.md` into the folder `out`; the same inputs give the same bytes."""
    found: list[tuple[TextRow, Effect]] = []
    for table in TABLES:
        for results in load_results(evaluation, settings, sets_of(table, settings)).values():
            found += _rows(table, results)
    tested = [(row, effect) for row, effect in found if row["p"]]
    marks = judged([(effect.p(), effect) for _, effect in tested], 1 - settings.report.confidence)
    for (row, _), (p, mark) in zip(tested, marks, strict=True):
        row.update(p_holm=probability(p), mark=mark)
    rows = [row for row, _ in found]
    (heads, lines), report = _grid(rows, settings), settings.report
    explanation, shared = _explanation(rows, settings), _shared(settings)
    blocks = [
        escaped(explanation),
        text.pipe_table("ll" + "r" * (len(heads) - 2), map(escaped, heads), [map(escaped, line) for line in lines]),
        "What a method and its control share, and so what their difference is of:",
        "\n".join(f"- {escaped(sentence)}" for sentence in shared),
    ]
    tex = plain_tex("controls", heads, lines, " ".join([explanation, *shared]), report)
    text.write_rows(out, "controls", rows, "Each method less its matched control", report.note, blocks, tex)


def _rows(table: TableName, results: SetResults) -> list[tuple[TextRow, Effect]]:
    """A row for each cell of a method and each of its controls, without what the whole table decides; and its effect."""
    made, rows = results.predictions, []
    axes = product(made.levels, made.backbones, METRICS, controlled(made.methods))
    for level, backbone, metric, (method, control) in axes:
        cell = Cell(method, backbone, level, metric)
        other = cell._replace(method=control.name)
        effect = results.difference(cell, other)
        difference, low, high = map(percent, effect[:3])
        row = {
            "table": table, "set": made.name, "level": str(level), "backbone": backbone, "metric": metric,
            "method": method, "control": control.name, "value": percent(results.accuracy(cell)),
            "control_value": percent(results.accuracy(other)), "difference": difference, "low": low, "high": high,
            "n": str(results.outcomes.images), "seeds": str(len(made.seeds)),
            "p_by_seed": " ".join(map(probability, results.by_seed(cell, other))),
            "p": probability(effect.p()) if len(made.seeds) > 1 else "", "p_holm": "", "mark": "",
        }  # fmt: skip
        rows.append((row, effect))
    return rows


def _grid(rows: list[TextRow], settings: Settings) -> tuple[list[str], list[list[str]]]:
    """Heads and lines of the table of top-1: a method less a control and a backbone down, sets and levels across."""
    shown = [row for row in rows if row["metric"] == "top1"]
    labels = settings.labels
    heads = [labels.place(*place) for place in grouped(shown, "set", "level")]
    cells = grouped(shown, "method", "control", "backbone")
    lines = [
        [_name(labels, method, control), labels.backbone(backbone), *map(_cell, cells[method, control.name, backbone])]
        for (method, control), backbone in product(controlled(settings.training.methods), settings.training.backbones)
    ]
    return ["Less its control", "Architecture", *heads], lines


def _explanation(rows: list[TextRow], settings: Settings) -> str:
    """What the numbers and their marks are."""
    counts = ", ".join(
        f"{settings.labels.set(name)} n = {int(own[0]['n']):,}" for (name,), own in grouped(rows, "set").items()
    )
    seeds = int(rows[0]["seeds"])
    return (
        "Top-1 accuracy of a method less that of its matched control, in percentage points, both on the same images, with "
        f"{100 * settings.report.confidence:g} % intervals over images and training seeds, each on its own; levels in "
        f"percent of information loss. {counts}; {seeds} training seed{'s' * (seeds > 1)}. {_marked(rows, settings)}"
    )


def _shared(settings: Settings) -> list[str]:
    """A sentence for each method and control: what they share, and so what their difference is of."""
    pairs = controlled(settings.training.methods)
    return [f"{_name(settings.labels, method, control)}: {control.why}." for method, control in pairs]


def _name(labels: Labels, method: str, control: Control) -> str:
    return f"{labels.method(method)} less {labels.method(control.name)}"


def _marked(rows: list[TextRow], settings: Settings) -> str:
    """What the marks mean, or why there are none."""
    if not any(row["p"] for row in rows):
        return "With one seed, intervals exclude run-to-run variation, and nothing is marked."
    return (
        f"{_SIGNS['better']} better and {_SIGNS['worse']} worse than the control, by a test of methods over images and seeds "
        f"(Student's t), Holm-adjusted over the {len(rows)} comparisons of this table, those of top-5 (in the CSV) among them, "
        f"p < {1 - settings.report.confidence:.2g}. A difference without a mark may be one that so many images and seeds do not "
        "show: its interval has the values that they allow."
    )


_SIGNS: Final = {"better": Marks().better, "worse": Marks().worse, "": ""}


def _cell(row: TextRow) -> str:
    return text.with_interval(row["difference"], row["low"], row["high"], "+.1f") + _SIGNS[row["mark"]]
