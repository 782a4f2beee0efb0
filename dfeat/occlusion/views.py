"""The hidden pixels of a test image at a level, for every protocol; used by both evaluation and latents.

What enters: a record of an index, a level in percent, and the masks of its set if the protocol needs objects or
parts. What leaves: the hidden pixels of its evaluation crop, (side, side). The levels of the study `object_occlusion` are shares
of the object's area; those of `parts` are 0 (nothing hidden) and 100 (the record's part hidden, pixel by pixel).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dfeat.data.index import Index, Record
from dfeat.data.pixels import evaluation_crop
from dfeat.data.records import part_of_key
from dfeat.data.settings import Study
from dfeat.errors import UserError
from dfeat.occlusion.parts import Rle, annotated_images, part_rles, rle_mask
from dfeat.occlusion.patches import drop_for
from dfeat.occlusion.settings import OcclusionSettings


@dataclass(frozen=True)
class TestOcclusion:
    """How the images of a set are occluded: `hidden` is the same for every model that sees the set."""

    __test__ = False
    settings: OcclusionSettings
    study: Study | None
    side: int
    crop_pct: float
    masks: dict[str, Rle] = field(default_factory=dict)

    @classmethod
    def of(
        cls, index: Index, settings: OcclusionSettings, study: Study | None, side: int, crop_pct: float
    ) -> TestOcclusion:
        """The occlusion of an indexed set; reads its masks if the protocol or study needs them."""
        if study == "object_occlusion":
            settings = settings.model_copy(update={"protocol": "object"})
        masked = study == "part_cost" or settings.protocol == "object"
        return cls(settings, study, side, crop_pct, read_masks(index) if masked else {})

    def hidden(self, record: Record, level: int) -> NDArray[np.bool_]:
        """The hidden pixels of a record's evaluation crop at `level` percent, (side, side)."""
        if level == 0:
            return np.zeros((self.side, self.side), bool)
        mask = self._mask(record) if record.key in self.masks else None
        if self.study == "part_cost":
            assert mask is not None and level == 100
            return mask
        shape = (record.height, record.width)
        return drop_for(self.settings, record.key, level, self.side, shape, self.crop_pct, mask)

    def _mask(self, record: Record) -> NDArray[np.bool_]:
        mask: NDArray[np.bool_] = evaluation_crop(rle_mask(self.masks[record.key]), self.crop_pct, self.side)
        return mask


def read_masks(index: Index) -> dict[str, Rle]:
    """Each record's mask as COCO RLE: of the part its key names, or of the object. Raises UserError without any."""
    annotations = index.annotations()
    if annotations is None:
        raise UserError(
            f"the set {index.set_name!r} has no masks, which its occlusion needs; take kind 'partimagenet' for it, or "
            "occlusion.protocol grid, image or random"
        )
    parts = {
        image["key"]: part_rles(of_image, image["height"], image["width"], "category")
        for image, of_image in annotated_images(annotations)
    }
    masks: dict[str, Rle] = {}
    for record in index.records:
        key, category = part_of_key(record.key)
        of_image = parts.get(key, {})
        if category is None and of_image:
            masks[record.key] = coco_mask.merge(list(of_image.values()))
        elif category in of_image:
            masks[record.key] = of_image[category]
    return masks
