"""SD Features, Placebo: SD Features, with the diffusion features of other images; its control, not in the paper.

Twins, fusion, width and distribution of l_d are those of SD Features; what l_d holds of its own image is gone. Features are
exchanged within a view, so an original has those of another original, a twin those of another occluded twin, and a test
image at a level those of another image of its set at that level. The exchange is fixed for all epochs, as own features are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dfeat.errors import UserError
from dfeat.methods.paint import random_cycle
from dfeat.methods.sd_features import SD_FEATURES
from dfeat.randomness import rng_for


def another_image(keys: Sequence[str], seed: int) -> dict[str, str]:
    """For each image another one of the same view, drawn by the model's seed. Raises UserError for an image alone."""
    if len(keys) == 1:
        raise UserError(
            f"{keys[0]} is alone in its view, and {SD_FEATURES_PLACEBO.name} takes features from another image; leave the "
            "method out of training.methods, or give the set more images"
        )
    return random_cycle(keys, rng_for(seed, "all", "placebo"))


SD_FEATURES_PLACEBO = dataclasses.replace(
    SD_FEATURES, name="sd_features_placebo", title="SD Features, Placebo", colour="#882255", marker="p", ours=False,
    ablations=(), exchange=another_image, controls=(),
)  # fmt: skip
