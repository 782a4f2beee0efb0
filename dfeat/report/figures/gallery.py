"""Inpainted training images compared with the hidden originals: the most and the least similar, and a gallery.

What enters: the pixel caches of the training set and of its inpainted images, and the chosen parts. What leaves:
`gallery.png`, `.pdf` and `.svg`, the images whose inpainting is most and least similar to the original, at most one of a class,
and `gallery.json`, thumbnails of a sample drawn by seed, under every method that paints parts.

The measure is the peak signal-to-noise ratio over the hidden pixels alone, PSNR = 10 log10(255^2 / MSE) in dB, of the
inpainted image against the original. It measures closeness to the original, not plausibility: a plausible fill that
differs scores low, and one that looks odd may score high. Of several inpainted copies of an image the first is used.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dfeat import methods
from dfeat.config import Settings
from dfeat.data.crops import view_keys
from dfeat.data.index import Index, Record, read_index
from dfeat.data.pixels import PixelCache
from dfeat.errors import UserError
from dfeat.methods.method import Method, Pixels, Twin
from dfeat.methods.paint import black_out, partner_order, reached
from dfeat.occlusion.parts import Parts, read_parts
from dfeat.places import TRAIN, Place
from dfeat.progress import progress
from dfeat.randomness import rng_for
from dfeat.report.figures.style import picture_grid
from dfeat.storage.atomic import write_json

RECIPE: Final = 3
COLUMNS: Final = 6
"""Columns of the figure: the number of best images, and of worst."""
THUMBNAIL: Final = 160
"""Longest side of a thumbnail in pixels; smaller pictures keep their size."""


@dataclass(frozen=True)
class Pictures:
    """The images of the training set, with their hidden parts and inpaintings."""

    index: Index
    parts: Parts
    originals: PixelCache
    inpainted: PixelCache
    partner: dict[str, str]

    def mask(self, key: str) -> NDArray[np.bool_]:
        """The hidden pixels at the cached picture's size."""
        height, width = self.originals[key].shape[:2]
        picture = Image.fromarray(self.parts.mask(key).astype(np.uint8) * 255)
        return np.asarray(picture.resize((width, height), Image.Resampling.NEAREST)) > 127

    def filled(self, key: str) -> Pixels:
        """The inpainted picture of an image; of several copies the first."""
        return self.inpainted[view_keys(key, self.inpainted.copies)[0]]

    def class_name(self, record: Record) -> str:
        """The name of the record's class."""
        return self.index.classes[record.label].name


def psnr(a: Pixels, b: Pixels, where: NDArray[np.bool_]) -> float:
    """PSNR in dB of two pictures (H, W, 3) over the pixels `where` (H, W); infinity where they are equal."""
    difference = a[where].astype(np.float64) - b[where].astype(np.float64)
    error = float(np.mean(difference**2)) if difference.size else 0.0
    return 10 * math.log10(255**2 / error) if error else math.inf


def draw_gallery(results: Path, settings: Settings, out: Path) -> None:
    """Write `gallery.png`, `.pdf`, `.svg` and `.json` of the run into the folder `out`."""
    images = _pictures(results, settings)
    records = [record for record in images.index.records if record.key in images.parts.rows]
    if not records:
        raise UserError("gallery: no training image has a part that could be hidden; see data/train/problems.csv")
    scores = {}
    with progress(len(records), "images compared") as bar:
        for record in records:
            key = record.key
            scores[key] = psnr(images.originals[key], images.filled(key), images.mask(key))
            bar.update()
    _draw_extremes(images, records, scores, settings, out)
    chosen = sample(records, settings.report.gallery, rng_for(settings.report.seed, TRAIN, "gallery"))
    pictures = [entry for record in chosen for entry in _thumbnails(images, record, scores[record.key], settings)]
    write_json(out / "gallery.json", {"recipe": RECIPE, "images": len(records), "pictures": pictures})


