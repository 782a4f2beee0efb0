"""A mask as the runs of its rows: some pixels of it without decoding the rest, and a mask in 1 KB where bits take 20.

What enters: a mask. What leaves: the mask, or its pixels at chosen rows and columns, as training crops them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfeat.methods.method import Mask


@dataclass(frozen=True)
class Runs:
    """The lengths of a mask's runs, row by row, which alternate between pixels outside and inside it, from outside on."""

    lengths: NDArray[Any]
    """Unsigned, as narrow as they fit."""
    height: int
    width: int

    @classmethod
    def of(cls, mask: Mask) -> Runs:
        """The runs of a mask (H, W)."""
        flat = mask.reshape(-1)
        ends = np.flatnonzero(np.diff(flat, prepend=False, append=not flat[-1]))
        lengths = np.diff(ends, prepend=0)
        return cls(lengths.astype(np.min_scalar_type(lengths.max())), *mask.shape)

    def mask(self) -> Mask:
        """The mask (H, W)."""
        return self._inside().repeat(self.lengths).reshape(self.height, self.width)

    def at(self, rows: NDArray[np.int64], columns: NDArray[np.int64], flip: bool = False) -> Mask:
        """The mask's pixels at some rows and columns, both ascending, (rows, columns); `flip` mirrors left and right."""
        first, last = int(rows[0]), int(rows[-1]) + 1
        y, x = np.divmod(self.lengths.cumsum(dtype=np.int32), self.width)
        # In the picture of chosen columns a run of row y that ends before column x ends after the chosen ones left of x.
        left = np.zeros(self.width + 1, np.int64)
        np.bincount(columns, minlength=self.width).cumsum(out=left[1:])
        ends = (y - first) * len(columns) + left[x]
        ends = np.minimum(np.maximum(ends, 0), (last - first) * len(columns))
        lengths = ends.copy()
        lengths[1:] -= ends[:-1]
        inside, order = self._inside(), rows - first
        if flip:  # from the last pixel to the first, which turns the rows as well
            inside, lengths, order = inside[::-1], lengths[::-1], last - 1 - rows
        return inside.repeat(lengths).reshape(-1, len(columns)).take(order, axis=0)

    def _inside(self) -> Mask:
        """Whether each run is inside the mask."""
        inside = np.zeros(len(self.lengths), bool)
        inside[1::2] = True
        return inside
