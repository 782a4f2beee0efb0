"""Which evaluation sets belong to which table.

What enters: the settings. What leaves: names. The workflow imports this module too, so it imports nothing heavy.
"""

from __future__ import annotations

from typing import Final

from dfeat.config import LEARNING_RATE, RATE_KEY, Ablation, Settings
from dfeat.data.settings import Study
from dfeat.errors import UserError
from dfeat.report.numbers.paper import TableName

STUDY_TABLES: Final[dict[str, Study]] = {"sweep": "sweep", "object": "object", "part_cost": "parts"}
"""The tables made from sets of a study, and the study of each."""


def sets_of(table: TableName, settings: Settings) -> tuple[str, ...]:
    """The sets of a table: those with several levels of simulated occlusion in table 1, with a single one in table 2.

    Sets with a study of their own are in neither.
    """
    sets = settings.data.evaluation
    return tuple(name for name in settings.data.published if (len(sets[name].levels) > 1) == (table == "table1"))


def study_sets(study: Study, settings: Settings) -> tuple[str, ...]:
    """The sets of a study. Raises UserError where there is none."""
    found = tuple(name for name, entry in settings.data.evaluation.items() if entry.study == study)
    if not found:
        raise UserError(
            f"no set of data.evaluation has `study: {study}`; config/beyond.yaml has one, docs/evidence.md describes it"
        )
    return found


def rate_grid(settings: Settings) -> Ablation:
    """The grid of choose_learning_rate. Raises UserError where it varies more, or has no images to be measured on."""
    grid = settings.grids[LEARNING_RATE]
    if list(grid.grid) != [RATE_KEY]:
        raise UserError(
            f"choose_learning_rate is made from ablation.{LEARNING_RATE}, which varies {', '.join(grid.grid)}; let it vary "
            f"{RATE_KEY} alone, or give that grid another name"
        )
    if grid.on == "test" or settings.data.train.holdout:
        return grid
    raise UserError(
        "choose_learning_rate is measured on images held out of training, and data.train.holdout is 0; hold out images of "
        "each class, for example data.train.holdout: 10 (models are then trained anew, on the other images)"
    )
