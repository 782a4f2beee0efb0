"""Painting over the chosen parts: black-out (zeta 1), CutMix (zeta 2), replace (zeta 3) (Sec. 3, "Baselines").

Arrays in, arrays out. Masks are True where the object's parts are hidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dfeat.methods.method import Mask, Pixels
from dfeat.methods.runs import Runs
from dfeat.randomness import rng_for

_WHITE: Final = np.repeat(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1), 3, axis=1) * np.uint8(255)
"""For each byte of a packed mask, its eight pixels as an image, (256, 24)."""


MEAN_COLOUR: Final = np.array([[124, 116, 104]], np.uint8)
"""The mean colour of ImageNet's training images, (1, 3)."""


def mask_image(masks: Mask) -> Pixels:
    """Masks (..., H, W) as images (..., H, W, 3), white where the mask is."""
    # Eight pixels at a time: a table of 6 KB takes a fifth of the time of repeating each.
    white = _WHITE.take(np.packbits(masks), axis=0).reshape(-1)
    return white[: 3 * masks.size].reshape(*masks.shape, 3)


def black_out(images: Pixels, masks: Mask) -> Pixels:
    """zeta 1: hidden pixels become black (0), the rest stays. Images (..., H, W, 3), masks (..., H, W)."""
    shown = ~mask_image(masks)
    shown &= images
    return shown


def replace(images: Pixels, masks: Mask, partners: Pixels) -> Pixels:
    """zeta 3: hidden pixels are taken from another image of the same size. Shapes as `black_out`."""
    # With masks m of all bits or none: x ^ ((x ^ y) & m) is y where m is set, else x.
    replaced = mask_image(masks)
    replaced &= images ^ partners
    replaced ^= images
    return replaced


def cutmix_box(height: int, width: int, kept: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """zeta 2: the box that CutMix cuts, (top, bottom, left, right), for a kept share `kept` of the image.

    Yun et al. (2019), Sec. 3.1 and Algorithm A1: a box of side sqrt(1 - kept) times the image's, its centre
    uniform, clipped to the image.
    """
    cut = np.sqrt(1.0 - kept)
    half_height, half_width = int(height * cut) // 2, int(width * cut) // 2
    row, column = int(rng.integers(height)), int(rng.integers(width))
    top, bottom = max(row - half_height, 0), min(row + half_height, height)
    left, right = max(column - half_width, 0), min(column + half_width, width)
    return top, bottom, left, right


def cells(shape: tuple[int, ...], side: int) -> NDArray[np.int64]:
    """The number of the square cell that each pixel of a picture (height, width) is in, (H, W); those at the far ends are cut."""
    rows, columns = (np.arange(size) // side for size in shape)
    return rows[:, None] * (columns[-1] + 1) + columns


def drawn_patches(shape: tuple[int, ...], options: Mapping[str, Any], rng: np.random.Generator) -> Mask:
    """Random patches of `patch` pixels a side of a picture (height, width), (H, W): a share of them drawn from `dropped`."""
    grid = cells(shape, options["patch"])
    count = grid.max() + 1
    chosen = np.zeros(count, bool)
    chosen[rng.permutation(count)[: round(count * rng.uniform(*options["dropped"]))]] = True
    return chosen[grid]


def grown(mask: Mask, pixels: int) -> Mask:
    """A mask (H, W) grown by so many pixels to all sides."""
    wider = np.pad(mask, pixels)
    for axis in (0, 1):
        # After each step a pixel holds the union of `width` neighbours, which doubles up to 2 pixels + 1.
        width = 1
        while width < 2 * pixels + 1:
            step = min(width, 2 * pixels + 1 - width)
            low, high = ((slice(None),) * axis + (part,) for part in (slice(-step), slice(step, None)))
            wider = wider[low] | wider[high]
            width += step
    return wider


def reached(mask: Runs, height: int, width: int) -> Mask:
    """The pixels of a picture, resized to (height, width) from the size of its mask, that show something of masked ones.

    Bicubic resizing takes each pixel from those within two pixels of it, in the larger unit of the two sizes.
    """
    if (mask.height, mask.width) == (height, width):
        return mask.mask()
    rows, columns = ((np.arange(size) + 0.5) / size for size in (height, width))
    nearest = mask.at((rows * mask.height).astype(int), (columns * mask.width).astype(int))
    return grown(nearest, math.ceil(2 * max(1.0, height / mask.height, width / mask.width)))


def partner_order(keys: list[str], seed: int) -> dict[str, str]:
    """For each image the other image whose pixels replace its parts, drawn by seed."""
    return random_cycle(keys, rng_for(seed, "all", "partner"))


def random_cycle(keys: Sequence[str], rng: np.random.Generator) -> dict[str, str]:
    """For each key the one after it in a random cycle through all, whatever their order.

    A cycle gives every image one other image, and none itself (where there are two).
    """
    ordered = sorted(keys)
    rng.shuffle(ordered)
    return {key: ordered[(position + 1) % len(ordered)] for position, key in enumerate(ordered)}
