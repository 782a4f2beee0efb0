"""Images and masks as people have them: files, PIL images, arrays and tensors, one or many, of any sizes.

What enters: whatever a caller of the library has. What leaves: 8-bit RGB arrays (H, W, 3) and bool masks (H, W), or a
UserError that says which entry was found to be what, and what to give. Files are read as the workflow reads its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dfeat.data.files import images_of, is_archive
from dfeat.data.images import SUFFIXES, as_rgb, decode
from dfeat.data.pixels import evaluation_crop
from dfeat.data.sources import Source
from dfeat.errors import UserError

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
_CHANNELS: Final = (1, 3, 4)
_SHAPES: Final = "(H, W), (H, W, C), (C, H, W), (B, H, W, C) or (B, C, H, W) with C = 1, 3 or 4"


def load_images(images: Any, size: int | None = None) -> Pixels:
    """Images as one array (B, H, W, 3) uint8.

    Args:
        images: One image or many, also mixed: paths of files or of folders; PIL images; NumPy arrays or torch tensors, channels
            first or last, of one image or a batch, uint8 from 0 to 255 or floating-point from 0 to 1. Grayscale is repeated
            to three channels, transparency is put over white, and EXIF orientation is applied, as for the workflow's files.
        size: The shorter side is resized to it, bicubic with antialiasing, and the central square cropped. None: as they
            are; all must then have one size.

    Raises:
        UserError: An image that cannot be read, an array of another shape, dtype or range, or images of several sizes.
    """
    return stacked([picture if size is None else square(picture, size) for picture in pictures(images)])


def square(picture: NDArray[Any], size: int) -> NDArray[Any]:
    """The central square of an image (H, W, 3) uint8 or mask (H, W) bool whose shorter side was resized to `size`."""
    return evaluation_crop(picture, 1.0, size)


def stacked(images: list[Pixels]) -> Pixels:
    """Images of one size as (B, H, W, 3). Raises UserError for none and for several sizes."""
    if not images:
        raise UserError("images is empty; give at least one")
    sizes = {image.shape[:2]: number for number, image in reversed(list(enumerate(images)))}
    if len(sizes) > 1:
        (height, width), (other_height, other_width) = list(sizes)[-1], list(sizes)[-2]
        raise UserError(
            f"images have several sizes (images[0] {width} x {height}, images[{list(sizes.values())[-2]}] {other_width} x "
            f"{other_height} pixels); give load_images a `size`, or resize=True to a model, so that all become squares of one"
        )
    return np.stack(images)


def pictures(images: Any, what: str = "images") -> list[Pixels]:
    """Each image (H, W, 3) uint8, at its own size; see `load_images`. `what` is the argument's name in errors."""
    if isinstance(images, str | Path):
        return _of_path(Path(images))
    if isinstance(images, Image.Image):
        return [np.asarray(as_rgb(images, what))]
    array = _array(images)
    if array is not None:
        return [_colours(one, what) for one in _apart(array, what)]
    found = []
    for number, one in enumerate(_entries(images, what)):
        name = f"{what}[{number}]"
        inside = pictures(one, name)
        if len(inside) != 1 and not isinstance(one, str | Path):
            raise UserError(
                f"{name} is a batch of {len(inside)}; give one batch, or a list with one image in each entry"
            )
        found += inside
    return found


def is_prepared(images: Any) -> bool:
    """Whether images are arrays or tensors, whose size a caller chose, rather than files and PIL images."""
    if isinstance(images, str | Path | Image.Image):
        return False
    return _array(images) is not None or all(map(is_prepared, _entries(images, "images")))


def masks_of(masks: Any, sizes: list[tuple[int, int]]) -> list[Mask]:
    """A mask (H, W) bool, True where hidden, for each image; `sizes` are the images' (H, W).

    Args:
        masks: As `load_images` takes images, of one channel: bool; or numbers and files, which hide where they are not 0, or
            above half of the range where they have more than two values. One mask alone serves all images.

    Raises:
        UserError: Another number of masks than of images, or a mask of another size than its image.
    """
    found = _masks(masks, "masks")
    found = found * len(sizes) if len(found) == 1 else found
    if len(found) != len(sizes):
        raise UserError(f"masks has {len(found)} masks; there are {len(sizes)} images, and each needs one, or all one")
    for number, (mask, size) in enumerate(zip(found, sizes, strict=True)):
        if mask.shape != size:
            raise UserError(
                f"masks[{number}] has {mask.shape[1]} x {mask.shape[0]} pixels, its image {size[1]} x {size[0]}; resize "
                "the mask to its image, by nearest pixel"
            )
    return found


