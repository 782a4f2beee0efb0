"""Smooth Fill: the chosen parts continue their visible surroundings, as a membrane; a control of SD Inpaint, not in the paper.

It is the fill that SD Inpaint's hidden pixels are given before they are encoded (`diffusion.inpaint.hidden`), without any
diffusion after it.
"""

from __future__ import annotations

from dfeat.methods.method import Method, Pixels, Twin
from dfeat.methods.smooth import smooth_fill


def fill_smoothly(twin: Twin) -> Pixels:
    """The picture with its hidden pixels filled by `smooth_fill`."""
    return smooth_fill(twin.picture, twin.hidden, twin.window)


FILL_SMOOTH = Method(
    name="fill_smooth", title="Smooth Fill", colour="#999933", marker=">", paint=fill_smoothly, whole=True
)
