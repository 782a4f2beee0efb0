"""Patch Drop: random patches of a twin are black, as those of the test images are; trains on the test's own occlusion.

Naseer et al. 2021 test so; not in the paper. The baseline of whoever knows the test.
"""

from __future__ import annotations

from dfeat.methods.method import Method, Pixels, Twin
from dfeat.methods.paint import black_out, drawn_patches


def drop_patches(twin: Twin) -> Pixels:
    """The picture with black patches of `training.patch` pixels: a share of them drawn from `training.dropped`."""
    return black_out(twin.picture, drawn_patches(twin.picture.shape[:2], twin.options, twin.rng()))


PATCH_DROP = Method(
    name="patch_drop", title="Patch Drop", colour="#CC6677", marker="H", reads=("dropped", "patch"), paint=drop_patches,
    parts=False,
)  # fmt: skip
