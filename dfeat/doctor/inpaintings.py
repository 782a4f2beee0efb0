"""What inpainting left behind, once its table is made: dark residue, and steps across the edges of masks.

What enters: the settings and the run's `inpaint_quality.csv`. What leaves: an `InpaintReport`, with a note where the
inpaintings are bad. Only what grew counts, image by image: one that became brighter does not offset residue in another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dfeat.config import Settings, stage_settings
from dfeat.places import TRAIN, Place

MORE_DARK: Final = 1.0
"""Percent of all hidden pixels that may have become dark, summed over the images whose share of dark pixels grew."""
STEEPER: Final = 1.5
"""Factor by which the step in luminance across the mask's edge may grow."""
_FIGURES: Final = ("hidden", "dark_original", "dark", "step_original", "step")


@dataclass
class InpaintReport:
    """The means of a run's table of inpaintings: dark pixels in percent of the hidden ones, steps in luminance of 255.

    `became_dark` is the mean over all hidden pixels of max(0, dark - dark_original) of their image. The steps are None
    where no image has a visible pixel beside a hidden one.
    """

    images: int
    dark_original: float
    dark: float
    became_dark: float
    step_original: float | None
    step: float | None
    notes: list[str]


def look_at_inpaintings(settings: Settings, place: Place) -> InpaintReport | None:
    """The means over the run's inpaintings; None if there is no table of these settings yet.

    Raises UserError if the table is damaged.
    """
    from dfeat.report.numbers.text import read_csv
    from dfeat.storage.records import refusal

    table, page = place.published("inpaint_quality", ".csv", ".md")
    if not table.is_file() or not _of_these_settings(settings, place):
        return None
    whole, *images = read_csv(table, "table inpaint_quality", _FIGURES)
    try:
        dark_original, dark = float(whole["dark_original"]), float(whole["dark"])
        step_original, step = (float(whole[name]) if whole[name] else None for name in ("step_original", "step"))
        became_dark = sum(map(_became_dark, images)) / int(whole["hidden"])
    except (ValueError, ZeroDivisionError) as error:
        raise refusal(table, f"a mean of it cannot be read ({error})", "table inpaint_quality") from None
    report = InpaintReport(len(images), dark_original, dark, became_dark, step_original, step, [])
    faults = []
    if became_dark > MORE_DARK:
        faults.append(
            f"inpainting darkened {became_dark:.1f} % of the hidden pixels (dark are {dark:.1f} %, in the originals "
            f"{dark_original:.1f} %)"
        )
    if step is not None and step_original is not None and step > STEEPER * step_original:
        faults.append(
            f"luminance steps by {step:.1f} of 255 across the mask's edge, by {step_original:.1f} in the originals"
        )
    if faults:
        report.notes.append(f"{'; '.join(faults)}; {_remedy(settings)}, and see the worst images in {page}")
    return report


def _became_dark(row: dict[str, str]) -> float:
    """Hidden pixels of an image times the growth of their dark share, in percent; 0 where it shrank."""
    hidden = int(row["hidden"])
    return hidden * max(0.0, float(row["dark"]) - float(row["dark_original"])) if hidden else 0.0


def _of_these_settings(settings: Settings, place: Place) -> bool:
    """Whether the run's inpaintings are of its present settings, as far as there are shards to compare."""
    from dfeat.storage.expected import shards_in
    from dfeat.storage.provenance import settings_text
    from dfeat.storage.shards import read_attributes

    wanted = settings_text(stage_settings(settings, "inpaint"))
    try:
        shards = shards_in(place.view("inpaint", TRAIN))
        return all(read_attributes(shard).get("settings") == wanted for shard in shards)
    except OSError:
        return True


def _remedy(settings: Settings) -> str:
    inpaint = settings.diffusion.inpaint
    if inpaint.mask_cells == "nearest" or inpaint.hidden == "black":
        return "set diffusion.inpaint.mask_cells to any and .hidden to smooth"
    return "try another diffusion.inpaint_model or more diffusion.inpaint.steps"
