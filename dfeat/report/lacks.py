"""What a table or figure cannot be made without, so that it is left out, or refused before anything runs.

What enters: the settings. What leaves: the end of a sentence that begins with the name of the table or figure; empty text
where nothing is lacking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dfeat.config import LEARNING_RATE, RATE_KEY, Settings
from dfeat.data.settings import Study
from dfeat.methods import METHODS, REFERENCE, controlled
from dfeat.report.numbers.paper import TableName
from dfeat.report.numbers.sets import sets_of, study_sets

Lack = Callable[[Settings], str]
_LEVELS: Final[dict[TableName, str]] = {
    "table1": "several levels, such as `levels: [0, 20, 40, 60, 80]`",
    "table2": "a single level, such as `levels: [0]`",
}


def sets_of_tables(*tables: TableName) -> Lack:
    """Whether each of these tables has a set."""

    def lack(settings: Settings) -> str:
        absent = [_LEVELS[table] for table in tables if not sets_of(table, settings)]
        return f"needs a set with {' and one with '.join(absent)}; add it to data.evaluation" if absent else ""

    return lack


def published_sets(settings: Settings) -> str:
    """Whether any of the two tables has a set."""
    if settings.data.published:
        return ""
    return "needs a set of Table 1 or 2, which is one without `study`; add it to data.evaluation"


def study(wanted: Study) -> Lack:
    """Whether there is a set of the study that a table of the same name is of."""
    needs = f"needs a set of data.evaluation with `study: {wanted}`"
    remedy = "config/beyond.yaml has one, docs/evidence.md describes it; add it"
    return lambda settings: "" if study_sets(wanted, settings) else f"{needs}: {remedy}"


def any_set(settings: Settings) -> str:
    """Whether anything is evaluated."""
    return "" if settings.data.evaluation else "needs an evaluation set; add one to data.evaluation"


def reference(settings: Settings) -> str:
    """Whether None is there to compare with."""
    if REFERENCE in settings.training.methods:
        return ""
    return f"compares methods with None; add {REFERENCE!r} to training.methods"


def comparison(settings: Settings) -> str:
    """Whether there is a method to compare with None."""
    methods = settings.training.methods
    if REFERENCE in methods and len(methods) > 1:
        return ""
    return f"needs {REFERENCE!r} and another method in training.methods, which are {', '.join(methods)}; add what is missing"


def control(settings: Settings) -> str:
    """Whether a method has its matched control in the run."""
    if controlled(settings.training.methods):
        return ""
    known = ", ".join(f"{one.name} has {' and '.join(c.name for c in one.controls)}" for one in METHODS if one.controls)
    needs = f"needs a method and one of its matched controls: {known} (config/controls.yaml trains them all)"
    return f"{needs}; add them to training.methods"


def rates(settings: Settings) -> str:
    """Whether a grid varies the learning rate alone, on images that may be looked at."""
    grid = settings.grids[LEARNING_RATE]
    if list(grid.grid) != [RATE_KEY]:
        made = f"is made from ablation.{LEARNING_RATE}, which varies {', '.join(grid.grid)}"
        return f"{made}; let it vary {RATE_KEY} alone, give that grid another name"
    if grid.on == "test" or settings.data.train.holdout:
        return measured(LEARNING_RATE)(settings)
    return (
        "is measured on images held out of training, and data.train.holdout is 0; hold out images of each class, for "
        "example data.train.holdout: 10 (models are then trained anew, on the other images)"
    )


def measured(grid: str) -> Lack:
    """Whether there are sets that the points of a grid are measured on."""
    return lambda settings: "" if settings.measured_on(grid) else published_sets(settings)


def any_of(*lacks: Lack) -> Lack:
    """The first of several."""
    return lambda settings: next(filter(None, (lack(settings) for lack in lacks)), "")
