"""Example images: Figures 2 and 3 of the paper, and the contact sheet of originals, parts, occluded and inpainted.

What enters: a run's folder. What leaves: `figure2`, `figure3` and `sheet` as `.png`, `.pdf` and `.svg`. The images are drawn at
random by seed, in the figures one of a class, spread over the classes; none is selected by its appearance.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dfeat.config import Settings
from dfeat.data.crops import view_keys
from dfeat.data.index import Index, Record, read_index
from dfeat.data.pixels import PixelCache, copies_in, evaluation_crop, resize
from dfeat.errors import UserError
from dfeat.methods.method import Pixels
from dfeat.methods.paint import black_out
from dfeat.occlusion.parts import Parts, read_parts
from dfeat.occlusion.patches import drop_for
from dfeat.places import TRAIN, Place
from dfeat.progress import say
from dfeat.randomness import rng_for
from dfeat.report.figures.style import picture_grid
from dfeat.report.numbers.sets import shown_sets
from dfeat.storage.expected import shards_in
from dfeat.storage.shards import read_shard

RECIPE: Final = 3
COLUMNS: Final = 6
SHOWN_LEVEL: Final = 60
"""Figure 3 shows simulated occlusion at 60 %, as the paper's does."""
SHEET_COLUMNS: Final = 8
HIDDEN, KEPT = (230, 159, 0), (0, 114, 178)
"""Orange and blue of Okabe and Ito's palette, which colour-blind people can tell apart."""


def draw_figure2(results: Path, settings: Settings, out: Path) -> None:
    """Draw Figure 2: training images, occluded and inpainted."""
    place = Place(results)
    index = read_index(place.data(TRAIN))
    parts = read_parts(place.parts(), index=index.digest)
    chosen = _one_a_class(index, [record for record in index.records if record.key in parts.rows], settings)
    inpainted = read_inpainted(results, {record.key for record in chosen}, index, parts)
    images = []
    for record in chosen:
        original = picture_of(record, index)
        occluded = black_out(original, parts.mask(record.key))
        images.append((index.classes[record.label].name, original, occluded, inpainted[record.key]))
    figure2(images, settings, out)


def draw_figure3(results: Path, settings: Settings, out: Path) -> None:
    """Draw Figure 3: test images, with patches dropped and really occluded."""
    simulated, real = shown_sets(settings)
    rows = [_test_images(results, settings, name, level) for name, level in ((simulated, SHOWN_LEVEL), (real, 0))]
    figure3(rows[0], rows[1], settings, out)


def figure2(images: Sequence[tuple[str, Pixels, Pixels, Pixels]], settings: Settings, out: Path) -> None:
    """Figure 2: rows original, occluded, inpainted; one column for each (title, original, occluded, inpainted)."""
    titles, *rows = _rows("figure2", images)
    picture_grid("figure2", ["Original", "Occluded", "Inpainted"], rows, [titles, [], []], settings, out)


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
        crop = evaluation_crop(picture_of(record, index), crop_pct, size)
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


def draw_sheet(results: Path, settings: Settings, out: Path) -> None:
    """Draw the contact sheet of SHEET_COLUMNS training images of a run into `out`."""
    place = Place(results)
    index = read_index(place.data(TRAIN))
    parts = read_parts(place.parts(), index=index.digest)
    having = [record for record in index.records if record.key in parts.rows]
    order = rng_for(settings.report.seed, index.set_name, "sheet").permutation(len(having))
    chosen = [having[position] for position in sorted(order[:SHEET_COLUMNS])]
    filled = read_inpainted(results, {record.key for record in chosen}, index, parts)
    rows: list[list[Pixels]] = [[], [], [], []]
    for record in chosen:
        original, hidden = picture_of(record, index), parts.mask(record.key)
        coloured = tinted(tinted(original, parts.mask(record.key, "object"), KEPT), hidden, HIDDEN)
        pictures = (original, coloured, black_out(original, hidden), filled[record.key])
        for row, picture in zip(rows, pictures, strict=True):
            row.append(picture)
    titles = [[record.key for record in chosen], [], [], []]
    picture_grid("sheet", ["Original", "Parts", "Occluded", "Inpainted"], rows, titles, settings, out)


def picture_of(record: Record, index: Index) -> Pixels:
    """The picture of a record, (H, W, 3) at its own size: its file, or where that is gone, what the pixel cache has of it."""
    root = Path(index.root)
    lies = root / record.file if root.is_dir() else root
    cache = index.folder / "pixels.h5"
    if lies.exists() or not cache.is_file():
        return index.load(record)
    return resize(_cached_pixels(cache, index.digest)[record.key], record.height, record.width)


@lru_cache(maxsize=1)
def _cached_pixels(path: Path, index: str) -> PixelCache:
    say(f"the images of {path.parent.name} are gone; they are shown as {path} has them")
    return PixelCache(path, index=index, parts="")


def read_inpainted(results: Path, keys: set[str], index: Index, parts: Parts) -> dict[str, Pixels]:
    """Read the inpainted training images of those keys, (H, W, 3) each at its own size; of several copies the first.

    Raises UserError where one is missing.
    """
    folder = Place(results).view("inpaint", TRAIN)
    found: dict[str, Pixels] = {}
    for path in shards_in(folder):
        shard = read_shard(path, "inpaint", index=index.digest, parts=parts.digest)
        images, copies = dict(zip(shard.keys, shard.payload, strict=True)), copies_in(shard)
        for key in keys:
            if encoded := images.get(view_keys(key, copies)[0]):
                found[key] = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    if missing := sorted(keys - found.keys()):
        raise UserError(f"{folder} lacks {len(missing)} images ({missing[0]}, ...); make them with `dfeat inpaint`")
    return found


def tinted(image: Pixels, mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> Pixels:
    """The image (H, W, 3), its masked pixels replaced by the mean of their grey value and the colour."""
    grey = image.mean(axis=-1, keepdims=True)
    blend = (0.5 * grey + 0.5 * np.array(colour)).astype(np.uint8)
    return np.where(mask[..., None], blend, image)
