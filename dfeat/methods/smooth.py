"""A smooth fill: hidden pixels take colours that continue their surroundings, with no model and no training."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dfeat.methods.box import Box
from dfeat.methods.method import WHOLE, Mask, Pixels, Window
from dfeat.methods.paint import black_out, mask_image, replace

GREY: Final = 128
"""The colour of an image without a visible pixel: the middle of the range."""
_SWEEPS: Final = 4


def smooth_fill(image: Pixels, mask: Mask, window: Window = WHOLE) -> Pixels:
    """Fill the hidden pixels of an image with a membrane spanned by the visible ones.

    The result does not depend on the values of hidden pixels, and stays in the range of the visible ones.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool, True where hidden. If all pixels are hidden, all become `GREY`.
        window: The rows and columns that are wanted; most of the work is for hidden pixels in them.

    Returns:
        (h, w, 3) uint8, the window of the filled image; visible pixels are the image's.
    """
    filled = image[window].copy()
    if mask.all():
        filled[:] = GREY
        return filled
    asked = Box.of(window, mask.shape)
    wanted = Box.around(mask).inside(asked)
    membrane = black_out(image, mask).astype(np.float32)
    _fill(membrane, mask, wanted.moved(asked.top, asked.left))
    part = np.rint(membrane[window][wanted.where]).astype(np.uint8)
    filled[wanted.where] = replace(filled[wanted.where], mask[window][wanted.where], part)
    return filled


def _fill(colours: NDArray[Any], unknown: Mask, wanted: Box) -> None:
    """Solve Laplace's equation for the unknown pixels in `wanted`, approximately, and write them into `colours`.

    `colours` is (H, W, 3) float32 and 0 where `unknown` (H, W) is True; at least one pixel is known.
    """
    if not unknown[wanted.where].any():
        return
    odd = [(0, size % 2) for size in unknown.shape]
    known = np.pad(~unknown, odd).astype(np.float32)
    counts = _sum_of_fours(known[..., None]).repeat(3, axis=2)
    # A coarse pixel is the mean of the known ones among its four; a quarter of the pixels is left at each level.
    coarse = _sum_of_fours(np.pad(colours, [*odd, (0, 0)]) if known.size > unknown.size else colours)
    coarse /= np.maximum(counts, 1)
    # A sweep carries colours on by one pixel, so what is further from the wanted ones has no influence on them.
    reach = wanted.grown(_SWEEPS, unknown.shape).even(unknown.shape)
    _fill(coarse, counts[..., 0] == 0, reach.halved())
    height, width = unknown[reach.where].shape
    first = coarse[reach.halved().where].repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    _sweep(colours[reach.where], first, mask_image(unknown[reach.where]) > 0)


def _sweep(colours: NDArray[Any], first: NDArray[Any], unknown: NDArray[np.bool_]) -> None:
    """Relax unknown values in `colours`, from those of `first` on; all are (h, w, 3)."""
    height, width, _ = colours.shape
    framed = np.empty((height + 2, width + 2, 3), np.float32)
    inner = framed[1:-1, 1:-1]
    inner[:] = colours
    np.copyto(inner, first, where=unknown)
    for _ in range(_SWEEPS):
        framed[0], framed[-1] = framed[1], framed[-2]
        framed[:, 0], framed[:, -1] = framed[:, 1], framed[:, -2]
        # Jacobi: u(y, x) = (u(y - 1, x) + u(y + 1, x) + u(y, x - 1) + u(y, x + 1)) / 4, edges repeated
        means = framed[:-2, 1:-1] + framed[2:, 1:-1]
        means += framed[1:-1, :-2]
        means += framed[1:-1, 2:]
        means /= 4
        np.copyto(inner, means, where=unknown)
    colours[:] = inner


def _sum_of_fours(values: NDArray[Any]) -> NDArray[Any]:
    """The sums of 2 x 2 neighbours of (2h, 2w, C), (h, w, C)."""
    rows = values[0::2] + values[1::2]
    return rows[:, 0::2] + rows[:, 1::2]