def _masks(masks: Any, what: str) -> list[Mask]:
    if isinstance(masks, str | Path):
        return [_hidden(picture[..., 0], what) for picture in _of_path(Path(masks))]
    if isinstance(masks, Image.Image):
        return [_hidden(np.asarray(masks.convert("L")), what)]
    array = _array(masks)
    if array is None:
        return [mask for number, one in enumerate(_entries(masks, what)) for mask in _masks(one, f"{what}[{number}]")]
    if array.ndim in (3, 4) and array.shape[-1] == 1:
        array = array[..., 0]
    elif array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (2, 3) or not array.size:
        raise UserError(
            f"{what} has the shape {array.shape}; it must be (B, H, W) or (H, W), with or without a channel"
        )
    return [_hidden(one, what) for one in (array if array.ndim == 3 else array[None])]


def _hidden(values: NDArray[Any], what: str) -> Mask:
    """Where a mask's values (H, W) hide."""
    if values.dtype == np.bool_:
        return values
    if not (np.issubdtype(values.dtype, np.integer) or np.issubdtype(values.dtype, np.floating)):
        raise UserError(
            f"{what} is {values.dtype}; it must be bool, True where hidden, or numbers that are 0 where shown"
        )
    if len(np.unique(values)) <= 2 and values.min() == 0:
        return values > 0
    # A mask with soft edges, as an editor or a resize leaves it.
    return values > (1 if np.issubdtype(values.dtype, np.floating) and values.max() <= 1 else 255) / 2


def _of_path(path: Path) -> list[Pixels]:
    """The image of a file, or those of a folder or archive, by name."""
    if not path.exists():
        raise UserError(f"{path} is missing; give the path of an image, or of a folder with images")
    return [picture for _, picture in in_folder(path)]


def in_folder(root: Path) -> Iterator[tuple[str, Pixels]]:
    """The name and picture (H, W, 3) uint8 of each image of a folder or archive, or of one file.

    Raises UserError where there is none, and for one that cannot be read.
    """
    if root.is_file() and not is_archive(root.name):
        source, names = Source(root.resolve().parent), [root.resolve().name]
    else:
        source = Source(root)
        names = images_of(source)
    if not names:
        raise UserError(f"{root} has no images ({', '.join(sorted(SUFFIXES))})")
    for name in names:
        yield name, np.asarray(decode(source.read(name), f"{source.root}/{name}")[0])


def listed(values: Any, what: str) -> Any:
    """Images as they are, where they are a path, a picture or an array; else a list of them, which may be read twice."""
    if isinstance(values, str | Path | Image.Image) or _array(values) is not None:
        return values
    return _entries(values, what)


def _entries(values: Any, what: str) -> list[Any]:
    if isinstance(values, bytes | dict) or not isinstance(values, Iterable):
        kind = type(values).__name__
        raise UserError(
            f"{what} is {kind}; give paths, PIL images, NumPy arrays or torch tensors, one or a list of them"
        )
    return list(values)


def _array(values: Any) -> NDArray[Any] | None:
    """An array or tensor as an array; None for anything else."""
    if isinstance(values, np.ndarray):
        return None if values.dtype == object else values
    if hasattr(values, "detach") and hasattr(values, "cpu"):  # torch's, without importing torch
        tensor = values.detach().cpu()
        return np.asarray(tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor)
    return None


def _apart(array: NDArray[Any], what: str) -> list[NDArray[Any]]:
    """The images (H, W, C) of an array, channels last."""
    if array.ndim == 2 and array.size:
        return [array[..., None]]
    if array.ndim not in (3, 4) or not array.size:
        raise UserError(f"{what} has the shape {array.shape}; it must be {_SHAPES}, and not empty")
    batch = array if array.ndim == 4 else array[None]
    if batch.shape[3] not in _CHANNELS:
        if batch.shape[1] not in _CHANNELS:
            gray = "; a batch of grayscale images is (B, H, W, 1): images[..., None]" if array.ndim == 3 else ""
            raise UserError(f"{what} has the shape {array.shape}; it must be {_SHAPES}{gray}")
        batch = np.moveaxis(batch, 1, 3)
    return list(batch)


def _colours(image: NDArray[Any], what: str) -> Pixels:
    """An image (H, W, C) of numbers as (H, W, 3) uint8."""
    values = _eight_bits(image, what)
    if values.shape[2] == 4:
        return np.asarray(as_rgb(Image.fromarray(values, "RGBA"), what))
    return np.ascontiguousarray(np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values)


def _eight_bits(image: NDArray[Any], what: str) -> Pixels:
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    low, high = image.min(), image.max()
    if np.issubdtype(image.dtype, np.floating):
        if not (low >= 0 and high <= 1):  # not: NaN fails both
            raise UserError(
                f"{what} is {image.dtype} from {low:.3g} to {high:.3g}; numbers with a fraction must be from 0 to 1. Give uint8 "
                "for values to 255, and images before a network's normalisation"
            )
        return np.rint(image.astype(np.float64) * 255).astype(np.uint8)
    if np.issubdtype(image.dtype, np.integer) and low >= 0 and high <= 255:
        return image.astype(np.uint8)
    raise UserError(
        f"{what} is {image.dtype} from {low} to {high}; it must be uint8 from 0 to 255, or floating-point from 0 to 1"
    )
