"""Check the arguments of the library's two classes before anything is computed, and bring images into the model's shape.

What enters: a caller's arguments. What leaves: arrays and lists with one entry per image, or a UserError that names the
argument, the value found, what is allowed and the remedy. The workflow's own batches are valid by construction and skip
these checks.
"""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dfeat.data.given import is_prepared, listed, masks_of, pictures, square, stacked
from dfeat.diffusion.models import DiffusionModel
from dfeat.errors import UserError, nearest
from dfeat.randomness import seed_for
from dfeat.storage.provenance import bytes_digest


def as_the_model_takes(images: Any, model: DiffusionModel, resize: bool | None) -> tuple[NDArray[np.uint8], list[Fit]]:
    """Images as people have them (see `load_images`) as (B, H, W, 3) uint8, and how each mask follows its image.

    `resize`: True, all become squares of the model's own side; False, none does; None, files and PIL images do, and arrays
    and tensors stay as they are. Raises UserError for sides that are no multiples of `model.side_multiple`.
    """
    side, images = model.native_side, listed(images, "images")
    found = pictures(images)
    squares = not is_prepared(images) if resize is None else resize
    array = stacked([square(picture, side) for picture in found] if squares else found)
    height, width, multiple = array.shape[1], array.shape[2], model.side_multiple
    if height % multiple or width % multiple:
        raise UserError(
            f"images are {height} pixels high and {width} wide; for this model both must be multiples of {multiple}. "
            f"Resize or crop them, or give resize=True, for squares of {side}"
        )
    if not side / 2 <= min(height, width) <= side * 2:
        warnings.warn(
            f"images are {width} x {height} pixels, and this model was trained on {side} x {side}; resize=True makes them so",
            stacklevel=3,
        )
    return array, [Fit(picture.shape[:2], side if squares else None) for picture in found]


@dataclass(frozen=True)
class Fit:
    """The size (H, W) that an image had, and the side of the square that was made of it; None where it was left as it was."""

    size: tuple[int, ...]
    side: int | None


def checked_masks(masks: Any, fits: Sequence[Fit]) -> NDArray[np.bool_]:
    """Masks of images before they were resized (see `masks_of`) as (B, H, W) bool, which follow their images."""
    found = masks_of(masks, [fit.size for fit in fits])  # type: ignore[misc]
    return np.stack(
        [mask if fit.side is None else square(mask, fit.side) for mask, fit in zip(found, fits, strict=True)]
    )


def pixel_keys(images: NDArray[np.uint8]) -> list[str]:
    """A key for each image (B, H, W, 3), of its pixels alone, so that its noise does not depend on where it stands."""
    return [bytes_digest(f"{image.shape} ".encode() + np.ascontiguousarray(image).tobytes()) for image in images]


def one_each(values: Any, count: int, what: str) -> list[Any]:
    """A list of `count` values. Raises UserError for a single text, or another number; `what` is the argument's name."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UserError(f"{what} is {values!r}; give a list with one entry for each of the {count} images")
    entries = list(values)
    if len(entries) != count:
        raise UserError(f"{what} has {len(entries)} entries; there are {count} images, and each needs one")
    return entries


def checked_prompts(prompts: Any, count: int) -> list[str]:
    """The prompts as a list of `count` texts; one text alone serves all images. Raises UserError for anything else."""
    if isinstance(prompts, str):
        return [prompts] * count
    texts = one_each(prompts, count, "prompts")
    wrong = [text for text in texts if not isinstance(text, str)]
    if wrong:
        raise UserError(f"prompts has {wrong[0]!r}, which is not a text; use the empty text for the null prompt")
    return [str(text) for text in texts]


def checked_seeds(seeds: Any, images: NDArray[np.uint8]) -> list[int]:
    """The seeds as whole numbers in the range of torch's generators, one for each image; from its pixels where `seeds` is
    None, from its pixels and that number where it is one."""
    if seeds is None or isinstance(seeds, int):
        base = _seed(0 if seeds is None else seeds)
        return [seed_for(base, key, "inpaint") for key in pixel_keys(images)]
    return [_seed(seed) for seed in one_each(seeds, len(images), "seeds")]


def _seed(seed: Any) -> int:
    try:
        number = operator.index(seed)
    except TypeError:
        raise UserError(f"seeds has {seed!r}; seeds must be whole numbers") from None
    if not -(2**63) <= number < 2**64:
        raise UserError(f"seeds has {number}; seeds must be from -2**63 to 2**64 - 1")
    return number


def several(values: Any) -> Any:
    """A tuple of values that are given as a list, an array or the like; a text or a single value as it is."""
    plain = values.tolist() if hasattr(values, "tolist") else values  # NumPy's and torch's numbers are none of Python's
    return tuple(plain) if isinstance(plain, Iterable) and not isinstance(plain, str | bytes) else plain


def checked_batch_size(batch_size: Any) -> int:
    """The batch size, 1 or more. Raises UserError for anything else."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UserError(f"batch_size is {batch_size!r}; it must be a whole number, 1 or more")
    return batch_size


_FAMILIAR: Final = {
    "torch_dtype": "precision", "dtype": "precision", "variant": "precision", "num_inference_steps": "steps",
    "num_steps": "steps", "guidance": "guidance_scale", "cfg_scale": "guidance_scale", "sampler": "scheduler",
    "generator": "seeds", "model": "path", "model_id": "path", "t": "timestep", "timesteps": "timestep",
    "layers": "blocks", "layer": "blocks", "block": "blocks", "up_ft_index": "blocks", "batch": "batch_size",
    "map_location": "device", "ensemble_size": "ensemble",
}  # fmt: skip
"""Arguments of diffusers and of like libraries, and what they are called here."""
_PRECISIONS: Final = {
    "fp32": "float32", "float": "float32", "32": "float32", "fp16": "float16", "half": "float16", "16": "float16",
    "bf16": "bfloat16", "torch.float32": "float32", "torch.float16": "float16", "torch.bfloat16": "bfloat16",
}  # fmt: skip
_KEYS: Final = re.compile(
    r"(?<![\w.])(?:diffusion\.model|diffusion|features|inpaint|model)\.(?=[a-z_]+\b)|(?:^|(?<=; ))(?:features|inpaint|model): "
)


def checked_arguments(given: Iterable[str], allowed: Iterable[str]) -> None:
    """Raise UserError for an argument that is not one of `allowed`, with the name that it has here."""
    names = sorted(allowed)
    for name in given:
        if name not in names:
            here = _FAMILIAR.get(name)
            hint = f"; did you mean {here!r}?" if here in names else nearest(name, names)
            raise UserError(f"there is no argument {name!r}{hint} (arguments: {', '.join(names)})")


def checked_precision(precision: Any) -> str:
    """The precision by its name here: also a torch dtype, or a usual abbreviation."""
    return _PRECISIONS.get(str(precision), str(precision))


@contextmanager
def by_argument() -> Iterator[None]:
    """Within, errors name the library's arguments where they would name keys of config.yaml."""
    try:
        yield
    except UserError as error:
        raise type(error)(_KEYS.sub("", str(error))) from None
