"""Which evaluation sets belong to which table, and which tables and figures a run's report shows.

What enters: the settings. What leaves: names. Snakemake asks as well, so nothing heavy is imported.
"""

from __future__ import annotations

from typing import Final

from dfeat.errors import UserError
from dfeat.evaluation.paper import TableName
from dfeat.settings import Settings, Study

STUDY_TABLES: Final[dict[str, Study]] = {"sweep": "sweep", "object": "object", "part_cost": "parts"}
"""The tables that want sets of a study, and which."""


def sets_of(table: TableName, settings: Settings) -> tuple[str, ...]:
    """The sets of a table: those with several levels of simulated occlusion in table 1, with a single one in table 2.

    Sets with a study of their own are in neither.
    """
    sets = {name: entry for name, entry in settings.data.evaluation.items() if entry.study is None}
    return tuple(name for name, entry in sets.items() if (len(entry.levels) > 1) == (table == "table1"))


def published_sets(settings: Settings) -> tuple[str, ...]:
    """The sets of both tables, in the settings' order."""
    return tuple(name for name, entry in settings.data.evaluation.items() if entry.study is None)


def study_sets(study: Study, settings: Settings) -> tuple[str, ...]:
    """The sets of a study. Raises UserError where there is none."""
    found = tuple(name for name, entry in settings.data.evaluation.items() if entry.study == study)
    if not found:
        raise UserError(
            f"no set of data.evaluation has `study: {study}`; config/beyond.yaml has one, docs/evidence.md tells of it"
        )
    return found


def asked_tables(settings: Settings) -> tuple[str, ...]:
    """The tables beyond the paper's that the report shows: those that the run's methods and sets allow."""
    studies = {entry.study for entry in settings.data.evaluation.values()}
    compared = ("per_class",) if _compares(settings) else ()
    return ("calibration", *compared, *(table for table, study in STUDY_TABLES.items() if study in studies))


def asked_figures(settings: Settings) -> tuple[str, ...]:
    """The figures that the report shows; inpainted images among them where a method of the run inpaints."""
    inpaints = "sd_inpaint" in settings.training.methods
    cost = ("cost",) if _compares(settings) and sets_of("table1", settings) else ()
    parts = ("part_cost",) if "part_cost" in asked_tables(settings) else ()
    pairs = ("figure2",) if inpaints else ()
    gallery = ("gallery",) if inpaints else ()
    return (*pairs, "figure3", "accuracy", "gain", *gallery, *cost, *parts)


def _compares(settings: Settings) -> bool:
    """Whether there is a method to compare with None."""
    return "none" in settings.training.methods and len(settings.training.methods) > 1
