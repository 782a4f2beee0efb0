"""Cutout: a square of each twin shows the mean colour [DeVries and Taylor 2017; not in the paper]."""

from __future__ import annotations

from dfeat.methods.method import Method, Pixels, Twin
from dfeat.methods.paint import MEAN_COLOUR


def cut_out(twin: Twin) -> Pixels:
    """The picture with one square in the mean colour: its centre uniform, its side `training.cutout_side`, cut at the edge.

    There the fill is 0 after normalisation, which is the mean colour.
    """
    rng, (height, width) = twin.rng(), twin.picture.shape[:2]
    side = round(twin.options["cutout_side"] * min(height, width))
    top, left = int(rng.integers(height)) - side // 2, int(rng.integers(width)) - side // 2
    picture = twin.picture.copy()
    picture[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = MEAN_COLOUR
    return picture


CUTOUT = Method(
    name="cutout", title="Cutout", colour="#44AA99", marker="8", reads=("cutout_side",), paint=cut_out, parts=False
)
