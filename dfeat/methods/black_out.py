"""Black-Out Parts: the chosen parts become black (zeta 1) [Sec. 3, "Baselines"]."""

from __future__ import annotations

from dfeat.methods.method import Method, Pixels, Twin
from dfeat.methods.paint import black_out


def black_out_parts(twin: Twin) -> Pixels:
    """The picture with its hidden pixels at 0."""
    blacked: Pixels = black_out(twin.picture, twin.hidden)
    return blacked


BLACK_OUT = Method(
    name="black_out", title="Black-Out Parts", colour="#D55E00", marker="s", paint=black_out_parts,
    ablations=("share",),
)  # fmt: skip
