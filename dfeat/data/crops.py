"""Random resized crops, and the keys of rows where a set has several of an image: crops, or inpainted copies.

What enters: an image's size and a generator. What leaves: a `Crop` by shares of the image, which the trainer cuts of
cached pixels and masks, and the diffusion step of the original, so that both see the same part of the object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Crop:
    """A box as shares of width and height (left, top, right, bottom), and whether it is mirrored."""

    box: tuple[float, float, float, float]
    flip: bool

    def pixels(self, height: int, width: int) -> tuple[slice, slice]:
        """The rows and columns of an image of that size: the nearest whole pixels, at least one."""
        left, top, right, bottom = self.box
        return _span(top, bottom, height), _span(left, right, width)


def random_crop(height: int, width: int, scale: tuple[float, float], flip: float, rng: np.random.Generator) -> Crop:
    """A crop of `scale` of the area, aspect 3/4 to 4/3, of whole pixels as torchvision's, and whether to flip."""
    area = height * width * rng.uniform(*scale)
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    w = min(round(float(np.sqrt(area * aspect))), width)
    h = min(round(float(np.sqrt(area / aspect))), height)
    left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    box = (left / width, top / height, (left + w) / width, (top + h) / height)
    return Crop(box, bool(rng.random() < flip))


def view_key(key: str, number: int) -> str:
    """The row key of an image's crop or inpainted copy `number` where a set has several."""
    return f"{key}#{number}"


def view_keys(key: str, count: int) -> list[str]:
    """The row keys of an image in a set with `count` rows of each: its own, or that of each view."""
    return [key] if count == 1 else [view_key(key, number) for number in range(count)]


def image_key(row_key: str) -> str:
    """The key of the image that a row is a view of; the inverse of `view_key`."""
    return row_key.rpartition("#")[0]


def _span(low: float, high: float, length: int) -> slice:
    """A span given as shares of `length`, as pixels."""
    first = min(round(low * length), length - 1)
    return slice(first, max(round(high * length), first + 1))
