"""Mean Fill: the chosen parts take the mean colour of their visible surroundings; a control of SD Inpaint, not in the paper."""

from __future__ import annotations

from typing import Final

import numpy as np

from dfeat.methods.method import Method, Pixels, Twin
from dfeat.methods.paint import MIXED, grown
from dfeat.methods.smooth import GREY

RING: Final = 1 / 16
"""Width of the surroundings, as a share of the picture's longer side: 14 of 224 pixels."""


def fill_with_mean(twin: Twin) -> Pixels:
    """The picture with all hidden pixels of one colour: the mean of the ring around them, or `GREY` where there is none.

    The ring begins beyond the pixels that resizing may have mixed with hidden ones, so no hidden colour is in the mean.
    """
    inside = grown(twin.hidden, MIXED)
    ring = grown(inside, max(1, round(RING * max(inside.shape)))) & ~inside
    colour = twin.picture[ring].mean(axis=0) if ring.any() else np.full(3, GREY)
    return np.where(twin.hidden[..., None], np.rint(colour).astype(np.uint8), twin.picture)


FILL_MEAN = Method(name="fill_mean", title="Mean Fill", colour="#E69F00", marker="<", paint=fill_with_mean)
