"""The catalogue: every table and figure by name, what it is made of, and how.

What enters: a configured run. What leaves: `Published` entries in the order in which the report shows them. The rules,
the targets, the command line and the page go over this list and no other; a new table or figure is one entry, and a
function that writes it. Functions are imported when they are called, so a plan needs neither numpy nor matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from dfeat.config import LEARNING_RATE, ResourceSettings, Settings, table_settings
from dfeat.config.points import Run
from dfeat.data.settings import Study
from dfeat.errors import UserError, nearest
from dfeat.methods import REFERENCE, needed
from dfeat.places import TRAIN
from dfeat.report import lacks
from dfeat.report.lacks import Lack
from dfeat.report.numbers.paper import TableName
from dfeat.report.numbers.sets import sets_of, shown_sets, study_sets
from dfeat.storage.provenance import as_argument

Make = Callable[[Path, Settings, Path], None]
"""Writes the files: results/<run>, the settings, the folder that they go to."""


@dataclass(frozen=True)
class Published:
    """A table or a figure: `name` is the stem of its files and the target that makes them; a study's is its own."""

    kind: Literal["table", "figure"]
    name: str
    suffixes: tuple[str, ...]
    make: Make
    files_read: Callable[[Run], list[Path]]
    reads: Callable[[Settings], Settings]
    """The part of the settings that it depends on: what it is given, so that a change elsewhere does not make it again."""
    recipe: str
    """The module whose RECIPE it is made by."""
    category: Literal["Tables", "Figures", "Claims", "Beyond the paper"]
    wanted: Callable[[Settings], bool] | None = lambda settings: True
    """Whether the report of a run wants it; None where it is made by name alone, and shown where it was made."""
    caption: str = ""
    """The caption's name where it is not the entry's own."""
    minutes: int = 30
    lacks: Lack = lambda settings: ""
    """What it cannot be made without. The report leaves it out; where it is asked for, it is refused at once."""

    @property
    def rule(self) -> str:
        """The name of the rule that makes it."""
        return f"{'write' if self.kind == 'table' else 'draw'}_{self.name}"

    @property
    def command(self) -> str:
        """The verb that makes it, with its name."""
        if self.kind == "table" and self.name.startswith(_GRID):
            return f"ablation {self.name.removeprefix(_GRID)}"
        return f"{self.kind} {self.name}"

    @property
    def job(self) -> str:
        """The name of its log and benchmark: a table's is its own, its figure's another where both have one name."""
        shared = self.kind == "figure" and (self.name.startswith(_GRID) or self.name in _STUDIES)
        return f"{self.name}_figure" if shared else self.name

    @property
    def caption_file(self) -> str:
        """The file of its caption, in workflow/report."""
        return f"{self.caption or self.name}.rst"

    def given(self, settings: Settings) -> str:
        """The settings that it is given, as JSON. Raises UserError where they lack what it needs."""
        self._check(settings)
        return as_argument(self.reads(settings))

    def inputs(self, run: Run) -> list[Path]:
        """The files that it reads. Raises UserError where the run lacks what it needs."""
        self._check(run.settings)
        return self.files_read(run)

    def shown(self, settings: Settings) -> bool:
        """Whether the report of a run wants it."""
        return self.wanted is not None and self.wanted(settings) and not self.lacks(settings)

    def _check(self, settings: Settings) -> None:
        lack = self.lacks(settings)
        if lack:
            raise UserError(f"{self.kind} {self.name} {lack}, or leave this {self.kind} out")

    def files(self, run: Run) -> list[Path]:
        """Its files."""
        return run.place.published(self.name, *self.suffixes)


_GRID: Final = "ablation_"
_STUDIES: Final[tuple[Study, ...]] = get_args(Study)
_PICTURE: Final = (".png", ".pdf", ".svg")


def catalogue(settings: Settings) -> list[Published]:
    """All tables and figures of a run, in the order in which the report shows them."""
    grids = [entry for name in settings.ablation for entry in _grid(name)]
    return [*_TABLES, *_FIGURES, *grids]


