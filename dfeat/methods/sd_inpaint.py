"""SD Inpaint: the chosen parts are filled by a diffusion model, which is prompted with the class [Sec. 3]."""

from __future__ import annotations

from dfeat.methods.method import Method

SD_INPAINT = Method(
    name="sd_inpaint", title="Ours: SD Inpaint", colour="#56B4E9", marker="v", ours=True, needs=("inpainted",),
    reads=("inpainted",), ablations=("share", "copies"), controls=("fill_smooth", "fill_mean", "blackout"),
)  # fmt: skip
