"""The choice of a learning rate for each method and backbone, without the test sets [Sec. 4.2, "grid search"].

What enters: predictions of every point of the grid `learning_rate`, on images held out of training, clean and with
patches dropped. What leaves: `choose_learning_rate.csv`, a row for each method, backbone, rate and level, and one for
the mean of the levels, by which the best rate is chosen; and the same as `.md`, with the lines of configuration that set
the best rates. No setting is changed by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from dfeat.config import LEARNING_RATE, Settings, ablation_points
from dfeat.config.labels import Labels
from dfeat.places import HOLDOUT
from dfeat.report.numbers import text
from dfeat.report.numbers.paper import Cell
from dfeat.report.numbers.results import SetResults, Weights
from dfeat.report.numbers.text import TextRow, grouped, percent, probability, with_interval
from dfeat.report.tables.ablations import joined, measured_on_text

RECIPE: Final = 3
_MEAN: Final = "mean"
"""The level of the rows that the choice is made by."""


def write_learning_rates(results: Path, settings: Settings, out: Path) -> None:
    """Write `choose_learning_rate.csv` and `.md` into `out`. Raises UserError where no image is held out."""
    grid = settings.grids[LEARNING_RATE]
    points, point_settings = zip(*ablation_points(settings, LEARNING_RATE), strict=True)
    rates = [_plain(next(iter(point.values()))) for point in points]
    rows = [
        row
        for set_name in settings.measured_on(LEARNING_RATE)
        for method in grid.methods
        for row in _rows(joined(LEARNING_RATE, results, point_settings, method, set_name, settings), rates, method)
    ]
    _correct(rows, len(rates))
    measured = measured_on_text(settings, LEARNING_RATE)
    alpha = 1 - settings.report.confidence
    labels = settings.labels
    blocks = [_head(rows, measured, settings), *_blocks(rows, alpha, labels), *_edges(rows, rates, labels)]
    blocks += _configuration(rows)
    title = f"Choosing the learning rate, on {measured}"
    text.write_rows(out, "choose_learning_rate", rows, title, settings.report.note, blocks)


def _plain(rate: Any) -> str:
    """A rate in digits without an exponent, which YAML 1.1 would not always read as a number."""
    return f"{Decimal(str(rate)):f}"


def _rows(results: SetResults, rates: Sequence[str], method: str) -> list[TextRow]:
    made = results.predictions
    rows = []
    for backbone in made.backbones:

        def at(point: int, level: str, backbone: str = backbone) -> Weights:
            levels = made.levels if level == _MEAN else (int(level),)
            return {Cell(str(point), backbone, one, "top1"): 1 / len(levels) for one in levels}

        means = [results.contrast(at(point, _MEAN)).estimate for point in range(len(rates))]
        best = means.index(max(means))
        for (point, rate), level in ((pair, level) for pair in enumerate(rates) for level in (*made.levels, _MEAN)):
            own, of_best = at(point, str(level)), at(best, str(level))
            value, low, high = map(percent, results.contrast(own)[:3])
            less = {cell: -weight for cell, weight in of_best.items()}
            effect = None if point == best else results.contrast(own | less)
            difference = ["", "", ""] if effect is None else [percent(value) for value in effect[:3]]
            tested = effect is not None and level == _MEAN and len(made.seeds) > 1
            rows.append({
                "method": method, "backbone": backbone, "learning_rate": rate, "set": made.name, "level": str(level),
                "metric": "top1", "value": value, "low": low, "high": high, "n": str(results.outcomes.images),
                "seeds": str(len(made.seeds)), "best": str(point == best).lower(),
                **dict(zip(("difference_to_best", "difference_low", "difference_high"), difference, strict=True)),
                "p": probability(effect.p()) if effect and tested else "",
            })  # fmt: skip
    return rows


def _correct(rows: Sequence[TextRow], rates: int) -> None:
    """Add `p_corrected`: p times the pairs of rates in the table, since the best rate is chosen by the same numbers."""
    pairs = len(grouped(rows, "method", "backbone", "set")) * math.comb(rates, 2)
    for row in rows:
        row["p_corrected"] = probability(min(1.0, pairs * float(row["p"]))) if row["p"] else ""


def _head(rows: Sequence[TextRow], measured: str, settings: Settings) -> str:
    levels = ", ".join(level for (level,) in grouped(rows, "level") if level != _MEAN)
    seen = (
        "No test image was looked at."
        if rows[0]["set"] == HOLDOUT
        else "Test images were looked at: Tables 1 and 2 are no longer independent of the choice."
    )
    return (
        f"Top-1 accuracy in percent on {measured}, with {levels} % of the patches dropped. The best rate of a method and a "
        "backbone has the highest mean over these levels; differences from it are paired, with "
        f"{100 * settings.report.confidence:g} % intervals that are not corrected for the number of rates. {_tested(rows, settings)} "
        f"The best of several values is too high by chance: it chooses a rate and is no result. {seen}"
    )


def _tested(rows: Sequence[TextRow], settings: Settings) -> str:
    """How a rate is told apart from the best."""
    if rows[0]["seeds"] == "1":
        return (
            "With one seed no rate is told apart from the best: how much training runs at one rate differ is unknown."
        )
    return (
        "A rate is told apart from the best by a test over images and seeds, corrected for all pairs of rates in the table "
        f"(Bonferroni, p < {1 - settings.report.confidence:.2g})."
    )


def _blocks(rows: Sequence[TextRow], alpha: float, labels: Labels) -> list[str]:
    """A line for each method and backbone, then every rate at every level."""
    lines, details = [], []
    for (method, backbone, set_name), own in grouped(rows, "method", "backbone", "set").items():
        names = text.model_names(labels, method, backbone)
        means = [row for row in own if row["level"] == _MEAN]
        (best,) = (row for row in means if row["best"] == "true")
        close = [row["learning_rate"] for row in means if row["best"] == "false" and not _told_apart(row, alpha)]
        value = with_interval(best["value"], best["low"], best["high"])
        lines.append(
            [*names, text.escaped(labels.set(set_name)), best["learning_rate"], value, ", ".join(close) or "no other"]
        )
        levels = [level for (level,) in grouped(own, "level")]
        heads = ["Learning rate", *(level if level == _MEAN else f"{level} %" for level in levels), "Less the best"]
        of_rates = [
            [rate, *(f"{float(row['value']):.1f}" for row in at_levels), _difference(at_levels[-1])]
            for (rate,), at_levels in grouped(own, "learning_rate").items()
        ]
        details += [
            f"## {', '.join(names)}, {text.escaped(labels.set(set_name))}",
            text.pipe_table("r" * len(heads), heads, of_rates),
        ]
    heads = ["Method", "Backbone", "Set", "Best rate", "Mean top-1", "Rates not told apart from it"]
    return [text.pipe_table("lllrrl", heads, lines), *details]


def _told_apart(row: TextRow, alpha: float) -> bool:
    return bool(row["p_corrected"]) and float(row["p_corrected"]) < alpha


def _difference(row: TextRow) -> str:
    if row["best"] == "true":
        return "best"
    return with_interval(row["difference_to_best"], row["difference_low"], row["difference_high"], "+.1f")


def _chosen(rows: Iterable[TextRow]) -> dict[str, dict[str, str]]:
    """The best rate by method and backbone; by the first set where there are several."""
    chosen: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["best"] == "true":
            chosen.setdefault(row["method"], {}).setdefault(row["backbone"], row["learning_rate"])
    return chosen


def _edges(rows: Sequence[TextRow], rates: Sequence[str], labels: Labels) -> list[str]:
    """Which best rates lie at an end of the grid, beyond which a better one may lie."""
    ends = {min(rates, key=float): "lowest", max(rates, key=float): "highest"} if len(rates) > 1 else {}
    found = [
        f"- {', '.join(text.model_names(labels, method, backbone))}: {rate} is the {ends[rate]} rate of the grid"
        for method, of_method in _chosen(rows).items()
        for backbone, rate in of_method.items()
        if rate in ends
    ]
    if not found:
        return []
    return ["A better rate may lie beyond the grid (`ablation.learning_rate.grid`):", "\n".join(found)]


def _configuration(rows: Sequence[TextRow]) -> list[str]:
    """The lines of configuration that set the best rates."""
    lines = [
        f"    {method}: {{{', '.join(f'{backbone}: {rate}' for backbone, rate in of_method.items())}}}"
        for method, of_method in _chosen(rows).items()
    ]
    shown = ["```yaml", "training:", "  learning_rates:", *lines, "```"]
    return ["The best rates as configuration:", "\n".join(shown)]
