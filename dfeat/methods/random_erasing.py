"""Random Erasing: a box of each twin shows noise, wherever the object is [Zhong et al. 2020, Algorithm 1; not in the paper]."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from dfeat.methods.method import Method, Pixels, Twin

ASPECT: Final = (0.3, 1 / 0.3)
"""Range of the ratio of height to width, r1 and r2 there."""


def erase(twin: Twin) -> Pixels:
    """The picture with uniform noise in one box, whose share of the area is drawn from `training.erased_area` (RE-R)."""
    rng, (height, width) = twin.rng(), twin.picture.shape[:2]
    erased = twin.picture.copy()
    while True:
        area, ratio = height * width * rng.uniform(*twin.options["erased_area"]), rng.uniform(*ASPECT)
        tall, wide = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if tall < height and wide < width:
            top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
            box = erased[top : top + tall, left : left + wide]
            box[...] = rng.integers(0, 256, box.shape, np.uint8)
            return erased


RANDOM_ERASING = Method(
    name="random_erasing", title="Random Erasing", colour="#332288", marker="h", reads=("erased_area",), paint=erase,
    parts=False,
)  # fmt: skip
