"""Which evaluation sets belong to which table.

What enters: the settings. What leaves: names. The workflow imports this module too, so it imports nothing heavy.
"""

from __future__ import annotations

from dfeat.config import Settings
from dfeat.data.settings import Study
from dfeat.report.numbers.paper import TableName


def sets_of(table: TableName, settings: Settings) -> tuple[str, ...]:
    """The sets of a table: those with several levels of simulated occlusion in table 1, with a single one in table 2.

    Sets with a study of their own are in neither.
    """
    sets = settings.data.evaluation
    return tuple(name for name in settings.data.published if (len(sets[name].levels) > 1) == (table == "table1"))


def shown_sets(settings: Settings) -> tuple[str, ...]:
    """The sets whose images Figure 3 shows: the first of each table."""
    return (*sets_of("table1", settings)[:1], *sets_of("table2", settings)[:1])


def study_sets(study: Study, settings: Settings) -> tuple[str, ...]:
    """The sets of a study."""
    return tuple(name for name, entry in settings.data.evaluation.items() if entry.study == study)
