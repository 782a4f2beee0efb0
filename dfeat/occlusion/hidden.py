"""How much of each object its occluded twin hides: a summary over the training images.

What enters: the chosen parts. What leaves: `HiddenShares`, for the data card and `dfeat doctor`. A twin that hides the
whole object keeps the object's label although it shows nothing of it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from dfeat.occlusion.parts import Parts

BINS: Final = 10
"""Bins of the histogram below the share 1, of equal width; a bin includes its lower end."""


class HiddenShares(NamedTuple):
    """The share of the object's area that is hidden, over all images that have an occluded twin."""

    twins: int
    own_twins: int
    """Images that `occlusion.min_visible` leaves their own twin; they are in none of the other numbers."""
    whole: int
    """Twins that hide the whole object (share 1)."""
    mean: float
    quartiles: tuple[float, float, float]
    histogram: tuple[int, ...]
    """Twins in each of BINS bins, those that hide the whole object left out."""


def hidden_shares(parts: Parts) -> HiddenShares:
    """Summarise what the twins of `parts` hide."""
    hidden, objects = np.array([(row["area"], row["object_area"]) for row in parts.rows.values()]).T
    shares = hidden / objects
    first, median, third = np.quantile(shares, (0.25, 0.5, 0.75)).tolist()
    # In integers, so that a share of exactly 0.3 lies in the bin that starts there; bin BINS holds the share 1.
    *counts, whole = np.bincount(hidden * BINS // objects, minlength=BINS + 1).tolist()
    mean, quartiles = float(shares.mean()), (first, median, third)
    return HiddenShares(len(shares), len(parts.own_twins), whole, mean, quartiles, tuple(counts))
