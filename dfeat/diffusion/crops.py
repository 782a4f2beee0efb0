"""The square around a mask that is worth inpainting: a small mask needs no whole image.

What enters: a mask at the diffusion model's resolution. What leaves: the smallest square of a few sizes that holds
it with a margin. Few sizes, so that batches keep one shape.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Square(NamedTuple):
    """A square of pixels: rows `top` to `top + side`, columns `left` to `left + side`."""

    top: int
    left: int
    side: int

    @property
    def where(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)


def sides(resolution: int, multiple: int) -> list[int]:
    """Half, three quarters and all of the resolution, rounded up to what the U-Net's levels divide evenly."""
    parts = (-(-resolution * share // (4 * multiple)) * multiple for share in (2, 3, 4))
    return sorted({min(side, resolution) for side in parts})


def around(mask: NDArray[np.bool_], allowed: list[int]) -> Square:
    """The smallest allowed square that holds a mask (R, R) with a margin of an eighth of R, inside the image.

    The margin is what the model sees of the surroundings; where it sticks out of the image it is left out.
    """
    resolution = len(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return Square(0, 0, allowed[0])
    margin = resolution // 8
    low = [max(int(hit[0]) - margin, 0) for hit in (rows, columns)]
    high = [min(int(hit[-1]) + 1 + margin, resolution) for hit in (rows, columns)]
    need = max(end - start for start, end in zip(low, high, strict=True))
    side = next(side for side in allowed if side >= need)
    starts = [min(max((start + end - side) // 2, 0), resolution - side) for start, end in zip(low, high, strict=True)]
    return Square(starts[0], starts[1], side)
