"""Check the arguments of the library's two classes before anything is computed.

What enters: a caller's arguments. What leaves: arrays and lists with one entry per image, or a UserError that names the
value found, what is allowed and the remedy. The workflow's own batches are valid by construction and skip these checks.
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
    """Images as an array (B, H, W, 3) uint8. Raises UserError unless H and W are multiples of `model.side_multiple`."""
    array = _array(images, "images")
    if array.dtype != np.uint8:
        raise UserError(
            f"images are {array.dtype}; they must be uint8, from 0 to 255. Convert values from 0 to 1 with "
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
    """Masks as an array (B, H, W) bool. Raises UserError for a shape other than that of `images` (B, H, W, 3)."""
    array = _array(masks, "masks")
    if array.dtype != np.bool_:
        raise UserError(f"masks are {array.dtype}; they must be bool, True where hidden, e.g. masks > 0")
    if array.shape != images.shape[:3]:
        raise UserError(f"masks have the shape {array.shape}; for these images it must be {images.shape[:3]}")
    return array


def one_each(values: Any, count: int, what: str) -> list[Any]:
    """A list of `count` values. Raises UserError for a single text, or another number; `what` is the argument's name."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UserError(f"{what} is {values!r}; give a list with one entry for each of the {count} images")
    entries = list(values)
    if len(entries) != count:
        raise UserError(f"{what} has {len(entries)} entries; there are {count} images, and each needs one")
    return entries


def checked_prompts(prompts: Any, count: int) -> list[str]:
    """The prompts as a list of `count` texts. Raises UserError for anything else."""
    texts = one_each(prompts, count, "prompts")
    wrong = [text for text in texts if not isinstance(text, str)]
    if wrong:
        raise UserError(f"prompts has {wrong[0]!r}, which is not a text; use the empty text for the null prompt")
    return [str(text) for text in texts]


def checked_seeds(seeds: Any, count: int) -> list[int]:
    """The seeds as `count` whole numbers in the range of torch's generators; 0, 1, ... where `seeds` is None."""
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
    """The batch size, 1 or more. Raises UserError for anything else."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UserError(f"batch_size is {batch_size!r}; it must be a whole number, 1 or more")
    return batch_size


def _array(values: Any, what: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{what} cannot be read as one array ({error}); give a numpy array") from None
