"""CutMix: boxes and labels of the twins are mixed (zeta 2) [Sec. 3, "Baselines"; Yun et al. 2019]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfeat.methods.method import Method, Mixture, Pixels
from dfeat.methods.paint import cutmix_box


def cut_and_mix(batch: Mixture) -> tuple[Pixels, NDArray[np.float32]]:
    """Paste a box of another row of the batch into each twin, and mix their labels by area.

    Yun et al. (2019), Eq. 1: the kept share is drawn from Beta(alpha, alpha), with alpha `training.cutmix_alpha`.
    """
    images, targets, rng, alpha = batch.images, batch.targets, batch.rng, batch.options["cutmix_alpha"]
    mixed, shares = images.copy(), targets.copy()
    height, width = images.shape[1:3]
    partners = rng.permutation(len(images))
    for row in np.flatnonzero(batch.twins):
        top, bottom, left, right = cutmix_box(height, width, float(rng.beta(alpha, alpha)), rng)
        mixed[row, top:bottom, left:right] = images[partners[row], top:bottom, left:right]
        # y = lambda y_A + (1 - lambda) y_B, lambda the share that the clipped box leaves
        share = 1 - (bottom - top) * (right - left) / (height * width)
        shares[row] = share * targets[row] + (1 - share) * targets[partners[row]]
    return mixed, shares


CUTMIX = Method(name="cutmix", title="CutMix", colour="#CC79A7", marker="D", reads=("cutmix_alpha",), mix=cut_and_mix)
