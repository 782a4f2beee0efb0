"""Figures 2 and 3 of the paper: example images, occluded and inpainted, and test images with both kinds of occlusion.

What enters: a run's folder. What leaves: `figure2` and `figure3` as `.png` and `.svg`. The images are drawn at random by
seed, one of a class, spread over the classes; none is selected by its appearance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from dfeat.config import Settings
from dfeat.data.index import Index, Record, read_index
from dfeat.data.pixels import evaluation_crop
from dfeat.errors import UserError
from dfeat.methods.method import Pixels
from dfeat.methods.paint import black_out
from dfeat.occlusion.parts import read_parts
from dfeat.occlusion.patches import drop_for
from dfeat.places import TRAIN, Place
from dfeat.randomness import rng_for
from dfeat.report.figures.sheet import read_inpainted
from dfeat.report.figures.style import picture_grid, styled
from dfeat.report.numbers.sets import sets_of

RECIPE: Final = 1
COLUMNS: Final = 6
SHOWN_LEVEL: Final = 60
"""Figure 3 shows simulated occlusion at 60 %, as the paper's does."""


def draw_figure2(results: Path, settings: Settings, out: Path) -> None:
    """Draw Figure 2: training images, occluded and inpainted."""
    place = Place(results)
    index, parts = read_index(place.data(TRAIN)), read_parts(place.parts())
    chosen = _one_a_class(index, [record for record in index.records if record.key in parts.rows], settings)
    inpainted = read_inpainted(results, {record.key for record in chosen})
    images = []
    for record in chosen:
        original = index.load(record)
        occluded = black_out(original, parts.mask(record.key))
        images.append((index.classes[record.label].name, original, occluded, inpainted[record.key]))
    figure2(images, settings, out)


def draw_figure3(results: Path, settings: Settings, out: Path) -> None:
    """Draw Figure 3: test images, with patches dropped and really occluded."""
    simulated = next(iter(sets_of("table1", settings)), None)
    real = next(iter(sets_of("table2", settings)), None)
    if simulated is None or real is None:
        raise UserError(
            "figure3 needs an evaluation set with several levels and one with a single level in data.evaluation"
        )
    rows = [_test_images(results, settings, name, level) for name, level in ((simulated, SHOWN_LEVEL), (real, 0))]
    figure3(rows[0], rows[1], settings, out)


@styled()
def figure2(images: Sequence[tuple[str, Pixels, Pixels, Pixels]], settings: Settings, out: Path) -> None:
    """Figure 2: rows original, occluded, inpainted; one column for each (title, original, occluded, inpainted)."""
    titles, *rows = _rows("figure2", images)
    picture_grid("figure2", ["Original", "Occluded", "Inpainted"], rows, [titles, [], []], settings, out)


@styled()
def figure3(
    simulated: Sequence[tuple[str, Pixels]], real: Sequence[tuple[str, Pixels]], settings: Settings, out: Path
) -> None:
    """Figure 3: row 1 simulated occlusion at 60 % information loss, row 2 real occlusion; (title, image) each."""
    titles, rows = zip(*(_rows("figure3", images) for images in (simulated, real)), strict=True)
    picture_grid("figure3", ["Simulated, 60 %", "Real"], rows, list(titles), settings, out)


def _rows(name: str, images: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """Columns of pictures as rows. Raises UserError where there are none."""
    if not images:
        raise UserError(f"{name} got no images; give at least one column, e.g. one image each of six classes")
    return [list(row) for row in zip(*images, strict=True)]


def _test_images(results: Path, settings: Settings, name: str, level: int) -> list[tuple[str, Pixels]]:
    """(class name, evaluation crop) of COLUMNS images of a set, occluded at `level`."""
    size, crop_pct = settings.training.image_size, settings.evaluation.crop_pct
    index = read_index(Place(results).data(name))
    images = []
    for record in _one_a_class(index, list(index.records), settings):
        crop = evaluation_crop(index.load(record), crop_pct, size)
        if level:
            shape = (record.height, record.width)
            crop = black_out(crop, drop_for(settings.occlusion, record.key, level, size, shape, crop_pct))
        images.append((index.classes[record.label].name, crop))
    return images


def _one_a_class(index: Index, records: list[Record], settings: Settings) -> list[Record]:
    """COLUMNS random images of different classes, which are spread evenly over all classes."""
    by_class: dict[int, list[Record]] = {}
    for record in records:
        by_class.setdefault(record.label, []).append(record)
    labels = sorted(by_class)
    rng = rng_for(settings.report.seed, index.set_name, "pictures")
    spread = [labels[int(position)] for position in np.linspace(0, len(labels) - 1, min(COLUMNS, len(labels)))]
    return [by_class[label][int(rng.integers(len(by_class[label])))] for label in spread]