def wanted(settings: Settings) -> list[Published]:
    """Those that the report of a run wants."""
    return [entry for entry in catalogue(settings) if entry.shown(settings)]


def find(kind: Literal["table", "figure"], name: str, settings: Settings) -> Published:
    """The entry of that name. Raises UserError, naming those that there are."""
    entries = {entry.name: entry for entry in catalogue(settings) if entry.kind == kind}
    if name not in entries:
        raise UserError(f"no {kind} {name!r}{nearest(name, entries)}; use {', '.join(entries)}")
    return entries[name]


def whole_settings(settings: Settings) -> Settings:
    """All settings but for what jobs ask for, where they may take results from, and pins, which are revisions by now."""
    asked = ResourceSettings(threads=settings.resources.threads)
    return settings.model_copy(update={"resources": asked, "base": None, "pins": {}})


def _efficiency_settings(settings: Settings) -> Settings:
    """What the costs depend on: all but resources, and but for what the report alone shows."""
    shown_alone = table_settings(settings, []).report
    kept: dict[str, Any] = {"resources": ResourceSettings(), "report": shown_alone, "base": None, "pins": {}}
    return settings.model_copy(update=kept)


def _sets_of(name: str, settings: Settings) -> tuple[str, ...]:
    """The sets that a table beyond the paper's is made from: those of the study of its name, or of the paper's tables."""
    return next((study_sets(study, settings) for study in _STUDIES if study == name), settings.data.published)


def _indexes(run: Run, sets: Iterable[str]) -> list[Path]:
    return [run.place.index(name) for name in sets]


def _inpaints(settings: Settings) -> bool:
    return "inpainted" in needed(settings.training.methods)


def _of_published(settings: Settings) -> Settings:
    return table_settings(settings, settings.data.published)


def _of_pictures(settings: Settings, sets: Iterable[str] = ()) -> Settings:
    """What pictures of training images and of these sets depend on: all but the other sets."""
    whole = whole_settings(settings)
    kept = {name: settings.data.evaluation[name] for name in sets}
    return whole.model_copy(update={"data": whole.data.model_copy(update={"evaluation": kept})})


def _of_claims(settings: Settings) -> Settings:
    """What the claims depend on; drawn images decide none of them."""
    read = _of_published(settings)
    return read.model_copy(update={"data": read.data.model_copy(update={"drawn": settings.data.drawn})})


def _paper_table(name: TableName) -> Published:
    def make(results: Path, settings: Settings, out: Path) -> None:
        from dfeat.report.tables.published import write_table

        write_table(name, results / "evaluation", settings, out)

    def inputs(run: Run) -> list[Path]:
        sets = sets_of(name, run.settings)
        return [*run.predictions(sets), *run.pretrained_predictions(sets)]

    def reads(settings: Settings) -> Settings:
        return table_settings(settings, sets_of(name, settings))

    return Published(
        "table", name, (".csv", ".md", ".tex"), make, inputs, reads, "dfeat.report", "Tables", lacks=lacks.sets_of_tables(name),
    )  # fmt: skip


def _write_controls(results: Path, settings: Settings, out: Path) -> None:
    from dfeat.report.tables.controls import write_controls

    write_controls(results / "evaluation", settings, out)


def _study(name: str, lack: Lack) -> Published:
    def make(results: Path, settings: Settings, out: Path) -> None:
        from dfeat.report.tables.studies import write_study

        write_study(name, results, settings, out)

    def inputs(run: Run) -> list[Path]:
        sets = _sets_of(name, run.settings)
        return [*run.predictions(sets), *_indexes(run, sets)]

    def reads(settings: Settings) -> Settings:
        return table_settings(settings, _sets_of(name, settings))

    return Published(
        "table", name, (".csv", ".md"), make, inputs, reads, "dfeat.report", "Beyond the paper", caption="study",
        lacks=lack,
    )  # fmt: skip


def _write_efficiency(results: Path, settings: Settings, out: Path) -> None:
    from dfeat.costs.counts import count
    from dfeat.report.tables.efficiency import write_efficiency

    write_efficiency(results, settings, count(settings), out)


