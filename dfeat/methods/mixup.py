"""MixUp: each twin is a weighted mean of two images, and its label of their labels [Zhang et al. 2018; not in the paper]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfeat.methods.method import Method, Mixture, Pixels


def mix_up(batch: Mixture) -> tuple[Pixels, NDArray[np.float32]]:
    """Each twin mixed with another row of the batch, the weight drawn from Beta(alpha, alpha), alpha `training.mixup_alpha`."""
    alpha, rng = batch.options["mixup_alpha"], batch.rng
    mixed, shares = batch.images.copy(), batch.targets.copy()
    partners = rng.permutation(len(mixed))
    for row in np.flatnonzero(batch.twins):
        # x = lambda x_A + (1 - lambda) x_B, and y alike
        weight, other = np.float32(rng.beta(alpha, alpha)), partners[row]
        mean = weight * batch.images[row].astype(np.float32) + (1 - weight) * batch.images[other]
        mixed[row] = np.rint(mean)
        shares[row] = weight * batch.targets[row] + (1 - weight) * batch.targets[other]
    return mixed, shares


MIXUP = Method(name="mixup", title="MixUp", colour="#AA4499", marker="x", reads=("mixup_alpha",), mix=mix_up)
