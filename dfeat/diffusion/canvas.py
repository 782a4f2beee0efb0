"""Convert a training image to the square that the model inpaints, and the result back to the image's own size.

What enters: a training image with its chosen parts. What leaves: the model's input square, which with `crop: true` is
the smallest of three sizes around the mask, so that images can be batched by shape; and the finished image at its own
size, in which every known pixel equals the original's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dfeat.data.crops import view_keys
from dfeat.data.index import Record
from dfeat.data.pixels import resize
from dfeat.diffusion.settings import InpaintSettings
from dfeat.errors import UserError
from dfeat.methods.paint import black_out, replace
from dfeat.methods.smooth import smooth_fill
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
    """Resize inpainted images to the originals' size and restore every known pixel.

    `inpainted` is (h, w, 3) uint8, `original` and the result (H, W, 3) uint8, `mask` (H, W) bool, True where hidden; or all
    three are batches, with a first axis more. Raises UserError for other shapes.
    """
    shapes = inpainted.shape, original.shape, mask.shape
    same = original.shape == (*mask.shape, 3) and inpainted.ndim == original.ndim
    same = same and (mask.ndim == 2 or len(inpainted) == len(original) > 0)
    if mask.ndim not in (2, 3) or mask.dtype != np.bool_ or not same:
        raise UserError(
            f"paste_known takes (h, w, 3), (H, W, 3) and a bool mask (H, W), or batches of as many of each; found "
            f"{', '.join(map(str, shapes))} and a mask of {mask.dtype}"
        )
    if mask.ndim == 3:
        return np.stack([paste_known(*row) for row in zip(inpainted, original, mask, strict=True)])
    height, width = mask.shape
    return replace(original, mask, resize(inpainted, height, width))


class Square(NamedTuple):
    """A square of pixels: rows `top` to `top + side`, columns `left` to `left + side`."""

    top: int
    left: int
    side: int

    @property
    def where(self) -> tuple[slice, slice]:
        """Slices of its rows and columns."""
        return slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)


def sides(resolution: int, multiple: int) -> list[int]:
    """Half, three quarters and all of the resolution, each rounded up to a multiple of `multiple`, ascending."""
    # ceil(resolution * share / 4 / multiple) * multiple
    parts = (-(-resolution * share // (4 * multiple)) * multiple for share in (2, 3, 4))
    return sorted({min(side, resolution) for side in parts})


def around(mask: NDArray[np.bool_], allowed: list[int]) -> Square:
    """The smallest allowed square that contains a mask (R, R) with a margin of R / 8, moved to lie inside the image.

    The margin is the context that the model conditions on; it is clipped at the image's edges. An empty mask gives the
    smallest square at the top left.
    """
    resolution = len(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return Square(0, 0, allowed[0])
    margin = resolution // 8
    low = [max(int(hit[0]) - margin, 0) for hit in (rows, columns)]
    high = [min(int(hit[-1]) + 1 + margin, resolution) for hit in (rows, columns)]
    need = max(end - start for start, end in zip(low, high, strict=True))
    side = next(side for side in allowed if side >= need)
    starts = [min(max((start + end - side) // 2, 0), resolution - side) for start, end in zip(low, high, strict=True)]
    return Square(starts[0], starts[1], side)


def conceal(image: NDArray[np.uint8], mask: NDArray[np.bool_], hidden: str) -> NDArray[np.uint8]:
    """An image (H, W, 3) with hidden pixels as `diffusion.inpaint.hidden` wants them; `mask` (H, W) is True there."""
    if hidden == "given":
        return image
    painted: NDArray[np.uint8] = smooth_fill(image, mask) if hidden == "smooth" else black_out(image, mask)
    return painted


def resize_mask(mask: NDArray[np.bool_], side: int, mask_cells: str) -> NDArray[np.bool_]:
    """A mask (H, W) as (side, side): True where a pixel overlaps any hidden one, with "nearest" where the nearest is."""
    return resize(mask, side, side) if mask_cells == "nearest" else touched(mask, side, side)


def touched(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """A mask (H, W) resized to (height, width), True where the area of a new pixel overlaps any True pixel."""
    ends = []
    for old, new in zip(mask.shape, (height, width), strict=True):
        place = np.arange(new)
        # New pixel i covers [i old / new, (i + 1) old / new) of the old ones: floor and ceil in whole numbers.
        ends.append((place * old // new, -(-(place + 1) * old // new)))
    (top, bottom), (left, right) = ends
    # S(y, x), the number of True pixels above and left of (y, x): four values give the count in a rectangle.
    counts = np.pad(mask.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    overlap: NDArray[np.bool_] = (
        counts[bottom][:, right] + counts[top][:, left] > counts[bottom][:, left] + counts[top][:, right]
    )
    return overlap


@dataclass
class Canvas:
    """An image at its own size, and the square of it that is inpainted."""

    copy: Copy
    original: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    square: Square
    resolution: int
    settings: InpaintSettings

    def to_fill(self) -> NDArray[np.uint8]:
        """(side, side, 4) uint8: the square with hidden pixels concealed, and the mask as a fourth channel of 0 and 255."""
        side = self.resolution
        # Resizing mixes hidden and known pixels at the border of the mask: neither black nor a hidden colour may enter.
        shown = resize(smooth_fill(self.original, self.mask), side, side)
        hidden = resize_mask(self.mask, side, self.settings.mask_cells)
        if self.settings.hidden == "black":
            shown = black_out(shown, hidden)
        whole = np.concatenate([shown, (hidden * np.uint8(255))[..., None]], axis=-1)
        return np.ascontiguousarray(whole[self.square.where])

    def finished(self, filled: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8: the image at its own size, hidden pixels from the square `filled`, known pixels unchanged."""
        whole = np.zeros((self.resolution, self.resolution, 3), np.uint8)
        whole[self.square.where] = filled
        return paste_known(whole, self.original, self.mask)
