"""Convert a training image to the square that the model inpaints, and the result back to the image's own size.

What enters: a training image with its chosen parts. What leaves: the model's input square, and the finished image at
its own size, in which every known pixel equals the original's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfeat.data.crops import view_keys
from dfeat.data.index import Record
from dfeat.data.pixels import resize
from dfeat.diffusion.crops import Square
from dfeat.diffusion.settings import InpaintSettings
from dfeat.errors import UserError
from dfeat.methods.paint import black_out, replace
from dfeat.randomness import seed_for


@dataclass(frozen=True)
class Copy:
    """One inpainting of an image: the key of its row in the shard, and the seed of its noise."""

    record: Record
    key: str
    seed: int


def copies_of(record: Record, settings: InpaintSettings) -> list[Copy]:
    """The inpaintings of an image, each with its own seed."""
    keys = view_keys(record.key, settings.copies)
    # The first copy is seeded by the image's own key, so it is the same picture for every number of copies.
    named = [record.key, *keys[1:]]
    return [Copy(record, key, seed_for(settings.seed, name, "inpaint")) for key, name in zip(keys, named, strict=True)]


def paste_known(
    inpainted: NDArray[np.uint8], original: NDArray[np.uint8], mask: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Resize an inpainted image to the original's size and restore every known pixel.

    `inpainted` is (h, w, 3) uint8, `original` and the result (H, W, 3) uint8, `mask` (H, W) bool, True where hidden.
    Raises UserError for other shapes, such as those of a batch.
    """
    shapes = inpainted.shape, original.shape, mask.shape
    if mask.ndim != 2 or mask.dtype != np.bool_ or original.shape != (*mask.shape, 3) or inpainted.ndim != 3:
        raise UserError(
            f"paste_known takes one image at a time: (h, w, 3), (H, W, 3) and a bool mask (H, W); found "
            f"{', '.join(map(str, shapes))} and a mask of {mask.dtype}. For a batch, call it once per row"
        )
    height, width = mask.shape
    return replace(original, mask, resize(inpainted, height, width))


@dataclass
class Canvas:
    """An image at its own size, and the square of it that is inpainted."""

    copy: Copy
    original: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    square: Square
    resolution: int

    def to_fill(self) -> NDArray[np.uint8]:
        """(side, side, 4) uint8: the square with hidden pixels black, and the mask as a fourth channel of 0 and 255."""
        side = self.resolution
        shown = resize(black_out(self.original, self.mask), side, side)
        hidden = resize(self.mask, side, side)
        # Black out again: resizing mixes hidden and known pixels at the border of the mask.
        whole = np.concatenate([black_out(shown, hidden), (hidden * np.uint8(255))[..., None]], axis=-1)
        return np.ascontiguousarray(whole[self.square.where])

    def finished(self, filled: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8: the image at its own size, hidden pixels from the square `filled`, known pixels unchanged."""
        whole = np.zeros((self.resolution, self.resolution, 3), np.uint8)
        whole[self.square.where] = filled
        return paste_known(whole, self.original, self.mask)
