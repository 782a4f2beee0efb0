"""Boxes of pixels: where a mask lies, and which surroundings a result depends on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


class Box(NamedTuple):
    """Rows `top` to `bottom` and columns `left` to `right`, the ends left out."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def of(cls, window: tuple[slice, slice], shape: Shape) -> Box:
        """The box of some rows and columns of an image of (height, width)."""
        (top, bottom, _), (left, right, _) = (part.indices(size) for part, size in zip(window, shape, strict=False))
        return cls(top, bottom, left, right)

    @classmethod
    def around(cls, mask: NDArray[np.bool_]) -> Box:
        """The smallest box that holds all True pixels of a mask (H, W); it is empty where there are none."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return cls(0, 0, 0, 0)
        return cls(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)

    @property
    def where(self) -> tuple[slice, slice]:
        """Slices of its rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def grown(self, pixels: int, shape: Shape) -> Box:
        """The box grown by so many pixels to all sides, as far as an image of (height, width) goes."""
        top, left = max(self.top - pixels, 0), max(self.left - pixels, 0)
        return Box(top, min(self.bottom + pixels, shape[0]), left, min(self.right + pixels, shape[1]))

    def even(self, shape: Shape) -> Box:
        """The smallest box around it of whole squares of 2 x 2 pixels, which are cut at the far ends of the image."""
        bottom, right = min(self.bottom + self.bottom % 2, shape[0]), min(self.right + self.right % 2, shape[1])
        return Box(self.top - self.top % 2, bottom, self.left - self.left % 2, right)

    def halved(self) -> Box:
        """The box of the squares of 2 x 2 pixels that it touches."""
        return Box(self.top // 2, -(-self.bottom // 2), self.left // 2, -(-self.right // 2))

    def inside(self, other: Box) -> Box:
        """What it has in common with another box, counted from that one's corner; empty boxes have no negative sides."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = max(min(self.bottom, other.bottom), top), max(min(self.right, other.right), left)
        return Box(top - other.top, bottom - other.top, left - other.left, right - other.left)

    def moved(self, down: int, right: int) -> Box:
        """The box so many pixels further down and to the right."""
        return Box(self.top + down, self.bottom + down, self.left + right, self.right + right)
