"""The square around a mask that is inpainted with `crop: true`: a small mask does not need the whole image.

What enters: a mask at the diffusion model's resolution. What leaves: the smallest of three squares that contains it
with a margin. There are only three sizes so that images can be batched by shape.
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
        """Slices of its rows and columns."""
        return slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)


def sides(resolution: int, multiple: int) -> list[int]:
    """Half, three quarters and all of the resolution, each rounded up to a multiple of `multiple`, ascending."""
    # ceil(resolution * share / 4 / multiple) * multiple
    parts = (-(-resolution * share // (4 * multiple)) * multiple for share in (2, 3, 4))
    return sorted({min(side, resolution) for side in parts})


def around(mask: NDArray[np.bool_], allowed: list[int]) -> Square:
    """The smallest allowed square that contains a mask (R, R) with a margin of R / 8, moved to lie inside the image.

    The margin is the context that the model conditions on; it is clipped at the image's edges. An empty mask gives the
    smallest square at the top left.
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
