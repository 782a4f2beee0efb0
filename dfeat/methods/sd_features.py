"""SD Features: diffusion features are fused with the backbone's; the chosen parts of a twin are black [Sec. 3]."""

from __future__ import annotations

from dfeat.methods.black_out import black_out_parts
from dfeat.methods.method import Control, Method

SD_FEATURES = Method(
    name="sd_features", title="SD Features", colour="#0072B2", marker="P", ours=True, needs=("features",),
    reads=("feature_norm", "fusion", "twin_features"), paint=black_out_parts, ablations=("timestep", "fusion"),
    controls=(
        Control(
            "sd_features_placebo",
            "the same twins, network and fusion, and features of other images; the difference is what features hold of "
            "their own image",
        ),
        Control("black_out", "the same twins, no features; the difference is what features and their fusion add"),
    ),
)  # fmt: skip