def _efficiency_inputs(run: Run) -> list[Path]:
    return [*run.predictions(run.levels), *_indexes(run, [TRAIN, *run.levels])]


def _write_claims(results: Path, settings: Settings, out: Path) -> None:
    from dfeat.report.claims.claims import write_claims

    write_claims(results / "evaluation", settings, out)


def _claims_inputs(run: Run) -> list[Path]:
    # without None nothing is compared, neither in accuracy nor in cost
    cost = run.place.published("efficiency", ".json") if REFERENCE in run.settings.training.methods else []
    return [*run.predictions(run.published), *cost]


def _write_labels(results: Path, settings: Settings, out: Path) -> None:
    from dfeat.report.tables.label_preservation import write_label_preservation

    write_label_preservation(results, settings, out)


def _write_inpaint_quality(results: Path, settings: Settings, out: Path) -> None:
    from dfeat.report.tables.inpaint_quality import write_inpaint_quality

    write_inpaint_quality(results, settings, out)


def _write_learning_rates(results: Path, settings: Settings, out: Path) -> None:
    from dfeat.report.tables.learning_rates import write_learning_rates

    write_learning_rates(results, settings, out)


def _verdicts(run: Run) -> list[Path]:
    tables = [run.place.verdicts(backbone) for backbone in run.settings.training.backbones]
    return [file for table in tables for file in (table, table.with_suffix(".json"))]


def _grid(name: str) -> tuple[Published, Published]:
    """The table and the heat maps of an ablation."""

    def write(results: Path, settings: Settings, out: Path) -> None:
        from dfeat.report.tables.ablations import write_ablation

        write_ablation(name, results, settings, out)

    def draw(results: Path, settings: Settings, out: Path) -> None:
        from dfeat.report.figures.maps import ablation

        ablation(name, results / "report", settings, out)

    stem = f"{_GRID}{name}"
    return (
        Published(
            "table", stem, (".csv", ".md"), write, lambda run: run.point_predictions(name), whole_settings,
            "dfeat.report.tables.ablations", "Beyond the paper", None, "ablation", lacks=lacks.measured(name),
        ),
        Published(
            "figure", stem, _PICTURE, draw, lambda run: run.place.published(stem, ".csv"), whole_settings,
            "dfeat.report.figures.maps", "Beyond the paper", None, "ablation", lacks=lacks.measured(name),
        ),
    )  # fmt: skip


def _draw_figure2(results: Path, settings: Settings, out: Path) -> None:
    from dfeat.report.figures.examples import draw_figure2

    draw_figure2(results, settings, out)


def _draw_figure3(results: Path, settings: Settings, out: Path) -> None:
    from dfeat.report.figures.examples import draw_figure3

    draw_figure3(results, settings, out)


def _draw_accuracy(results: Path, settings: Settings, out: Path) -> None:
    from dfeat.report.figures.curves import accuracy

    accuracy(results / "evaluation", settings, out)


def _draw_gain(results: Path, settings: Settings, out: Path) -> None:
    from dfeat.report.figures.curves import gain

    gain(results / "evaluation", settings, out)


def _draw_cost(results: Path, settings: Settings, out: Path) -> None:
    from dfeat.report.figures.maps import cost

    cost(results / "report", settings, out)


def _draw_part_cost(results: Path, settings: Settings, out: Path) -> None:
    from dfeat.report.figures.maps import part_cost

    part_cost(results / "report", settings, out)


def _draw_sheet(results: Path, settings: Settings, out: Path) -> None:
    from dfeat.report.figures.examples import draw_sheet

    draw_sheet(results, settings, out)


def _draw_gallery(results: Path, settings: Settings, out: Path) -> None:
    from dfeat.report.figures.gallery import draw_gallery

    draw_gallery(results, settings, out)


def _inpainted_shards(run: Run) -> list[Path]:
    return [run.place.index(TRAIN), run.place.parts(), *run.shards("", "inpaint", TRAIN)]