def _pictures(results: Path, settings: Settings) -> Pictures:
    place = Place(results)
    index = read_index(place.data(TRAIN))
    parts = read_parts(place.parts(), index=index.digest)
    originals = PixelCache(place.pixels(TRAIN), index=index.digest, parts="")
    inpainted = PixelCache(place.inpainted(), index=index.digest, parts=parts.digest)
    partners = partner_order([record.key for record in index.records], settings.occlusion.seed)
    return Pictures(index, parts, originals, inpainted, partners)


def _draw_extremes(
    images: Pictures, records: Sequence[Record], scores: dict[str, float], settings: Settings, out: Path
) -> None:
    """The figure: three rows of the most similar fills, three of the least; images with nothing to compare are left out."""
    compared = [record for record in records if math.isfinite(scores[record.key])] or list(records)
    ranked = sorted(compared, key=lambda record: (-scores[record.key], record.key))
    rows: list[list[Pixels]] = []
    titles: list[list[str]] = []
    for chosen in (one_a_class(ranked), one_a_class(ranked[::-1])):
        keys = [record.key for record in chosen]
        rows.append([images.originals[key] for key in keys])
        rows.append([black_out(images.originals[key], images.mask(key)) for key in keys])
        rows.append([images.filled(key) for key in keys])
        titles += [[f"{scores[r.key]:.1f} dB, {images.class_name(r)}" for r in chosen], [], []]
    labels = [f"{which}: {row}" for which in ("Best", "Worst") for row in ("original", "occluded", "inpainted")]
    picture_grid("gallery", labels, rows, titles, settings, out)


def one_a_class(ranked: Sequence[Record]) -> list[Record]:
    """The first COLUMNS records of different classes."""
    first: dict[int, Record] = {}
    for record in ranked:
        first.setdefault(record.label, record)
    return list(first.values())[:COLUMNS]


def sample(records: Sequence[Record], count: int, rng: np.random.Generator) -> list[Record]:
    """Draw `count` records, as evenly over the classes as possible, sorted by class and key."""
    by_class: dict[int, list[Record]] = {}
    for position in rng.permutation(len(records)):
        by_class.setdefault(records[position].label, []).append(records[position])
    rounds = [record for same in zip_longest(*by_class.values()) for record in same if record is not None]
    return sorted(rounds[:count], key=lambda record: (record.label, record.key))


def _thumbnails(images: Pictures, record: Record, score: float, settings: Settings) -> Iterator[dict[str, Any]]:
    """The original, and the twin that each of the run's methods that change pictures makes of it."""
    changed = [
        one
        for one in methods.METHODS
        if one.name in settings.training.methods
        and ("inpainted" in one.needs or (one.paint and "features" not in one.needs))
    ]
    shown = {"Original": (images.originals[record.key], False)}
    shown |= {
        settings.labels.method(one.name): (_twin_of(one, images, record.key, settings), "inpainted" in one.needs)
        for one in changed
    }
    for title, (picture, inpainted) in shown.items():
        yield {
            "key": record.key, "class": images.class_name(record), "method": title,
            "psnr": round(score, 2) if inpainted and math.isfinite(score) else None, "picture": _data_url(picture),
        }  # fmt: skip


def _twin_of(one: Method, images: Pictures, key: str, settings: Settings) -> Pixels:
    """The whole picture of an image's occluded twin, as training would crop it."""
    original = images.originals[key]
    picture = images.filled(key) if "inpainted" in one.needs else original
    if one.paint is None:
        return picture

    def partner() -> Pixels:
        other = Image.fromarray(images.originals[images.partner[key]])
        return np.asarray(other.resize((original.shape[1], original.shape[0]), Image.Resampling.BICUBIC))

    def rng() -> np.random.Generator:
        return rng_for(settings.report.seed, key, one.name)

    options = settings.training.model_dump(include=set(one.reads))
    hidden = reached(images.parts.runs(key), *picture.shape[:2]) if one.whole else images.mask(key) & one.parts
    return one.paint(Twin(picture, hidden, partner, rng, options))


def _data_url(pixels: Pixels) -> str:
    """A picture as a WebP data URL, at most THUMBNAIL pixels a side."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=85, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
