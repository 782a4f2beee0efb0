"""SD Features: diffusion features are fused with the backbone's; the chosen parts of a twin are black [Sec. 3]."""

from __future__ import annotations

from dfeat.methods.blackout import black_out_parts
from dfeat.methods.method import Method

SD_FEATURES = Method(
    name="sd_features", title="Ours: SD Features", colour="#0072B2", marker="P", ours=True, needs=("features",),
    reads=("feature_norm", "fusion", "twin_features"), paint=black_out_parts, ablations=("timestep", "fusion"),
    controls=("sd_features_placebo", "blackout"),
)  # fmt: skip
