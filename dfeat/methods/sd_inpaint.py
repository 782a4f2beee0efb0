"""SD Inpaint: the chosen parts are filled by a diffusion model, which is prompted with the class [Sec. 3]."""

from __future__ import annotations

from dfeat.methods.method import Control, Method

SD_INPAINT = Method(
    name="sd_inpaint", title="SD Inpaint", colour="#56B4E9", marker="v", ours=True, needs=("inpainted",),
    reads=("inpainted",), ablations=("share", "copies"),
    controls=(
        Control(
            "fill_smooth",
            "the same parts, filled with a smooth continuation of what is visible; the difference is what diffusion "
            "paints beyond it",
        ),
        Control(
            "fill_mean",
            "the same parts, filled with the mean colour around them; the difference is what structure in the fill adds",
        ),
        Control("black_out", "the same parts, black; the difference is what any fill adds to a hole"),
    ),
)  # fmt: skip
