"""Which tables and figures a run's report shows.

What enters: the settings. What leaves: names. Snakemake asks as well, so nothing heavy is imported.
"""

from __future__ import annotations

from dfeat.config import Settings
from dfeat.methods import REFERENCE, needed
from dfeat.report.numbers.sets import STUDY_TABLES, sets_of


def asked_tables(settings: Settings) -> tuple[str, ...]:
    """The tables beyond the paper's that the report shows: those that the run's methods and sets allow."""
    studies = {entry.study for entry in settings.data.evaluation.values()}
    compared = ("per_class",) if _compares(settings) else ()
    return ("calibration", *compared, *(table for table, study in STUDY_TABLES.items() if study in studies))


def asked_figures(settings: Settings) -> tuple[str, ...]:
    """The figures that the report shows; inpainted images among them where a method of the run inpaints."""
    inpaints = "inpainted" in needed(settings.training.methods)
    cost = ("cost",) if _compares(settings) and sets_of("table1", settings) else ()
    parts = ("part_cost",) if "part_cost" in asked_tables(settings) else ()
    pairs = ("figure2",) if inpaints else ()
    gallery = ("gallery",) if inpaints else ()
    return (*pairs, "figure3", "accuracy", "gain", *gallery, *cost, *parts)


def _compares(settings: Settings) -> bool:
    """Whether there is a method to compare with None."""
    return REFERENCE in settings.training.methods and len(settings.training.methods) > 1
