"""Painting over the chosen parts: black-out (zeta 1), CutMix (zeta 2), replace (zeta 3) (Sec. 3, "Baselines").

Arrays in, arrays out. Masks are True where the object's parts are hidden. `black_out` and `replace` accept torch
tensors as well as numpy arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dfeat.randomness import rng_for

MIXED: Final = 4
"""Pixels beside a hidden part that may show some of it once a crop is resized: 1.5 pixels of the cached image, the reach of
the bicubic kernel, in crops enlarged 2.6 times."""


def black_out(images: Any, masks: Any) -> Any:
    """zeta 1: hidden pixels become black (0), the rest stays. Images (..., H, W, 3), masks (..., H, W)."""
    return images * (~masks)[..., None]


def replace(images: Any, masks: Any, partners: Any) -> Any:
    """zeta 3: hidden pixels are taken from another image of the same size. Shapes as `black_out`."""
    hidden = masks[..., None]
    return images * ~hidden + partners * hidden


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


def grown(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """A mask (H, W) grown by so many pixels to all sides."""
    from scipy.ndimage import maximum_filter

    wider: NDArray[np.bool_] = maximum_filter(mask, 2 * pixels + 1, mode="constant")
    return wider


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


def mask_image(masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Eq. 1: masks (..., H, W) as three-channel images (..., H, W, 3), white where the mask is."""
    return np.repeat((masks * np.uint8(255))[..., None], 3, axis=-1)
