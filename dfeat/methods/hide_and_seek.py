"""Hide-and-Seek: each cell of a grid over a twin shows the mean colour at random [Singh and Lee 2017; not in the paper]."""

from __future__ import annotations

from typing import Final

from dfeat.methods.method import Method, Pixels, Twin
from dfeat.methods.paint import MEAN_COLOUR, cells, replace

SIDES: Final = (16 / 224, 32 / 224, 44 / 224, 56 / 224)
"""Sides of the cells in shares of the picture's, one of which is drawn: 16, 32, 44 and 56 of 224 pixels there."""


def hide(twin: Twin) -> Pixels:
    """The picture in which each cell is hidden with probability `training.hide_probability`."""
    rng, side = twin.rng(), min(twin.picture.shape[:2])
    grid = cells(twin.picture.shape[:2], max(1, round(SIDES[rng.integers(len(SIDES))] * side)))
    hidden = (rng.random(grid.max() + 1) < twin.options["hide_probability"])[grid]
    return replace(twin.picture, hidden, MEAN_COLOUR.repeat(twin.picture.shape[1], axis=0))


HIDE_AND_SEEK = Method(
    name="hide_and_seek", title="Hide-and-Seek", colour="#DDCC77", marker="d", reads=("hide_probability",), paint=hide,
    parts=False,
)  # fmt: skip
