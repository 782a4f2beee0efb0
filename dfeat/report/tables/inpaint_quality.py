"""How well each inpainting fits its image: dark residue, the step at the mask's edge, the difference from the original.

What enters: the pixel caches of the training set and of its inpainted images, and the chosen parts. What leaves:
`inpaint_quality.csv`, a row for all images and one for each, worst first, and `inpaint_quality.md` with the worst.
Of several inpainted copies of an image the first is measured, at the size of the caches.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dfeat.config import Settings
from dfeat.data.crops import view_keys
from dfeat.data.index import read_index
from dfeat.data.pixels import PixelCache, resize
from dfeat.errors import UserError
from dfeat.occlusion.parts import read_parts
from dfeat.places import TRAIN, Place
from dfeat.progress import progress
from dfeat.report.numbers import text
from dfeat.report.numbers.text import TextRow, escaped, percent

DARK: Final = 30
"""Luminance, of 255, below which a pixel is dark: what black residue of an occlusion shows as."""
WORST: Final = 20
"""Images in the Markdown table."""


@dataclass(frozen=True)
class Quality:
    """Sums over the hidden pixels of an image and over the pairs of pixels at the mask's edge; they add."""

    hidden: int = 0
    dark_original: int = 0
    dark: int = 0
    difference: float = 0.0
    edge: int = 0
    step_original: float = 0.0
    step: float = 0.0

    def __add__(self, other: Quality) -> Quality:
        return Quality(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def badness(self) -> tuple[float, float]:
        """Share of hidden pixels that became dark, and by how much the step at the edge grew: larger is worse."""
        darker = (self.dark - self.dark_original) / max(self.hidden, 1)
        return darker, (self.step - self.step_original) / max(self.edge, 1)

    def row(self, key: str, name: str) -> TextRow:
        """The line of the table; a mean over no pixel is empty."""

        def mean(total: float, count: int) -> str:
            return f"{total / count:.4f}" if count else ""

        shares = [percent(count / self.hidden) if self.hidden else "" for count in (self.dark_original, self.dark)]
        return {
            "key": key, "class": name, "hidden": str(self.hidden), "dark_original": shares[0], "dark": shares[1],
            "step_original": mean(self.step_original, self.edge), "step": mean(self.step, self.edge),
            "difference": mean(self.difference, self.hidden),
        }  # fmt: skip


def measure(original: NDArray[np.uint8], inpainted: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Quality:
    """Compare an inpainted image with its original, both (H, W, 3) uint8; `mask` (H, W) is True where hidden."""
    before, after = luminance(original), luminance(inpainted)
    apart = np.abs(original[mask].astype(np.float64) - inpainted[mask])
    edge, (step_original, step) = 0, (0.0, 0.0)
    for axis in (0, 1):
        # Neighbours of which one is hidden and the other visible.
        across = np.diff(mask, axis=axis)
        edge += int(across.sum())
        step_original += float(np.abs(np.diff(before, axis=axis))[across].sum())
        step += float(np.abs(np.diff(after, axis=axis))[across].sum())
    dark_original, dark = (int((values[mask] < DARK).sum()) for values in (before, after))
    return Quality(int(mask.sum()), dark_original, dark, float(apart.mean(axis=-1).sum()), edge, step_original, step)


def luminance(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Luminance (H, W), 0 to 255, of an image (H, W, 3)."""
    # ITU-R BT.601: Y = 0.299 R + 0.587 G + 0.114 B
    weighted: NDArray[np.float64] = image @ np.array([0.299, 0.587, 0.114])
    return weighted


def write_inpaint_quality(results: Path, settings: Settings, out: Path) -> None:
    """Write `inpaint_quality.csv` and `.md` of the run into the folder `out`."""
    place = Place(results)
    index = read_index(place.data(TRAIN))
    parts = read_parts(place.parts(), index=index.digest)
    originals = PixelCache(place.pixels(TRAIN), index=index.digest, parts="")
    inpainted = PixelCache(place.inpainted(), index=index.digest, parts=parts.digest)
    records = [record for record in index.records if record.key in parts.rows]
    if not records:
        raise UserError(
            "inpaint_quality: no training image has a part that could be hidden; see data/train/problems.csv"
        )
    each: dict[str, Quality] = {}
    with progress(len(records), "images compared") as bar:
        for record in records:
            original, filled = originals[record.key], inpainted[view_keys(record.key, inpainted.copies)[0]]
            mask = resize(parts.mask(record.key), *original.shape[:2])
            each[record.key] = measure(original, filled, mask)
            bar.update()
    ranked = sorted(records, key=lambda record: (*(-value for value in each[record.key].badness), record.key))
    whole = sum(each.values(), Quality())
    named = [each[record.key].row(record.key, index.classes[record.label].name) for record in ranked]
    rows = [whole.row("", "all images"), *named]
    worse = sum(one.badness[0] > 0.1 for one in each.values())
    text.write_rows(
        out, "inpaint_quality", rows, "How well do inpaintings fit?", settings.report.note, _blocks(rows, worse)
    )


def _blocks(rows: list[TextRow], worse: int) -> list[str]:
    whole, *images = rows
    dark, dark_original, step, step_original, difference = (
        _short(whole[column]) for column in ("dark", "dark_original", "step", "step_original", "difference")
    )
    columns = ("hidden", "dark_original", "dark", "step_original", "step", "difference")
    lines = [
        [escaped(row["key"]), escaped(row["class"]), *(_short(row[column]) for column in columns)]
        for row in images[:WORST]
    ]
    heads = ["Image", "Class", "Hidden", "Dark, original", "Dark", "Step, original", "Step", "Difference"]
    return [
        f"{len(images)} images: {dark} % of the hidden pixels are darker than {DARK} of 255 after inpainting, "
        f"{dark_original} % in the originals; in {worse} images the share grew by more than 10 points. The step in "
        f"luminance across the mask's edge is {step} in the mean, {step_original} in the originals. Inside the mask "
        f"inpainted and original values differ by {difference} in the mean.",
        f"The {min(WORST, len(images))} worst, by the share that became dark, then by the step; all are in the CSV file. "
        "Dark: percent of the hidden pixels. Step: mean absolute difference in luminance of neighbours of which one is "
        "hidden. Difference: mean absolute difference of the hidden pixels' values; a plausible fill may differ much.",
        text.pipe_table("llrrrrrr", heads, lines),
    ]


def _short(value: str) -> str:
    return f"{float(value):.1f}" if "." in value else value
