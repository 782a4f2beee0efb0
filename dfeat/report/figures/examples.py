"""The pictures that figures 2 and 3 show: which images, and how they get there.

What enters: a run's folder. What leaves: the figures, drawn by `curves`. The images are drawn by
seed, one of a class, spread over the classes; nothing is picked by how it looks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dfeat.config import Settings
from dfeat.data.index import Index, Record, read_index
from dfeat.data.pixels import evaluation_crop
from dfeat.errors import UserError
from dfeat.methods.paint import black_out
from dfeat.occlusion.parts import read_parts
from dfeat.occlusion.patches import drop_for
from dfeat.randomness import rng_for
from dfeat.report.figures import curves
from dfeat.report.figures.sheet import read_inpainted
from dfeat.report.numbers.sets import sets_of

RECIPE: Final = 1
COLUMNS: Final = 6
SHOWN_LEVEL: Final = 60
"""Figure 3 shows simulated occlusion at 60 %, as the paper's does."""


def draw_figure2(results: Path, settings: Settings, out: Path) -> None:
    """Draw Figure 2: training images, occluded and inpainted."""
    curves.figure2(_inpainted(results, settings), settings, out)


def draw_figure3(results: Path, settings: Settings, out: Path) -> None:
    """Draw Figure 3: test images, with patches dropped and really occluded."""
    curves.figure3(*_test_images(results, settings), settings, out)


def _inpainted(
    results: Path, settings: Settings
) -> list[tuple[str, NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]]:
    """(class name, original, occluded, inpainted) of COLUMNS training images."""
    index = read_index(results / "data" / "train")
    parts = read_parts(results / "occlusion" / "parts.json")
    chosen = _one_a_class(index, [record for record in index.records if record.key in parts.rows], settings)
    inpainted = read_inpainted(results, {record.key for record in chosen})
    columns = []
    for record in chosen:
        original = index.load(record)
        occluded = black_out(original, parts.mask(record.key))
        columns.append((index.classes[record.label].name, original, occluded, inpainted[record.key]))
    return columns


def _test_images(
    results: Path, settings: Settings
) -> tuple[list[tuple[str, NDArray[np.uint8]]], list[tuple[str, NDArray[np.uint8]]]]:
    """Simulated and really occluded test images, (class name, evaluation crop) each."""
    simulated = next(iter(sets_of("table1", settings)), None)
    real = next(iter(sets_of("table2", settings)), None)
    if simulated is None or real is None:
        raise UserError(
            "figure3 needs an evaluation set with several levels and one with a single level in data.evaluation"
        )
    size, crop_pct = settings.training.image_size, settings.evaluation.crop_pct
    rows = []
    for name, level in ((simulated, SHOWN_LEVEL), (real, 0)):
        index = read_index(results / "data" / name)
        row = []
        for record in _one_a_class(index, list(index.records), settings):
            crop = evaluation_crop(index.load(record), crop_pct, size)
            if level:
                shape = (record.height, record.width)
                crop = black_out(crop, drop_for(settings.occlusion, record.key, level, size, shape, crop_pct))
            row.append((index.classes[record.label].name, crop))
        rows.append(row)
    return rows[0], rows[1]


def _one_a_class(index: Index, records: list[Record], settings: Settings) -> list[Record]:
    """COLUMNS images of different classes, the classes spread over the list, drawn by the report's seed."""
    by_class: dict[int, list[Record]] = {}
    for record in records:
        by_class.setdefault(record.label, []).append(record)
    labels = sorted(by_class)
    rng = rng_for(settings.report.seed, index.set_name, "pictures")
    spread = [labels[int(position)] for position in np.linspace(0, len(labels) - 1, min(COLUMNS, len(labels)))]
    return [by_class[label][int(rng.integers(len(by_class[label])))] for label in spread]
