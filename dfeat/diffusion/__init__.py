"""A frozen Stable Diffusion and its two uses: `Inpainter` and `FeatureExtractor`, also as a library.

from dfeat.diffusion import FeatureExtractor, Inpainter
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfeat.diffusion.features import FeatureExtractor
    from dfeat.diffusion.inpaint import Inpainter

__all__ = ["FeatureExtractor", "Inpainter"]


def __getattr__(name: str) -> Any:
    """Import torch and diffusers only when one of the two classes is asked for."""
    if name == "FeatureExtractor":
        from dfeat.diffusion.features import FeatureExtractor

        return FeatureExtractor
    if name == "Inpainter":
        from dfeat.diffusion.inpaint import Inpainter

        return Inpainter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
