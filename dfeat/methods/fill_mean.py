"""Mean Fill: the chosen parts take the mean colour of their visible surroundings; a control of SD Inpaint, not in the paper."""

from __future__ import annotations

from typing import Final

import numpy as np

from dfeat.methods.box import Box
from dfeat.methods.method import Method, Pixels, Twin
from dfeat.methods.paint import grown, mask_image, replace
from dfeat.methods.smooth import GREY

RING: Final = 1 / 16
"""Width of the surroundings, as a share of the picture's shorter side: 16 of 256 pixels."""


def fill_with_mean(twin: Twin) -> Pixels:
    """The picture with all hidden pixels of one colour: the mean of the ring around them, or `GREY` where there is none."""
    radius = max(1, round(RING * min(twin.hidden.shape)))
    near = Box.around(twin.hidden).grown(radius, twin.hidden.shape).where
    ring = grown(twin.hidden[near], radius) & ~twin.hidden[near]
    count = np.count_nonzero(ring)
    # Sums of whole numbers, whose order does not matter: first over rows, which lie in one piece.
    sums = (mask_image(ring) & twin.picture[near]).sum(axis=0, dtype=np.int64).sum(axis=0)
    colour = np.rint(sums / count if count else np.full(3, GREY)).astype(np.uint8)
    shown = twin.picture[twin.window]
    return replace(shown, twin.hidden[twin.window], np.tile(colour, (shown.shape[1], 1)))


FILL_MEAN = Method(name="fill_mean", title="Mean Fill", colour="#E69F00", marker="<", paint=fill_with_mean, whole=True)
