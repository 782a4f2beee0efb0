"""Replace Parts: the chosen parts show another image (zeta 3), and the object's mask is classified too (Eq. 1) [Sec. 3]."""

from __future__ import annotations

from dfeat.methods.method import Method, Pixels, Twin
from dfeat.methods.paint import replace


def replace_parts(twin: Twin) -> Pixels:
    """The picture with its hidden pixels taken from the partner's."""
    replaced: Pixels = replace(twin.picture, twin.hidden, twin.partner())
    return replaced


REPLACE = Method(
    name="replace", title="Replace Parts", colour="#009E73", marker="^",
    reads=("alpha", "beta", "mask_image", "partner_seed"), masks=True, paint=replace_parts, ablations=("weights",),
)  # fmt: skip
