"""Simulated occlusion of test images: black out a share of 16x16 patches (Sec. 4.1, Sec. 4.2).

What enters: the size of an image and a random generator of its own. What leaves: a mask (H, W), True where
pixels are blacked out. Four protocols, since the paper leaves open where patches lie:

- grid: the patches of the network's input (14x14 of 16 px at 224): exactly round(share * 196) of them.
- image: the grid lies on the image before the central crop, so patches at the borders may be smaller
  ("we note that some patches that are close to the image borders may end up having smaller occlusions").
- random: patches at free positions until the share of pixels is reached.
- object: grid patches that touch the object, until the share of the object's own area is hidden.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfeat.errors import UserError
from dfeat.occlusion.settings import OcclusionSettings
from dfeat.randomness import rng_for


def drop_on_image(height: int, width: int, patch: int, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Drop round(share * patches) of the patches of a grid that starts in the corner of an image of any size."""
    rows, columns = -(-height // patch), -(-width // patch)
    dropped = np.zeros(rows * columns, bool)
    dropped[rng.permutation(rows * columns)[: round_half_up(share * rows * columns)]] = True
    return dropped.reshape(rows, columns).repeat(patch, 0).repeat(patch, 1)[:height, :width]


def drop_random(side: int, patch: int, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Drop patches at free positions until at least `share` of the (side, side) pixels is hidden."""
    mask = np.zeros((side, side), bool)
    wanted = share * side * side
    hidden = 0
    while hidden < wanted:
        top, left = rng.integers(-patch + 1, side, 2)
        mask[max(top, 0) : top + patch, max(left, 0) : left + patch] = True
        hidden = int(mask.sum())
    return mask


def drop_on_object(
    object_mask: NDArray[np.bool_], patch: int, share: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Drop grid patches that touch the object until at least `share` of the object's area is hidden."""
    side = object_mask.shape[0]
    per_side = side // patch
    # Pixels of the object in each tile: (rows, patch, columns, patch) summed over the two patch axes.
    tiles = object_mask.reshape(per_side, patch, per_side, patch).sum(axis=(1, 3)).ravel()
    order = rng.permutation(np.flatnonzero(tiles))
    # The smallest prefix of `order` that hides share * area; the tolerance absorbs the rounding of the product.
    enough = int(np.searchsorted(np.cumsum(tiles[order]), share * tiles.sum() - 1e-9)) + 1 if share > 0 else 0
    dropped = np.zeros(per_side * per_side, bool)
    dropped[order[:enough]] = True
    return dropped.reshape(per_side, per_side).repeat(patch, 0).repeat(patch, 1)


def round_half_up(value: float) -> int:
    """Round to the nearest integer, halves up (Python rounds them to even)."""
    return int(np.floor(value + 0.5))


def drop_for(
    settings: OcclusionSettings,
    key: str,
    level: int,
    side: int,
    image_shape: tuple[int, int],
    crop_pct: float,
    object_mask: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """The dropped pixels of one test image in its evaluation crop, (side, side), at `level` percent.

    Depends on (settings.seed, key, level) alone, so every model sees the same occlusion. `image_shape` is the
    (height, width) of the whole image, `object_mask` the object in the crop for the protocol "object".
    """
    rng = rng_for(settings.seed, key, f"drop {level}")
    share = level / 100
    if settings.protocol == "grid":
        return drop_on_image(side, side, settings.patch, share, rng)
    if settings.protocol == "random":
        return drop_random(side, settings.patch, share, rng)
    if settings.protocol == "image":
        short = int(np.floor(side / crop_pct))
        scale = short / min(image_shape)
        height, width = max(short, int(image_shape[0] * scale)), max(short, int(image_shape[1] * scale))
        whole = drop_on_image(height, width, settings.patch, share, rng)
        top, left = round((height - side) / 2), round((width - side) / 2)
        return whole[top : top + side, left : left + side]
    if object_mask is None:
        raise UserError(
            "occlusion.protocol 'object' needs the object's mask, which this set does not have; use grid, image or random"
        )
    return drop_on_object(object_mask, settings.patch, share, rng)


def scale_mask(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """A mask (s, s) at another size (side, side), nearest pixel: the same patches at the diffusion resolution."""
    nearest = (np.arange(side) * mask.shape[0]) // side
    return mask[nearest][:, nearest]
