"""A smooth fill: hidden pixels take colours that continue their surroundings, with no model and no training."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

GREY: Final = 128
"""The colour of an image without a visible pixel: the middle of the range."""
_SWEEPS: Final = 4


def smooth_fill(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill the hidden pixels of an image with a membrane spanned by the visible ones.

    The result does not depend on the values of hidden pixels, and stays in the range of the visible ones.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool, True where hidden. If all pixels are hidden, all become `GREY`.

    Returns:
        (H, W, 3) uint8; visible pixels are the image's.
    """
    if mask.all():
        return np.full_like(image, GREY)
    hidden = mask[..., None]
    membrane = _membrane(image.astype(np.float32) * ~hidden, ~hidden)
    return np.where(hidden, np.rint(membrane).astype(np.uint8), image)


def _membrane(colours: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[Any]:
    """Solve Laplace's equation for the unknown pixels of `colours` (H, W, 3) float32, approximately.

    `known` is (H, W, 1); at least one pixel is known, and unknown ones are 0.
    """
    if known.all():
        return colours
    height, width = known.shape[:2]
    even = ((0, height % 2), (0, width % 2), (0, 0))
    counts = _sum_of_fours(np.pad(known, even).astype(np.float32))
    # A coarse pixel is the mean of the known ones among its four; a quarter of the pixels is left at each level.
    coarse = _membrane(_sum_of_fours(np.pad(colours, even)) / np.maximum(counts, 1), counts > 0)
    filled = np.where(known, colours, coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width])
    y, x = np.nonzero(~known[..., 0])
    flat, here = filled.reshape(-1, 3), y * width + x
    beside = [row * width + x for row in (np.maximum(y - 1, 0), np.minimum(y + 1, height - 1))]
    beside += [y * width + column for column in (np.maximum(x - 1, 0), np.minimum(x + 1, width - 1))]
    for _ in range(_SWEEPS):
        # Jacobi: u(y, x) = (u(y - 1, x) + u(y + 1, x) + u(y, x - 1) + u(y, x + 1)) / 4, edges repeated
        up, down, left, right = (flat.take(pixels, axis=0) for pixels in beside)
        flat[here] = (up + down + left + right) / 4
    return filled


def _sum_of_fours(values: NDArray[Any]) -> NDArray[Any]:
    """The sums of 2 x 2 neighbours of (2h, 2w, C), (h, w, C)."""
    rows = values[0::2] + values[1::2]
    return rows[:, 0::2] + rows[:, 1::2]
