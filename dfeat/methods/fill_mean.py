"""Mean Fill: the chosen parts take the mean colour of their visible surroundings; a control of SD Inpaint, not in the paper."""

from __future__ import annotations

from typing import Final

import numpy as np

from dfeat.methods.method import Method, Pixels, Twin
from dfeat.methods.paint import grown
from dfeat.methods.smooth import GREY

RING: Final = 1 / 16
"""Width of the surroundings, as a share of the picture's shorter side: 16 of 256 pixels."""


def fill_with_mean(twin: Twin) -> Pixels:
    """The picture with all hidden pixels of one colour: the mean of the ring around them, or `GREY` where there is none."""
    ring = grown(twin.hidden, max(1, round(RING * min(twin.hidden.shape)))) & ~twin.hidden
    colour = twin.picture[ring].mean(axis=0) if ring.any() else np.full(3, GREY)
    return np.where(twin.hidden[..., None], np.rint(colour).astype(np.uint8), twin.picture)


FILL_MEAN = Method(name="fill_mean", title="Mean Fill", colour="#E69F00", marker="<", paint=fill_with_mean, whole=True)
