"""Patch Mixing: patches of each twin show an image of another class [Lee et al. 2023; not in the paper].

They interpolate the labels (`training.patch_mixing_label` mixed); kept leaves the occluded image's label, as an occluder does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfeat.methods.method import Method, Mixture, Pixels
from dfeat.methods.paint import drawn_patches, replace


def mix_patches(batch: Mixture) -> tuple[Pixels, NDArray[np.float32]]:
    """A share of each twin's patches, drawn from `training.dropped`, taken from a row of another class, if the batch has one."""
    mixed, shares, labels = batch.images.copy(), batch.targets.copy(), batch.targets.argmax(axis=1)
    for row in np.flatnonzero(batch.twins):
        others = np.flatnonzero(labels != labels[row])
        if not len(others):
            continue
        other = others[batch.rng.integers(len(others))]
        pasted = drawn_patches(mixed.shape[1:3], batch.options, batch.rng)
        mixed[row] = replace(batch.images[row], pasted, batch.images[other])
        if batch.options["patch_mixing_label"] == "mixed":
            share = np.float32(pasted.mean())
            shares[row] = (1 - share) * batch.targets[row] + share * batch.targets[other]
    return mixed, shares


PATCH_MIXING = Method(
    name="patch_mixing", title="Patch Mixing", colour="#117733", marker="3",
    reads=("dropped", "patch", "patch_mixing_label"), mix=mix_patches,
)  # fmt: skip