def _inpainted_pixels(run: Run) -> list[Path]:
    return [run.place.index(TRAIN), run.place.parts(), run.place.pixels(TRAIN), run.place.inpainted()]


_TABLES: Final = (
    _paper_table("table1"),
    _paper_table("table2"),
    Published(
        "table", "controls", (".csv", ".md", ".tex"), _write_controls, lambda run: run.predictions(run.published), _of_published,
        "dfeat.report", "Tables", lacks=lacks.any_of(lacks.control, lacks.published_sets),
    ),
    Published(
        "table", "efficiency", (".csv", ".json", ".md"), _write_efficiency, _efficiency_inputs, _efficiency_settings,
        "dfeat.report", "Tables", lacks=lacks.any_of(lacks.reference, lacks.any_set),
    ),
    Published("table", "claims", (".md",), _write_claims, _claims_inputs, _of_claims, "dfeat.report.claims", "Claims"),
    _study("calibration", lacks.published_sets),
    _study("per_class", lacks.any_of(lacks.comparison, lacks.published_sets)),
    *(_study(name, lacks.study(name)) for name in _STUDIES),
    Published(
        "table", "inpaint_quality", (".csv", ".md"), _write_inpaint_quality, _inpainted_pixels, _of_pictures,
        "dfeat.report", "Beyond the paper", _inpaints, "study",
    ),
    Published(
        "table", "label_preservation", (".csv", ".md"), _write_labels, _verdicts, _of_published,
        "dfeat.report", "Beyond the paper", None, "study",
    ),
    Published(
        "table", "choose_learning_rate", (".csv", ".md"), _write_learning_rates,
        lambda run: run.point_predictions(LEARNING_RATE), whole_settings,
        "dfeat.report.tables.learning_rates", "Beyond the paper", None, lacks=lacks.rates,
    ),
)  # fmt: skip

_FIGURES: Final = (
    Published(
        "figure", "figure2", _PICTURE, _draw_figure2, _inpainted_shards, _of_pictures,
        "dfeat.report.figures.examples", "Figures", _inpaints,
    ),
    Published(
        "figure", "figure3", _PICTURE, _draw_figure3, lambda run: _indexes(run, shown_sets(run.settings)),
        lambda settings: _of_pictures(settings, shown_sets(settings)), "dfeat.report.figures.examples", "Figures", lacks=lacks.sets_of_tables("table1", "table2"),
    ),
    Published(
        "figure", "accuracy", _PICTURE, _draw_accuracy,
        lambda run: run.predictions(sets_of("table1", run.settings)),
        lambda settings: table_settings(settings, sets_of("table1", settings)),
        "dfeat.report.figures.curves", "Figures", lacks=lacks.sets_of_tables("table1"),
    ),
    Published(
        "figure", "gain", _PICTURE, _draw_gain, lambda run: run.predictions(run.published), _of_published,
        "dfeat.report.figures.curves", "Figures", lacks=lacks.any_of(lacks.comparison, lacks.published_sets),
    ),
    Published(
        "figure", "cost", _PICTURE, _draw_cost, lambda run: run.place.published("efficiency", ".csv"),
        lambda settings: table_settings(settings, settings.data.evaluation),
        "dfeat.report.figures.maps", "Figures", lacks=lacks.any_of(lacks.comparison, lacks.sets_of_tables("table1")),
    ),
    Published(
        "figure", "part_cost", _PICTURE, _draw_part_cost, lambda run: run.place.published("part_cost", ".csv"),
        _of_published, "dfeat.report.figures.maps", "Figures", lambda settings: not lacks.study("part_cost")(settings),
    ),
    Published(
        "figure", "gallery", (*_PICTURE, ".json"), _draw_gallery, _inpainted_pixels, _of_pictures,
        "dfeat.report.figures.gallery", "Figures", _inpaints, minutes=60,
    ),
    Published(
        "figure", "sheet", _PICTURE, _draw_sheet, _inpainted_shards, _of_pictures,
        "dfeat.report.figures.examples", "Figures", None,
    ),
)  # fmt: skip
