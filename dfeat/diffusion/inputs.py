"""What the two classes of the library are given, looked at before anything is computed.

What enters: what a user passed. What leaves: arrays and lists with one entry for each image, or a UserError that says
what was found, what is allowed and what to do. The workflow's own batches are right by construction and do not pass
here.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfeat.diffusion.models import DiffusionModel
from dfeat.errors import UserError


def checked_images(images: Any, model: DiffusionModel) -> NDArray[np.uint8]:
    """Images (B, H, W, 3) uint8 whose sides the model's VAE and U-Net halve evenly at each of their levels."""
    array = _array(images, "images")
    if array.dtype != np.uint8:
        raise UserError(
            f"images are {array.dtype}; they must be uint8, from 0 to 255. Values from 0 to 1 become that by "
            '(images * 255).round().astype("uint8")'
        )
    if array.ndim == 3 and array.shape[2] == 3:
        raise UserError(f"images have the shape {array.shape}, one image; give a batch (B, H, W, 3), here images[None]")
    if array.ndim != 4 or array.shape[3] != 3 or not array.size:
        raise UserError(f"images have the shape {array.shape}; it must be (B, H, W, 3) with B, H and W at least 1")
    height, width, multiple = array.shape[1], array.shape[2], model.side_multiple
    if height % multiple or width % multiple:
        raise UserError(
            f"images are {height} pixels high and {width} wide; for this model both must be multiples of {multiple}. "
            "Resize or crop them"
        )
    return array


def checked_masks(masks: Any, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Masks (B, H, W) bool of images (B, H, W, 3)."""
    array = _array(masks, "masks")
    if array.dtype != np.bool_:
        raise UserError(f"masks are {array.dtype}; they must be bool, True where hidden, e.g. masks > 0")
    if array.shape != images.shape[:3]:
        raise UserError(f"masks have the shape {array.shape}; for these images it must be {images.shape[:3]}")
    return array


def one_each(values: Any, count: int, what: str) -> list[Any]:
    """A list of `count` values. Raises UserError, calling them `what`, for a single text and for another number."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UserError(f"{what} is {values!r}; give a list with one entry for each of the {count} images")
    entries = list(values)
    if len(entries) != count:
        raise UserError(f"{what} has {len(entries)} entries; there are {count} images, and each needs one")
    return entries


def checked_prompts(prompts: Any, count: int) -> list[str]:
    """A text for each image."""
    texts = one_each(prompts, count, "prompts")
    wrong = [text for text in texts if not isinstance(text, str)]
    if wrong:
        raise UserError(f"prompts has {wrong[0]!r}, which is no text; the empty text is the null prompt")
    return [str(text) for text in texts]


def checked_seeds(seeds: Any, count: int) -> list[int]:
    """A whole number for each image, as torch's generators take them; 0, 1, ... where `seeds` is None."""
    numbers = []
    for seed in range(count) if seeds is None else one_each(seeds, count, "seeds"):
        try:
            number = operator.index(seed)
        except TypeError:
            raise UserError(f"seeds has {seed!r}; seeds must be whole numbers") from None
        if not -(2**63) <= number < 2**64:
            raise UserError(f"seeds has {number}; seeds must be from -2**63 to 2**64 - 1")
        numbers.append(number)
    return numbers


def checked_batch_size(batch_size: Any) -> int:
    """How many images are computed at once: 1 or more."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UserError(f"batch_size is {batch_size!r}; it must be a whole number, 1 or more")
    return batch_size


def _array(values: Any, what: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{what} cannot be read as one array ({error}); give a numpy array") from None
